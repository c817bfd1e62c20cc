// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/pod"
)

// host is a machine in memory: its network namespaces, and a Plexus that logs its calls.
type host struct {
	missing error // what FindInPath answers
	version.PluginDecoder
	netns map[string]bool
	calls []string
	// fail is asked before each step: "create PATH", "delete PATH", "ADD POD", "DEL POD".
	fail func(step string) error
}

func (h *host) step(format string, args ...any) error {
	s := fmt.Sprintf(format, args...)
	h.calls = append(h.calls, s)
	if h.fail == nil {
		return nil
	}
	return h.fail(s)
}

func (h *host) CreateNetNS(path string) error {
	if h.netns[path] {
		return fmt.Errorf("create: %w", fs.ErrExist)
	}
	if err := h.step("create %s", filepath.Base(path)); err != nil {
		return err
	}
	h.netns[path] = true
	return nil
}

func (h *host) DeleteNetNS(path string) error {
	if err := h.step("delete %s", filepath.Base(path)); err != nil {
		return err
	}
	delete(h.netns, path)
	return nil
}

func (h *host) IsNetNS(path string) (bool, error) { return h.netns[path], nil }

func (h *host) Links(string) ([]netdev.Link, error) {
	return []netdev.Link{{Name: "lo", MTU: 65536}, {Name: "eth0", MTU: 1450}}, nil
}

func (h *host) FindInPath(plugin string, paths []string) (string, error) {
	return filepath.Join(paths[0], plugin), h.missing
}

