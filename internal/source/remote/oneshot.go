// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec" //nolint:depguard // delegate runs plugins; this child is no plugin but the other side of the session
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// ProgramName is the name of the program that a one-shot client runs.
const ProgramName = "plexusd"

// childPatience is how long a child may take to end when its session has.
const childPatience = 2 * time.Second

// NewOneShot returns a Client of a child, `plexusd lookup --kubeconfig kubeconfig`, that asks the API server itself and lives for
// one session. The program is searched for in dirs. kubeletRootDir tells it where the kubelet is, "" for the usual place.
func NewOneShot(kubeconfig, kubeletRootDir string, dirs []string) *Client {
	args := []string{"lookup", "--kubeconfig", kubeconfig}
	if kubeletRootDir != "" {
		args = append(args, "--pod-resources-socket", filepath.Join(kubeletRootDir, "pod-resources/kubelet.sock"),
			"--device-checkpoint", filepath.Join(kubeletRootDir, "device-plugins/kubelet_internal_checkpoint"))
	}
	return newClient(ProgramName+" lookup", func(context.Context) (io.ReadWriteCloser, error) {
		program, err := findProgram(dirs)
		if err != nil {
			return nil, err
		}
		return startChild(program, args...)
	})
}

func findProgram(dirs []string) (string, error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, ProgramName)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: the configuration has kubeconfig, which takes the program %s, and it is not in %s: install it there (plexusd install), or use daemonSocketDir", errFinal, ProgramName, strings.Join(dirs, ":"))
}

// child is a running program as a stream: written to its stdin, read from its stdout.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *tail
	end    func() error
}

// startChild starts the program. It ends by itself when its stdin does, so it is tied to the stream, not to a context.
func startChild(program string, args ...string) (*child, error) {
	cmd := exec.Command(program, args...) //nolint:noctx // Close ends it
	c := &child{cmd: cmd, stderr: &tail{}}
	c.end = sync.OnceValue(c.wait)
	cmd.Stderr = c.stderr
	cmd.WaitDelay = childPatience
	var inErr, outErr error
	c.in, inErr = cmd.StdinPipe()
	c.out, outErr = cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return nil, fmt.Errorf("%w: run %s: %w", errFinal, program, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: run %s: %w", errFinal, program, err)
	}
	return c, nil
}

func (c *child) Write(p []byte) (int, error) { return c.in.Write(p) }

// Read reads what the child responds. One that ends without a response has said why on stderr.
func (c *child) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if errors.Is(err, io.EOF) {
		if endErr := c.end(); endErr != nil {
			return n, fmt.Errorf("%w; it said: %s", endErr, c.stderr)
		}
	}
	return n, err
}

// Close ends the session, and the child: by the end of its stdin, or else by force. How a child ends that has responded is of no
// interest.
func (c *child) Close() error {
	_ = c.end()
	return nil
}

func (c *child) wait() error {
	_ = c.in.Close()                                                           // every request has its response, or will have none
	kill := time.AfterFunc(childPatience, func() { _ = c.cmd.Process.Kill() }) // it may have just ended
	defer kill.Stop()
	return c.cmd.Wait()
}

// tail keeps the end of what is written to it, for an error message.
type tail struct{ kept []byte }

// tailBytes is enough for the last line or two.
const tailBytes = 1 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = slices.Delete(t.kept, 0, max(0, len(t.kept)-tailBytes))
	return len(p), nil
}

// String returns it as one line.
func (t *tail) String() string {
	return strings.Join(strings.Fields(string(t.kept)), " ")
}
