// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// script writes a plugin in shell.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plug")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// call is an ADD by the program at path.
func call(path string) Call {
	return Call{
		Type: filepath.Base(path), Stdin: []byte(`{"name":"n"}`), Environ: append(os.Environ(), "CNI_COMMAND=ADD", "CNI_PATH="+filepath.Dir(path)),
		Check: func(stdout []byte) error { _, _, err := parseResult(stdout, "0.1.0"); return err },
	}
}

func execIt(t *testing.T, e *Exec, path string) ([]byte, error) {
	t.Helper()
	if e.Timeout == 0 {
		e.Timeout = time.Minute
	}
	return e.Call(t.Context(), call(path))
}

func TestExecHandsOverStdinAndEnvironment(t *testing.T) {
	t.Parallel()
	out, err := execIt(t, &Exec{}, script(t, `printf '{"got":%s,"verb":"%s"}' "$(cat)" "$CNI_COMMAND"`))
	if err != nil || string(out) != `{"got":{"name":"n"},"verb":"ADD"}` {
		t.Errorf("Call = %s, %v", out, err)
	}
}

func TestExecTellsHowAPluginFailed(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ body, says string }{
		"by the rules: its message":          {`echo '{"code":100,"msg":"no such parent","details":"eth9"}'; exit 1`, "no such parent"},
		"on stderr only":                     {`echo "oh dear" >&2; exit 3`, "ended with exit status 3 and said: oh dear"},
		"without a word":                     {`exit 4`, "ended with exit status 4 and said nothing"},
		"with garbage":                       {`echo "<html>"; exit 1`, `printed what is no CNI error: "<html>`},
		"with an empty object":               {`echo "{}"; exit 1`, "printed what is no CNI error"},
		"by a signal":                        {`kill -SEGV $$`, "killed by a signal: signal: segmentation fault"},
		"with a result that has null in it":  {`echo '{"cniVersion":"1.0.0","ips":[null]}'`, "ips[0] is null"},
		"with megabytes on stdout":           {`head -c 5000000 /dev/zero`, "printed more than 4194304 bytes"},
		"with megabytes on stderr: the tail": {`head -c 3000000 /dev/zero | tr '\0' x >&2; echo "the end" >&2; exit 1`, "the end"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := execIt(t, &Exec{}, script(t, tc.body))
			if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.HasPrefix(err.Error(), "plugin plug: ") {
				t.Fatalf("Call: %.300v, want it to say %q of plugin plug", err, tc.says)
			}
			if len(err.Error()) > 2*keepStderrBytes {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestExecKeepsTheCodeOfAPlugin(t *testing.T) {
	t.Parallel()
	_, err := execIt(t, &Exec{}, script(t, `echo '{"code":11,"msg":"m","details":"d"}'; exit 1`))
	e, ok := errors.AsType[*types.Error](err)
	if !ok || e.Code != 11 || e.Msg != "m" || e.Details != "d" {
		t.Errorf("Call: %#v, want the plugin's own CNI error", err)
	}
}

func TestExecStopsAPluginThatHangsWithItsChildren(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// Both the plugin and its child hold the FIFO open: it reads EOF when both are dead.
	hang := script(t, fmt.Sprintf(`exec 9>%s; sleep 1000 & wait`, fifo))
	done := make(chan error, 1)
	go func() {
		_, err := (&Exec{Timeout: 200 * time.Millisecond}).Program(t.Context(), hang, nil, os.Environ())
		done <- err
	}()
	if _, err := os.ReadFile(fifo); err != nil {
		t.Fatal(err)
	}
	err := <-done
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "delegateTimeoutSeconds") {
		t.Errorf("Call: %v, want a time-out that names its key", err)
	}
}

func TestExecKillsAPluginThatDoesNotHeedBeingStopped(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	deaf := script(t, fmt.Sprintf(`trap '' TERM; exec 9>%s; sleep 1000`, fifo))
	done := make(chan error, 1)
	go func() {
		_, err := (&Exec{Timeout: 200 * time.Millisecond}).Program(t.Context(), deaf, nil, os.Environ())
		done <- err
	}()
	if _, err := os.ReadFile(fifo); err != nil { // EOF when the plugin and its child are dead
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Call: %v, want a time-out", err)
	}
}

// A plugin's IPAM has its outputs from the plugin, not from Plexus: that they are closed does not show that it has ended.
func TestExecLeavesNobodyAtWorkOfAPluginThatFailed(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ ends string }{
		"killed":               {`kill -KILL $$`},
		"ended with an error":  {`exit 1`},
		"that hung, stopped":   {`sleep 1000`},
		"that closed its pipe": {`exec >&- 2>&-; exit 1`},
		"that printed rubbish": {`echo rubbish; exit 0`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fifo, isOver := lifeline(t)
			// The child does not heed SIGTERM. It alone holds the FIFO open for writing, and the plugin goes on when it does.
			path := script(t, fmt.Sprintf(`(trap '' TERM; exec 9>%[1]s >/dev/null 2>&1; while :; do sleep 1; done) & read -r line <%[1]s.started; %[2]s`, fifo, tc.ends))
			if _, err := execIt(t, &Exec{Timeout: 5 * time.Second, Grace: time.Second}, path); err == nil || errors.Is(err, errStragglers) {
				t.Errorf("Call: %v, want it to fail for the plugin's own cause", err)
			}
			if !isOver() {
				t.Error("the child is still at work")
			}
		})
	}
}

