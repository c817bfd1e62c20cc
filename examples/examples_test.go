// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/nad"
	"github.com/plexus-cni/plexus/sriov"
)

// node is the configuration for examples that bring none along.
const node = `{"cniVersion":"1.0.0","name":"plexus","plugins":[{"type":"plexus","delegates":[{"type":"bridge","name":"cluster-default"}]}]}`

// TestExamples plans the attachment of every pod of every example, which checks all that can be checked without a kernel: what a pod
// selects is there and allowed, is sound, and its plugins support what the pod asks for.
func TestExamples(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		found++
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			checkReadme(t, e.Name())
			conf := readConf(t, e.Name())
			objects, err := manifest.Load(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			if len(objects.Pods) == 0 || len(objects.Definitions) == 0 {
				t.Fatalf("%d pods and %d networks; want some of each", len(objects.Pods), len(objects.Definitions))
			}
			for _, d := range objects.Definitions {
				if _, err := nad.Normalize([]byte(d.Config), nad.Defaults{Name: d.Ref.Name}); err != nil {
					t.Errorf("network %s: %v", d.Ref, err)
				}
			}
			for _, p := range objects.Pods {
				elements, err := annotations.ParseNetworks(p.Annotations[annotations.NetworksKey], p.Ref.Namespace)
				if err != nil || len(elements)+len(conf.DefaultNetworks) == 0 {
					t.Errorf("pod %s selects %d networks, %v; want some", p.Ref, len(elements), err)
				}
				// Devices are the kubelet's to give; a pod of an example that needs one gets no further here.
				_, err = plan(t.Context(), conf, e.Name(), p.Ref)
				if e.Name() == "sriov" && errors.Is(err, source.ErrNoDevice) {
					err = nil
				}
				if err != nil {
					t.Errorf("pod %s: %v", p.Ref, err)
				}
			}
		})
	}
	if found == 0 {
		t.Error("no example found")
	}
}

// TestSRIOVNetworksAreSound has the networks of the SR-IOV example accepted by the plugin, once they have a device.
func TestSRIOVNetworksAreSound(t *testing.T) {
	t.Parallel()
	objects, err := manifest.Load("sriov")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range objects.Definitions {
		if d.ResourceName == "" {
			t.Errorf("network %s names no resource", d.Ref)
		}
		list, err := nad.Normalize([]byte(d.Config), nad.Defaults{Name: d.Ref.Name})
		if err != nil {
			t.Fatal(err)
		}
		_, err = list.EditPlugins(func(plugin map[string]json.RawMessage) error {
			plugin["deviceID"] = json.RawMessage(`"0000:03:02.1"`)
			conf, marshalErr := json.Marshal(plugin)
			if marshalErr != nil {
				return marshalErr
			}
			_, parseErr := sriov.ParseConfig(conf, "", false)
			return parseErr
		})
		if err != nil {
			t.Errorf("network %s: %v", d.Ref, err)
		}
	}
}

// TestIsolationRefusesTheOtherNamespace proves the claim of that example's README.
func TestIsolationRefusesTheOtherNamespace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("isolation")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pods.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.ReplaceAll(data, []byte("networks: private,"), []byte("networks: orders/private,"))
	if err = os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	conf := readConf(t, dir)
	if _, err = plan(t.Context(), conf, dir, pod.Ref{Namespace: "orders", Name: "worker"}); err != nil {
		t.Errorf("pod orders/worker and its own network: %v", err)
	}
	if _, err = plan(t.Context(), conf, dir, pod.Ref{Namespace: "billing", Name: "worker"}); err == nil || !strings.Contains(err.Error(), "orders/private") {
		t.Errorf("pod billing/worker and orders/private: %v; want a refusal that names the network", err)
	}
}

// TestEveryPodHasTheDefaultNetworks proves the claim of that example's README.
func TestEveryPodHasTheDefaultNetworks(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"app":     {"cluster-default", "default/telemetry"},
		"gateway": {"cluster-default", "default/telemetry", "default/upstream"},
	} {
		p, err := plan(t.Context(), readConf(t, "default-networks"), "default-networks", pod.Ref{Namespace: "default", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range p.Attachments {
			got = append(got, a.Network)
		}
		if !slices.Equal(got, want) {
			t.Errorf("pod %s gets %q, want %q", name, got, want)
		}
	}
}

func checkReadme(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(data, []byte("\n")); lines != 5 || !bytes.HasPrefix(data, []byte("# ")) {
		t.Errorf("README.md has %d lines; want 5, the first a title", lines)
	}
}

// readConf is the configuration of Plexus of an example, or one like that of any node.
func readConf(t *testing.T, dir string) *config.Config {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "plexus.conflist"))
	if os.IsNotExist(err) {
		data, err = []byte(node), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	list, err := nad.Normalize(data, nad.Defaults{})
	if err != nil {
		t.Fatalf("plexus.conflist: %v", err)
	}
	var conf struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err = json.Unmarshal(list.Bytes(), &conf); err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(conf.Plugins[0])
	if err != nil {
		t.Fatalf("plexus.conflist: %v", err)
	}
	c.Name, c.CNIVersion = list.Name(), list.CNIVersion() // as libcni hands them on to the plugin
	return c
}

// plan is what an ADD would do.
func plan(ctx context.Context, c *config.Config, dir string, p pod.Ref) (*delegate.Plan, error) {
	policy := nad.Policy{Isolate: c.NamespaceIsolation}
	if c.GlobalNamespaces != nil {
		policy.GlobalNamespaces = nad.ParseGlobalNamespaces(*c.GlobalNamespaces)
	}
	selection, err := manifest.New(dir).Lookup(ctx, source.Query{
		Pod: p, DefaultNetworks: c.DefaultNetworks, NetworksNamespace: c.NetworksNamespace, Isolation: policy,
	})
	if err != nil {
		return nil, err
	}
	list, err := nad.Normalize(c.Delegates[0], nad.Defaults{Name: c.Name, CNIVersion: c.CNIVersion})
	if err != nil {
		return nil, err
	}
	networks := []delegate.Network{{Name: list.Name(), List: list}}
	for _, n := range slices.Concat(selection.DefaultNetworks, selection.Networks) {
		if n.Missing {
			return nil, fmt.Errorf("%w: default network %s", nad.ErrNotFound, n.Ref)
		}
		list, err := nad.Normalize([]byte(n.Config), nad.Defaults{Name: n.Ref.Name, CNIVersion: c.CNIVersion})
		if err != nil {
			return nil, err
		}
		networks = append(networks, delegate.Network{Name: n.Ref.String(), List: list, Element: n.Element})
	}
	return delegate.NewPlan(delegate.Request{
		Config: c.Name, Sandbox: delegate.Sandbox{ContainerID: "c1", IfName: "eth0"}, Args: pod.Args{Pod: p}, Networks: networks,
	})
}
