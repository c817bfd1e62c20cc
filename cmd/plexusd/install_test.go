// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestVariablesStandForFlags(t *testing.T) {
	t.Parallel()
	environment := map[string]string{"PLEXUSD_CONF_DIR": "/k3s", "PLEXUSD_BIN_DIR": "/bin", "PLEXUSD_KEEP": "maybe", "NODE_NAME": "n"}
	lookup := func(name string) (string, bool) { v, ok := environment[name]; return v, ok }
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	conf := flags.String("conf-dir", "/etc", "")
	bin := flags.String("bin-dir", "/opt", "")
	if err := flags.Parse([]string{"--bin-dir=/given"}); err != nil {
		t.Fatal(err)
	}
	if err := fromEnvironment(flags, lookup); err != nil || *conf != "/k3s" || *bin != "/given" {
		t.Errorf("conf-dir %s, bin-dir %s, %v; want the variable, and what was given", *conf, *bin, err)
	}
	flags.Bool("keep", false, "")
	if err := fromEnvironment(flags, lookup); err == nil || !strings.Contains(err.Error(), "PLEXUSD_KEEP") {
		t.Errorf("error %v does not name the variable", err)
	}
}

// TestKeepIsAskedByProbes runs alone: a command sets the process' loggers.
func TestKeepIsAskedByProbes(t *testing.T) {
	conf, source := t.TempDir(), t.TempDir()
	write(t, filepath.Join(source, "plexus"), "x")
	address := freeAddress(t)
	t.Setenv("PLEXUSD_LISTEN", address)
	execute(t, "install", "--keep", "--conf-dir="+conf, "--bin-dir="+t.TempDir(), "--bin-source="+source, "--socket-dir="+t.TempDir())
	await(t, address, "/readyz", "no primary network configuration")
	await(t, address, "/healthz", "ok")
	write(t, filepath.Join(conf, "10-n.conflist"), primary)
	await(t, address, "/readyz", "ok")
}

// TestBadKeysAreSaidAndNotFatal runs alone: a command sets the process' loggers.
func TestBadKeysAreSaidAndNotFatal(t *testing.T) {
	for name, keys := range map[string]string{"no JSON": "{", "a key that is not to be set": `{"type":"x"}`, "a bad value": `{"logLevel":"loud"}`} {
		t.Run(name, func(t *testing.T) {
			conf, source, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "plugin.json")
			write(t, filepath.Join(source, "plexus"), "x")
			write(t, filepath.Join(conf, "10-n.conflist"), primary)
			write(t, file, keys)
			address := freeAddress(t)
			execute(t, "install", "--keep", "--listen="+address, "--plugin-conf="+file, "--conf-dir="+conf, "--bin-dir="+t.TempDir(), "--bin-source="+source)
			await(t, address, "/readyz", map[bool]string{true: "logLevel", false: "keys for the plugin's configuration"}[name == "a bad value"])
			await(t, address, "/healthz", "ok")
		})
	}
}

// TestFoldersOfAnotherUser runs the program as the manifests do: as root without the capability by which root may write everywhere.
func TestFoldersOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "only root can give a folder to another user")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		testenv.Missing(t, "needs the program setpriv (util-linux)")
	}
	if out, err := exec.CommandContext(t.Context(), setpriv, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--", "true").CombinedOutput(); err != nil {
		testenv.Missing(t, "setpriv: %v: %s", err, out)
	}
	plexusd := filepath.Join(t.TempDir(), "plexusd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", plexusd, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, says := range map[string]string{"bin": "bin belongs to user 1001", "conf": "conf belongs to user 1001", "primary": "10-n.conflist belongs to user 1001"} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range []string{"bin", "conf", "source"} {
				if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			write(t, filepath.Join(root, "source", "plexus"), "x")
			write(t, filepath.Join(root, "conf", "10-n.conflist"), primary)
			write(t, filepath.Join(root, "conf", "20-other.conflist"), primary)
			foreign := filepath.Join(root, name)
			if name == "primary" {
				foreign = filepath.Join(root, "conf", "10-n.conflist")
			}
			if err := os.Chown(foreign, 1001, 1001); err != nil {
				t.Fatal(err)
			}
			args := []string{
				"--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--", plexusd, "install",
				"--conf-dir=" + filepath.Join(root, "conf"), "--bin-dir=" + filepath.Join(root, "bin"), "--bin-source=" + filepath.Join(root, "source"),
			}
			out, err := exec.CommandContext(t.Context(), setpriv, args...).CombinedOutput()
			for _, part := range []string{"permission denied", says, "mode 0", "chown root:root", "deploy/components/dac-override"} {
				if err == nil || !strings.Contains(string(out), part) {
					t.Errorf("plexusd install: %v, does not say %q:\n%s", err, part, out)
				}
			}
			if err = os.Chown(foreign, 0, 0); err != nil {
				t.Fatal(err)
			}
			if out, err = exec.CommandContext(t.Context(), setpriv, args...).CombinedOutput(); err != nil {
				t.Errorf("after the chown: %v\n%s", err, out)
			}
		})
	}
}

// TestAFolderThatIsMountedElsewhereIsRefused has real bind mounts, in a mount namespace of its own.
func TestAFolderThatIsMountedElsewhereIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "only root mounts")
	}
	root := t.TempDir()
	plexusd := filepath.Join(root, "plexusd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", plexusd, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	// The anchor is a folder that is where it is on the host, as the kubelet's is.
	script := fmt.Sprintf(`set -e
cd %s; mkdir -p k3s inside bin source anchor; echo x > source/plexus
echo '%s' > k3s/10-n.conflist
mount --make-rprivate /; mount --bind k3s inside; mount --bind anchor anchor
./plexusd install --conf-dir="$PWD/inside" --bin-dir="$PWD/bin" --bin-source="$PWD/source" "$@"`, root, primary)
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, "sh"}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run()
	if err == nil || !strings.Contains(out, root+"/inside is "+root+"/k3s on the host") || !strings.Contains(out, "--conf-dir="+root+"/k3s") {
		t.Errorf("plexusd install: %v\n%s", err, out)
	}
	files, err := os.ReadDir(filepath.Join(root, "k3s"))
	if err != nil || len(files) != 1 {
		t.Errorf("files %v, %v; want the primary alone", files, err)
	}
	if out, err = run("--host-links"); err != nil {
		t.Errorf("plexusd install --host-links: %v\n%s", err, out)
	}
}

// execute runs a command until the test ends.
func execute(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := newCommand()
	cmd.SetArgs(args)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("plexusd %s: %v", args[0], err)
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await asks until the answer has a text in it.
func await(t *testing.T, address, path, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for last := ""; ; <-tick.C {
		if ctx.Err() != nil {
			t.Fatalf("%s never said %q, but %q", path, text, last)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if last = string(body); err == nil && strings.Contains(last, text) {
			return
		}
	}
}