// lifeline makes a FIFO that a process opens for writing, and reads a line of <fifo>.started then to know that it is seen. The function that
// it returns reports whether the process, and whoever else has the FIFO open, has ended.
func lifeline(t *testing.T) (string, func() bool) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), syscall.Mkfifo(fifo+".started", 0o600)); err != nil {
		t.Fatal(err)
	}
	held := make(chan *os.File, 1)
	go func() {
		defer close(held)
		f, err := os.Open(fifo) // returns when the process has it
		if err == nil {
			err = os.WriteFile(fifo+".started", []byte("\n"), 0)
		}
		if err != nil {
			t.Error(err)
			return
		}
		held <- f
	}()
	return fifo, func() bool {
		t.Helper()
		f, ok := <-held
		if !ok {
			t.Fatal("the process never started")
		}
		defer f.Close()
		return atEOF(t, f)
	}
}

// atEOF reports whether nobody has the other end of a FIFO open any more.
func atEOF(t *testing.T, f *os.File) bool {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var readErr error
	if err := raw.Read(func(fd uintptr) bool { n, readErr = syscall.Read(int(fd), make([]byte, 1)); return true }); err != nil {
		t.Fatal(err)
	}
	return n == 0 && readErr == nil
}

func TestExecLetsTheIPAMOfAKilledPluginFinish(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "lease")
	path := script(t, fmt.Sprintf(`(exec >/dev/null 2>&1; while kill -0 $$; do :; done; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo made >%s) & kill -KILL $$`, file))
	if _, err := execIt(t, &Exec{Grace: time.Minute}, path); !errors.Is(err, ErrKilled) {
		t.Errorf("Call: %v, want that it was killed", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "made\n" {
		t.Errorf("when the plugin has failed, its IPAM has written %q, %v: what it does later is not undone", text, err)
	}
}

func TestExecLeavesADaemonThatAPluginStartedAlone(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		well bool
	}{
		"of a plugin that succeeded":                            {`sh -c "$DAEMON" & read -r line <$FIFO.started; echo '{}'`, true},
		"of a plugin that failed, in a session of the daemon's": {`setsid sh -c "$DAEMON" & read -r line <$FIFO.started; exit 1`, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fifo, isOver := lifeline(t)
			daemon := fmt.Sprintf(`echo $$ >%[1]s.pid; exec 9>%[1]s >/dev/null 2>&1; exec sleep 1000`, fifo)
			path := script(t, fmt.Sprintf("FIFO=%s; DAEMON='%s'; %s", fifo, daemon, tc.body))
			if _, err := execIt(t, &Exec{Grace: time.Second}, path); (err == nil) != tc.well {
				t.Errorf("Call: %v", err)
			}
			if isOver() {
				t.Error("the daemon was killed")
			}
			if text, err := os.ReadFile(fifo + ".pid"); err == nil {
				if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
					_ = syscall.Kill(pid, syscall.SIGKILL) // the test is over
				}
			}
		})
	}
}

