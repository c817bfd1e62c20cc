// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/plexus-cni/plexus/internal/dirwatch"
)

// mesh stands in for a service mesh's installer, after each change of the folder.
type mesh func(t *testing.T, dir string)

// insert puts a plugin behind those of a configuration, for which others of its type are taken out, and writes it for everybody to read. It returns
// what it wrote, nil if it came amidst another's write.
func insert(t *testing.T, path, pluginType string) []byte {
	t.Helper()
	var list map[string]any
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return nil // in the middle of being replaced
	}
	plugins, ok := list["plugins"].([]any)
	if !ok {
		return nil
	}
	plugins = slices.DeleteFunc(plugins, func(p any) bool { return p.(map[string]any)["type"] == pluginType })
	list["plugins"] = append(plugins, map[string]any{"type": pluginType, "log_level": "info"})
	out, err := json.Marshal(list)
	if err != nil {
		t.Error(err)
		return nil
	}
	tmp := path + ".mesh"
	if err = os.WriteFile(tmp, out, 0o644); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		t.Error(err)
	}
	return out
}

// istio is cni/pkg/install of Istio 1.2x: of the lexically first file it wants that its plugin is in it, and does not look at the rest.
func istio(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.conflist"))
	if err != nil || len(files) == 0 {
		return
	}
	if data, err := os.ReadFile(files[0]); err == nil && !bytes.Contains(data, []byte(`"istio-cni"`)) {
		insert(t, files[0], "istio-cni")
	}
}

// linkerd is install-cni.sh of Linkerd's cni-plugin v1.6: every file that is not, byte by byte, what it wrote last is written anew.
func linkerd() mesh {
	sums := map[string][sha256.Size]byte{}
	return func(t *testing.T, dir string) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "*.conflist"))
		if err != nil {
			t.Error(err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil || sha256.Sum256(data) == sums[path] {
				continue
			}
			sums[path] = sha256.Sum256(insert(t, path, "linkerd-cni"))
		}
	}
}

// TestServiceMeshesAreNotFought runs the installer of a mesh against Plexus' own, and counts how often each wrote.
func TestServiceMeshesAreNotFought(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		act        mesh
		pluginType string
		twice      bool
	}{
		"istio":   {istio, "istio-cni", false},
		"linkerd": {linkerd(), "linkerd-cni", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, map[string]string{"10-flannel.conflist": flannel})
			said := &logs{}
			node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Log: slog.New(slog.NewTextHandler(said, nil))}
			conf := filepath.Join(dir, ConfName)
			keep(t, node)
			awaitFile(t, conf, "plexus") // or else istio-cni is put into the primary network alone
			run(t, dir, tc.act)
			awaitFile(t, conf, tc.pluginType)
			awaitQuiet(t, dir) // or else the mesh, which changes the primary too, may undo what is changed next
			// A change of the primary, which Plexus follows, and the mesh accepts.
			write(t, filepath.Join(dir, "10-flannel.conflist"), strings.Replace(flannel, `"portMappings":true`, `"portMappings":true,"mac":true`, 1))
			awaitFile(t, conf, `"mac"`)
			awaitFile(t, conf, tc.pluginType)
			awaitQuiet(t, dir)
			got := read(t, conf)
			if strings.Count(got, tc.pluginType) != 1 || !strings.Contains(got, `"plexus"`) || !strings.Contains(got, `"mac"`) {
				t.Errorf("%s: %s", ConfName, got)
			}
			// Once, when the mesh's insertion and the primary's change are seen in one look; a fight is more than that.
			if strings.Count(said.String(), "took Plexus' configuration away") > 1 || node.Ready() != nil {
				t.Errorf("ready: %v; log: %s", node.Ready(), said)
			}
			if strings.Contains(said.String(), "it runs twice for each pod") != tc.twice {
				t.Errorf("twice %v; log: %s", tc.twice, said)
			}
			if err := node.Uninstall(); err != nil {
				t.Errorf("Uninstall = %v", err)
			}
		})
	}
}

func TestAMeshThatGoesIsNotKept(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"10-flannel.conflist": flannel})
	c := Conf{Dir: dir, SocketDir: "/run/plexus"}
	path := filepath.Join(dir, ConfName)
	if _, err := c.Write(); err != nil {
		t.Fatal(err)
	}
	before := read(t, path)
	insert(t, path, "istio-cni")
	if o, err := c.Write(); err != nil || o.Wrote || !slices.Equal(o.Mesh, []string{"istio-cni"}) {
		t.Errorf("Write = %+v, %v; want it left as it is", o, err)
	}
	// Istio takes its plugin out when it ends.
	write(t, path, strings.Replace(read(t, path), `,{"log_level":"info","type":"istio-cni"}`, "", 1))
	if o, err := c.Write(); err != nil || len(o.Mesh) > 0 || read(t, path) != before {
		t.Errorf("Write = %+v, %v; want what was there before:\n%s", o, err, read(t, path))
	}
}

func TestPluginsOfStrangersAreTakenOutWithAWord(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"10-flannel.conflist": flannel})
	said := &logs{}
	node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Log: slog.New(slog.NewTextHandler(said, nil))}
	node.act()
	path := filepath.Join(dir, ConfName)
	insert(t, path, "istio-cni")
	insert(t, path, "spy")
	node.act()
	if got := read(t, path); strings.Contains(got, "spy") || !strings.Contains(got, "istio-cni") {
		t.Errorf("%s: %s", ConfName, got)
	}
	if !strings.Contains(said.String(), "plugins=[spy]") || !strings.Contains(said.String(), "10-flannel.conflist") || strings.Contains(said.String(), "cilium") {
		t.Errorf("log: %s", said)
	}
}

// run has a mesh act now and after each change of the folder, until the test ends.
func run(t *testing.T, dir string, act mesh) {
	t.Helper()
	w, err := dirwatch.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		defer w.Close()
		for ctx.Err() == nil {
			act(t, dir)
			_ = w.Wait(ctx) // it ends with the test
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
}

// awaitQuiet waits until nothing changes in a folder for as long as Plexus and a mesh take for a turn each, many times over.
func awaitQuiet(t *testing.T, dir string) {
	t.Helper()
	w, err := dirwatch.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for ctx.Err() == nil {
		quiet, stop := context.WithTimeout(ctx, 10*settle)
		err := w.Wait(quiet)
		over := quiet.Err() != nil && ctx.Err() == nil
		stop()
		if over {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("two programs write one file in turns")
}
