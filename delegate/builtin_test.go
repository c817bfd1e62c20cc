// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withBuiltin is an executor with a built-in plugin vfs, whose calls it counts, and a folder for programs.
func withBuiltin(t *testing.T) (*Executor, string, *[]string) {
	t.Helper()
	bin, calls := t.TempDir(), &[]string{}
	vfs := func(_ context.Context, _ []byte, environ []string) ([]byte, error) {
		for _, kv := range environ {
			if verb, ok := strings.CutPrefix(kv, "CNI_COMMAND="); ok {
				*calls = append(*calls, "built-in "+verb)
			}
		}
		return []byte(`{"cniVersion":"1.0.0"}`), nil
	}
	return &Executor{
		BinDirs: []string{"/nowhere", bin}, CacheDir: t.TempDir(),
		Plugins: &Exec{Timeout: time.Minute, Builtins: map[string]Builtin{"vfs": vfs}}, Environ: os.Environ(),
	}, bin, calls
}

func checkAll(e *Executor) func(context.Context, *Plan) error {
	return func(ctx context.Context, p *Plan) error { return e.Check(ctx, p, true) }
}

func vfsPlan(t *testing.T, keys string) *Plan {
	t.Helper()
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"n","type":"vfs"%s}`, keys)
	return &Plan{
		Sandbox:     Sandbox{ContainerID: "c", NetNS: "/run/netns/x", IfName: "eth0"},
		Attachments: []Attachment{{IfName: "net1", List: list(t, conf)}},
	}
}

func TestConfigurationChoosesBetweenTheBuiltinAndTheProgram(t *testing.T) {
	t.Parallel()
	for keys, program := range map[string]bool{"": false, `,"builtin":true`: false, `,"builtin":false`: true, `,"builtin":"no"`: false} {
		e, bin, calls := withBuiltin(t)
		log := filepath.Join(bin, "log")
		body := fmt.Sprintf("#!/bin/sh\necho $CNI_COMMAND >>%s\necho '{\"cniVersion\":\"1.0.0\"}'\n", log)
		if err := os.WriteFile(filepath.Join(bin, "vfs"), []byte(body), 0o700); err != nil {
			t.Fatal(err)
		}
		p := vfsPlan(t, keys)
		for _, verb := range []func(context.Context, *Plan) error{e.Add, checkAll(e), e.Del} {
			if err := verb(t.Context(), p); err != nil {
				t.Fatalf("%s: %v", keys, err)
			}
		}
		ran, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		want := map[bool]string{true: "ADD CHECK DEL []", false: " [built-in ADD built-in CHECK built-in DEL]"}[program]
		if got := strings.Join(strings.Fields(string(ran)), " ") + fmt.Sprintf(" %v", *calls); got != want {
			t.Errorf("%s: ran %q, want %q", keys, got, want)
		}
	}
}

func TestProgramInPlaceOfABuiltinThatIsMissingIsFoundOutFirst(t *testing.T) {
	t.Parallel()
	e, bin, calls := withBuiltin(t)
	p := vfsPlan(t, "")
	p.Attachments = append(p.Attachments, vfsPlan(t, `,"builtin":false`).Attachments[0])
	err := e.Add(t.Context(), p)
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `"vfs"`) || !strings.Contains(err.Error(), bin) {
		t.Errorf("got %v, want an error that names the program and the folder", err)
	}
	if len(*calls) > 0 || len(p.Attachments) > 0 {
		t.Errorf("touched: %v, to undo: %v", *calls, p.Attachments)
	}
}
