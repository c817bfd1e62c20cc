// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/nad"
)

// received is what a plugin gets: who it is, its configuration, and CNI's parameters.
type received struct {
	Plugin  string
	Conf    any
	Environ []string
}

// receiver notes what plugins get, from libcni or from an Executor.
type receiver struct {
	version.PluginDecoder
	calls []received
}

func (r *receiver) note(plugin string, stdin []byte, environ []string) []byte {
	var conf any
	if err := json.Unmarshal(stdin, &conf); err != nil {
		panic(err)
	}
	parameters := map[string]string{}
	for _, kv := range environ { // the last one counts
		if key, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(key, "CNI_") {
			parameters[key] = value
		}
	}
	call := received{Plugin: plugin, Conf: conf}
	for key, value := range parameters {
		call.Environ = append(call.Environ, key+"="+value)
	}
	slices.Sort(call.Environ)
	r.calls = append(r.calls, call)
	return []byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"/run/netns/x"}],"ips":[{"interface":0,"address":"10.0.0.5/24"}],"dns":{}}`)
}

func (r *receiver) FindInPath(plugin string, _ []string) (string, error) { return plugin, nil }

func (r *receiver) ExecPlugin(_ context.Context, plugin string, stdin []byte, environ []string) ([]byte, error) {
	return r.note(plugin, stdin, environ), nil
}

func (r *receiver) RunsIPAM(string, bool, []string) bool { return false }

func (r *receiver) Find(string, bool, []string) error { return nil }

func (r *receiver) Call(_ context.Context, c Call) ([]byte, error) {
	out := r.note(c.Type, c.Stdin, c.Environ)
	return out, c.check(out)
}

// TestPluginsGetWhatLibcniGivesThem: Plexus calls plugins itself, and they cannot tell it from libcni.
func TestPluginsGetWhatLibcniGivesThem(t *testing.T) {
	t.Setenv("CNI_NETNS_OVERRIDE", "1")
	for name, conf := range map[string]string{
		"a list":                   `{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"one","capabilities":{"mac":true,"ips":false},"x":{"y":[1,null,"<&>"]}},{"type":"two","capabilities":{"ips":true,"bandwidth":true}}]}`,
		"a plugin":                 `{"cniVersion":"1.0.0","name":"n","type":"one","capabilities":{"mac":true},"runtimeConfig":{"mac":"of the network"}}`,
		"an older one":             `{"cniVersion":"0.4.0","name":"n","type":"one"}`,
		"an old one":               `{"cniVersion":"0.3.1","name":"n","type":"one"}`,
		"one without CHECK and GC": `{"cniVersion":"1.1.0","name":"n","disableCheck":true,"disableGC":true,"plugins":[{"type":"one"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			list, err := nad.Recorded([]byte(conf), nad.Defaults{})
			if err != nil {
				t.Fatal(err)
			}
			args := [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "web"}}
			capabilities := map[string]json.RawMessage{"mac": json.RawMessage(`"02:00:00:00:00:01"`), "ips": json.RawMessage(`["10.0.0.5/24"]`)}
			valid := []types.GCAttachment{{ContainerID: "c1", IfName: "net1"}}

			ours := &receiver{}
			e := &Executor{BinDirs: []string{"/a", "/b"}, CacheDir: t.TempDir(), Environ: append(os.Environ(), "CNI_COMMAND=CHECK", "CNI_ARGS=of=the-caller"), Plugins: ours, Kernel: &kernel{}}
			p := &Plan{
				Sandbox:     Sandbox{ContainerID: "c1", NetNS: "/run/netns/x", IfName: "net1"},
				Attachments: []Attachment{{Network: "n", IfName: "net1", Default: true, List: list, Args: args, CapabilityArgs: capabilities}},
			}
			for _, step := range []func() error{
				func() error { return e.Add(t.Context(), p) },
				func() error { return e.Check(t.Context(), p, false) },
				func() error { return e.Status(t.Context(), list) },
				func() error { return e.GC(t.Context(), []GCRequest{{List: list, Valid: valid}}) },
				func() error { return e.Del(t.Context(), p) },
			} {
				if err = step(); err != nil {
					t.Fatal(err)
				}
			}

			theirs := &receiver{}
			cni := libcni.NewCNIConfigWithCacheDir([]string{"/a", "/b"}, t.TempDir(), theirs)
			confList, err := libcni.NetworkConfFromBytes(list.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			rt := &libcni.RuntimeConf{ContainerID: "c1", NetNS: "/run/netns/x", IfName: "net1", Args: args, CapabilityArgs: map[string]any{}}
			for k, v := range capabilities {
				rt.CapabilityArgs[k] = v
			}
			if _, err := cni.AddNetworkList(t.Context(), confList, rt); err != nil {
				t.Fatal(err)
			}
			// Of an older network libcni says that it has no CHECK.
			if err := cni.CheckNetworkList(t.Context(), confList, rt); err != nil && !errors.Is(err, libcni.ErrorCheckNotSupp) {
				t.Fatal(err)
			}
			if err := cni.GetStatusNetworkList(t.Context(), confList); err != nil {
				t.Fatal(err)
			}
			if err := cni.GCNetworkList(t.Context(), confList, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
				t.Fatal(err)
			}
			if err := cni.DelNetworkList(t.Context(), confList, rt); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(theirs.calls, ours.calls); diff != "" {
				t.Errorf("calls (-libcni +Plexus):\n%s", diff)
			}
		})
	}
}