func (h *host) ExecPlugin(ctx context.Context, _ string, _ []byte, environ []string) ([]byte, error) {
	env := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	name := ""
	for pair := range strings.SplitSeq(env["CNI_ARGS"], ";") {
		if v, ok := strings.CutPrefix(pair, "K8S_POD_NAME="); ok {
			name = v
		}
	}
	in := ""
	if env["CNI_COMMAND"] == "DEL" && env["CNI_NETNS"] == "" {
		in = " without netns"
	}
	if err := h.step("%s %s%s", env["CNI_COMMAND"], name, in); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return []byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"` + env["CNI_NETNS"] + `"}],"ips":[{"address":"10.0.0.2/24"}]}`), nil
}

// lab is a runtime on a host, with a folder of manifests.
type lab struct {
	*runtime
	host *host
	dir  string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	h := &host{netns: map[string]bool{}}
	dir := t.TempDir()
	r := newRuntime(filepath.Join(dir, "state"), h, h)
	r.netnsDir = filepath.Join(dir, "netns")
	return &lab{runtime: r, host: h, dir: filepath.Join(dir, "manifests")}
}

func (l *lab) requests(names ...string) []request {
	var list []request
	for _, n := range names {
		list = append(list, request{
			pod: ref("default", n), dir: l.dir, binDirs: []string{"/bin"},
			conf: []byte(`{"cniVersion":"1.0.0","name":"plexus","plugins":[{"type":"plexus"}]}`),
		})
	}
	return list
}

// detached runs a detach and returns what it told.
func (l *lab) detached(t *testing.T, names ...string) ([]string, error) {
	t.Helper()
	var told []string
	err := l.detach(t.Context(), l.dir, names, nil, func(p string, attached bool) {
		told = append(told, fmt.Sprintf("%s %v", p, attached))
	})
	return told, err
}

// left is what a lab holds: records and namespaces.
func (l *lab) left(t *testing.T) []string {
	t.Helper()
	keys, err := l.sandboxes.Keys()
	if err != nil {
		t.Fatal(err)
	}
	for path := range maps.Keys(l.host.netns) {
		keys = append(keys, filepath.Base(path))
	}
	slices.Sort(keys)
	return keys
}

func equal(t *testing.T, what string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAttachThenDetach(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	status, err := l.attach(t.Context(), l.requests("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if len(status) != 2 || status[0].Name != "a" || len(status[0].Networks) != 1 || status[0].Networks[0].MTU != 1450 || !status[0].Networks[0].Default {
		t.Errorf("status = %+v; want the default network of a and b, from the result, with the kernel's MTU", status)
	}
	equal(t, "while attached", []string{"default-a", "default-b", "default_a", "default_b"}, l.left(t))
	told, err := l.detached(t)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "told", []string{"default/a true", "default/b true"}, told)
	equal(t, "calls", []string{
		"create default-a", "ADD a", "create default-b", "ADD b", "DEL a", "delete default-a", "DEL b", "delete default-b",
	}, l.host.calls)
	equal(t, "left", nil, l.left(t))
}

func TestAttachFailsAsAWhole(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, step := range []string{"create default-b", "ADD b"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.host.fail = func(s string) error {
				if s == step {
					return broken
				}
				return nil
			}
			_, err := l.attach(t.Context(), l.requests("a", "b", "c"))
			if !errors.Is(err, broken) || !strings.Contains(err.Error(), "pod default/b: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("attach = %v; want one line that names the pod and the cause", err)
			}
			equal(t, "left", nil, l.left(t))
			if slices.Contains(l.host.calls, "ADD c") {
				t.Error("the pod after the failed one was begun")
			}
		})
	}
}

// TestCrashIsMendedByDetach stops attach dead at each step, as a kill would, and has a new process detach.
func TestCrashIsMendedByDetach(t *testing.T) {
	t.Parallel()
	type killed struct{}
	for _, step := range []string{"create default-a", "ADD a", "create default-b", "ADD b"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.host.fail = func(s string) error {
				if s == step {
					panic(killed{})
				}
				return nil
			}
			func() {
				defer func() {
					if r := recover(); r != (killed{}) {
						t.Errorf("recovered %v", r)
					}
				}()
				_, _ = l.attach(t.Context(), l.requests("a", "b"))
			}()
			l.host.fail = nil
			if _, err := l.attach(t.Context(), l.requests("a")); err == nil || !strings.Contains(err.Error(), "plexusctl detach -f "+l.dir+" --state-dir "+l.stateDir+" default/a") {
				t.Errorf("attach after the crash = %v; want an error that says how to fix it", err)
			}
			if _, err := l.detached(t); err != nil {
				t.Fatal(err)
			}
			equal(t, "left", nil, l.left(t))
		})
	}
}

func TestInterruptRollsBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupt := errors.New("interrupt signal received")
	l.host.fail = func(s string) error {
		if s == "ADD b" {
			cancel(interrupt)
		}
		return nil
	}
	if _, err := l.attach(ctx, l.requests("a", "b")); !errors.Is(err, interrupt) {
		t.Errorf("attach = %v; want the interrupt", err)
	}
	equal(t, "left", nil, l.left(t))
}

func TestAttachRefusesWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	t.Run("a pod that is attached", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		if _, err := l.attach(t.Context(), l.requests("a")); err != nil {
			t.Fatal(err)
		}
		before := slices.Clone(l.host.calls)
		_, err := l.attach(t.Context(), l.requests("b", "a"))
		if err == nil || !strings.Contains(err.Error(), "pod default/a: attached already") || !strings.Contains(err.Error(), "plexusctl detach -f "+l.dir+" --state-dir "+l.stateDir+" default/a") {
			t.Errorf("attach = %v; want a refusal that says how to fix it", err)
		}
		equal(t, "calls", before, l.host.calls)
	})
	t.Run("a plugin that is not there", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		l.host.missing = errors.New("no plugin")
		if _, err := l.attach(t.Context(), l.requests("a")); !errors.Is(err, l.host.missing) || !strings.Contains(err.Error(), "--cni-bin") {
			t.Errorf("attach = %v; want it told where to look", err)
		}
		equal(t, "left", nil, l.left(t))
		if keys, err := l.sandboxes.Keys(); err != nil || len(keys) != 0 {
			t.Errorf("on record, and never to be undone: %v, %v", keys, err)
		}
	})
	t.Run("a namespace of somebody else", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		path := filepath.Join(l.netnsDir, "default-a")
		if err := os.MkdirAll(l.netnsDir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, "")
		if _, err := l.attach(t.Context(), l.requests("a")); err == nil || !strings.Contains(err.Error(), "not created by plexusctl") {
			t.Errorf("attach = %v; want a refusal", err)
		}
		equal(t, "left", nil, l.left(t))
	})
	t.Run("a namespace that somebody else makes at the same time", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		l.host.netns[filepath.Join(l.netnsDir, "default-a")] = true // no file is there, so that only CreateNetNS sees it
		if _, err := l.attach(t.Context(), l.requests("a")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("attach = %v; want the refusal of CreateNetNS", err)
		}
		equal(t, "left", []string{"default-a"}, l.left(t))
	})
	t.Run("a namespace that is none", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		q := l.requests("a")
		q[0].netns = "/run/netns/absent"
		if _, err := l.attach(t.Context(), q); err == nil || !strings.Contains(err.Error(), "omit --netns") {
			t.Errorf("attach = %v; want a refusal", err)
		}
	})
}

func TestGivenNetNSIsNotDeleted(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.host.netns["/run/netns/blue"] = true
	q := l.requests("a")
	q[0].netns = "/run/netns/blue"
	if _, err := l.attach(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if _, err := l.detached(t, "a"); err != nil {
		t.Fatal(err)
	}
	equal(t, "calls", []string{"ADD a", "DEL a"}, l.host.calls)
	equal(t, "left", []string{"blue"}, l.left(t))
}

func TestDetachGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if _, err := l.attach(t.Context(), l.requests("a", "b", "c")); err != nil {
		t.Fatal(err)
	}
	l.host.fail = func(s string) error {
		switch s {
		case "DEL a":
			return &types.Error{Code: 999, Msg: "pod default/a: network n: busy"}
		case "delete default-b":
			return errors.New("no")
		}
		return nil
	}
	told, err := l.detached(t)
	if want := "pod default/a: network n: busy (CNI code 999)\npod default/b: no"; err == nil || err.Error() != want {
		t.Errorf("detach = %v; want\n%s", err, want)
	}
	equal(t, "told", []string{"default/c true"}, told)
	equal(t, "left", []string{"default-a", "default-b", "default_a", "default_b"}, l.left(t))
	l.host.fail = nil
	if _, err := l.detached(t); err != nil {
		t.Errorf("the next detach: %v", err)
	}
	equal(t, "left after the next one", nil, l.left(t))
}

func TestDetachOfWhatIsNotAttached(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	told, err := l.detached(t, "x")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "told", []string{"x false"}, told)
	if _, err = os.Stat(filepath.Dir(l.cacheDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state folder was made for nothing: %v", err)
	}
	if _, err = l.attach(t.Context(), l.requests("a")); err != nil {
		t.Fatal(err)
	}
	if told, err = l.detached(t, "x", "default/a"); err != nil {
		t.Fatal(err)
	}
	equal(t, "told", []string{"default/a true", "x false"}, told)
	if told, err = l.detached(t); err != nil {
		t.Fatal(err)
	}
	equal(t, "told", nil, told)
}

func TestDetachAfterARebootNamesNoNetNS(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if _, err := l.attach(t.Context(), l.requests("a")); err != nil {
		t.Fatal(err)
	}
	clear(l.host.netns)
	if _, err := l.detached(t); err != nil {
		t.Fatal(err)
	}
	equal(t, "calls", []string{"create default-a", "ADD a", "DEL a without netns", "delete default-a"}, l.host.calls)
}

func TestDetachIsAboutItsFolder(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if _, err := l.attach(t.Context(), l.requests("a")); err != nil {
		t.Fatal(err)
	}
	own := l.dir
	l.dir += "-other"
	if told, err := l.detached(t); err != nil || told != nil {
		t.Errorf("detach of another folder = %v, %v; want nothing done", told, err)
	}
	if _, err := l.detached(t, "a"); err == nil || !strings.Contains(err.Error(), "attached from "+own) {
		t.Errorf("detach of a pod of another folder = %v; want an error that names that", err)
	}
	equal(t, "left", []string{"default-a", "default_a"}, l.left(t))
}

func TestBadRecordIsInTheWayOnce(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"no JSON":     "{",
		"no fields":   "{}",
		"another pod": `{"version":1,"pod":{"namespace":"default","name":"b"},"containerID":"c","netns":"/n","manifestDir":"/m"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			if _, err := l.attach(t.Context(), l.requests("ok")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(filepath.Dir(l.cacheDir), "default_a.json"), content)
			told, err := l.detached(t)
			if err == nil || !strings.Contains(err.Error(), "set aside") {
				t.Errorf("detach = %v; want an error that tells of the record", err)
			}
			equal(t, "told", []string{"default/ok true"}, told)
			if _, err := l.detached(t); err != nil {
				t.Errorf("the next detach: %v", err)
			}
		})
	}
	t.Run("a newer version", func(t *testing.T) {
		t.Parallel()
		s := &sandbox{Version: sandboxVersion + 1, Pod: pod.Ref{Namespace: "default", Name: "a"}}
		if err := s.validate("default_a"); err == nil || !strings.Contains(err.Error(), "newer plexusctl") {
			t.Errorf("validate = %v; want a pointer to a newer plexusctl", err)
		}
	})
}