func TestExecTellsOfOutputsThatAreKeptOpen(t *testing.T) {
	t.Parallel()
	_, err := execIt(t, &Exec{Grace: 100 * time.Millisecond}, script(t, `sleep 1000 & echo '{}'`))
	if !errors.Is(err, ErrBadOutput) || !strings.Contains(err.Error(), "what it started keeps its stdout or stderr open") {
		t.Errorf("Call: %v", err)
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	started := filepath.Join(t.TempDir(), "started")
	if err := syscall.Mkfifo(started, 0o600); err != nil {
		t.Fatal(err)
	}
	hang := script(t, fmt.Sprintf("echo > %s; sleep 1000", started))
	done := make(chan error, 1)
	go func() {
		_, err := (&Exec{Timeout: time.Minute}).Program(ctx, hang, nil, os.Environ())
		done <- err
	}()
	if _, err := os.ReadFile(started); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Call: %v, want it cancelled", err)
	}
}

func TestExecTriesAgainWhileTheBinaryIsReplaced(t *testing.T) {
	t.Parallel()
	path := script(t, `echo '{}'`)
	busy, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0) // open for writing: ETXTBSY
	if err != nil {
		t.Fatal(err)
	}
	free := time.AfterFunc(3*busyDelay, func() { _ = busy.Close() })
	defer free.Stop()
	if out, err := execIt(t, &Exec{}, path); err != nil || strings.TrimSpace(string(out)) != "{}" {
		t.Errorf("Call = %q, %v, want it to run once the file is free", out, err)
	}
}

func TestExecHandsOnTheInheritedFile(t *testing.T) {
	t.Parallel()
	f, err := os.CreateTemp(t.TempDir(), "lock")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := execIt(t, &Exec{Inherit: f}, script(t, `printf '{"fd":"%s"}' "$(sh -c 'readlink /proc/self/fd/3')"`)) // also to a child's child
	if err != nil || string(out) != `{"fd":"`+f.Name()+`"}` {
		t.Errorf("descriptor 3 = %q, %v, want %s", out, err, f.Name())
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	path := script(t, "")
	dirs := []string{"/nowhere", filepath.Dir(path)}
	if got, err := FindProgram("plug", dirs); err != nil || got != path {
		t.Errorf("FindProgram = %q, %v", got, err)
	}
	e := &Exec{Builtins: map[string]Builtin{PassthruType: Passthru}}
	for name, tc := range map[string]struct {
		pluginType string
		program    bool
		says       string
	}{
		"a program":                     {"plug", false, ""},
		"a built-in":                    {PassthruType, false, ""},
		"the program of a built-in":     {PassthruType, true, `no plugin "passthru" in ` + strings.Join(dirs, " or ")},
		"a plugin that is not there":    {"other", false, `no plugin "other" in `},
		"a folder of the plugin's name": {"..", false, `".." is no file name of a plugin`},
		"a path":                        {"../../bin/sh", false, `"../../bin/sh" is no file name of a plugin`},
	} {
		err := e.Find(tc.pluginType, tc.program, dirs)
		if tc.says == "" && err != nil || tc.says != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: Find = %v, want %q", name, err, tc.says)
		}
	}
}

func TestPassthru(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ env, stdin, want string }{
		"ADD hands the previous result on": {"CNI_COMMAND=ADD", `{"cniVersion":"1.0.0","prevResult":{"cniVersion":"1.0.0","ips":[]}}`, `{"cniVersion":"1.0.0","ips":[]}`},
		"ADD as the first gives an empty":  {"CNI_COMMAND=ADD", `{"cniVersion":"0.3.1"}`, `{"cniVersion":"0.3.1","dns":{}}`},
		"DEL does nothing":                 {"CNI_COMMAND=DEL", `{"cniVersion":"1.0.0"}`, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := Passthru(t.Context(), []byte(tc.stdin), []string{tc.env})
			if err != nil || string(out) != tc.want {
				t.Errorf("Passthru = %s, %v, want %s", out, err, tc.want)
			}
		})
	}
}
