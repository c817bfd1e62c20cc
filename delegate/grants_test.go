// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/netdev"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	const result = `{"cniVersion":"1.0.0","interfaces":[{"name":"net1","mac":"02:00:00:00:00:07","sandbox":"/run/netns/x"}],"ips":[{"address":"10.0.0.7/16","interface":0}]}`
	link := netdev.Link{Name: "net1", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/16")}}
	other := link
	other.MAC, other.Addrs = net.HardwareAddr{2, 0, 0, 0, 0, 9}, nil
	tests := map[string]struct {
		result string
		links  []netdev.Link
		asked  annotations.Element
		says   string // "" for an ADD that succeeds
	}{
		"the result has both": {result, nil, annotations.Element{MAC: "02:00:00:00:00:07", IPs: []string{"10.0.0.7/24"}}, ""},
		"the link has what the result does not tell": {
			`{"cniVersion":"1.0.0"}`, []netdev.Link{link}, annotations.Element{MAC: "02:00:00:00:00:07", IPs: []string{"10.0.0.7"}}, "",
		},
		"the link has another MAC than the result claims": {result, []netdev.Link{other}, annotations.Element{MAC: "02:00:00:00:00:07"}, "there is 02:00:00:00:00:09"},
		"an address that is only in the result":           {result, []netdev.Link{other}, annotations.Element{IPs: []string{"10.0.0.7"}}, ""},
		"neither has the MAC":                             {`{"cniVersion":"1.0.0"}`, nil, annotations.Element{MAC: "02:00:00:00:00:07"}, "there is none"},
		"one of two addresses":                            {result, []netdev.Link{link}, annotations.Element{IPs: []string{"10.0.0.7", "fd00::7"}}, `"ips" fd00::7`},
		"an interface of another sandbox": {
			strings.ReplaceAll(result, "/run/netns/x", "/run/netns/y"), nil, annotations.Element{MAC: "02:00:00:00:00:07"}, "",
		}, // by its name, as the paths lead nowhere
		"an interface by another name": {
			strings.ReplaceAll(result, "net1", "bond0"), []netdev.Link{{Name: "bond0", MAC: link.MAC}}, annotations.Element{MAC: "02:00:00:00:00:07"}, "",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, k := executor(t, &host{results: map[string]string{"lan": tc.result}})
			k.links = tc.links
			p := plan(t, Network{Name: "d/lan", List: list(t, `{"name":"lan","type":"lan"}`), Element: tc.asked})
			err := e.Add(t.Context(), p)
			if tc.says == "" && err != nil || tc.says != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "network d/lan (interface net1)")) {
				t.Errorf("Add = %v, want an error saying %q", err, tc.says)
			}
		})
	}
}

func TestADefaultRouteFollowsARenamedInterface(t *testing.T) {
	t.Parallel()
	e, k := executor(t, &host{results: map[string]string{
		"bond": `{"cniVersion":"1.0.0","interfaces":[{"name":"bond0","sandbox":"/run/netns/x"}],"ips":[{"address":"10.0.0.5/24","interface":0}]}`,
	}})
	p := plan(t, Network{Name: "d/bond", List: list(t, `{"name":"bond","type":"bond"}`), Element: annotations.Element{DefaultRoute: addrs("10.0.0.1")}})
	if err := e.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if len(k.asked) != 1 || k.asked[0].IfName != "bond0" {
		t.Errorf("asked of the kernel: %+v, want the default route through bond0", k.asked)
	}
}

func TestAllowedPlugins(t *testing.T) {
	t.Parallel()
	nested := Network{Name: "d/a", List: list(t, `{"type":"macvlan","ipam":{"type":"bash"}}`)}
	for name, tc := range map[string]struct {
		allowed []string
		trusted bool
		ok      bool
	}{
		"all": {nil, false, true}, "both": {[]string{"macvlan", "bash"}, false, true}, "not the IPAM": {[]string{"macvlan"}, false, false},
		"none": {[]string{}, false, false}, "the operator's own": {[]string{}, true, true},
	} {
		n := nested
		n.Trusted = tc.trusted
		r := request(t, n)
		r.Networks[0].Trusted = true
		r.AllowedPlugins = tc.allowed
		if _, err := NewPlan(r); (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), "allowedPlugins") {
			t.Errorf("%s: NewPlan = %v", name, err)
		}
	}
}

// witness is a set of plugins that notes all that each is given.
type witness struct {
	environ [][]string
	stdin   []map[string]json.RawMessage
}

func (*witness) RunsIPAM(string, bool, []string) bool { return false }

func (*witness) Find(string, bool, []string) error { return nil }

func (w *witness) Call(_ context.Context, c Call) ([]byte, error) {
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(c.Stdin, &conf); err != nil {
		return nil, err
	}
	w.environ, w.stdin = append(w.environ, c.Environ), append(w.stdin, conf)
	return []byte(`{"cniVersion":"1.0.0"}`), nil
}

// FuzzGrants: whatever a pod's author writes, what reaches a plugin is only what was granted. The network's author fixed a device, an
// argument of bridge and one of tuning, declared mac for one plugin, and allowed vlan; the node gave no device, or one.
func FuzzGrants(f *testing.F) {
	for _, s := range []string{
		`[{"name":"a","deviceID":"0000:00:1f.6"}]`, `[{"name":"a","cni-args":{"mac":"x","ſysctl":{},"VLAN":7,"args":{"cni":{"mac":1}}}}]`, "a@$(id)",
		`[{"name":"a","mac":"02:00:00:00:00:07;IP=1","ips":["10.0.0.1/24"]}]`, `[{"name":"a","cni-args":{"pciBusID":"x","cni":{"mac":"x"}},"portMappings":[{"hostPort":22,"containerPort":22}]}]`,
		`[{"name":"a","cni-args":{"runtimeConfig":{"mac":"x"},"type":"bash","prevResult":{}},"ipam-claim-reference":"c","default-route":["10.0.0.1"]}]`,
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	const conf = `{"name":"n","plugins":[
		{"type":"bridge","pciBusID":"0000:03:00.0","deviceID":"0000:03:00.0","capabilities":{"mac":true},"args":{"cni":{"promisc":false,"own":1}}},
		{"type":"tuning","args":{"cni":{"sysctl":{"a":"1"}}}}]}`
	l := list(f, conf)
	keys := regexp.MustCompile(`^(IgnoreUnknown|K8S_POD_(NAMESPACE|NAME|INFRA_CONTAINER_ID|UID)|FOO|MAC|IP)$`)
	ifName := regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$`)
	f.Fuzz(func(t *testing.T, annotation string, given bool) {
		elements, err := annotations.ParseNetworks(annotation, "default")
		if err != nil {
			return
		}
		for _, policy := range []config.RequestPolicy{config.VerifyRequests, config.RefuseRequests, config.IgnoreRequests} {
			r := request(t)
			r.UnsupportedRequests = policy
			device := "0000:03:00.0"
			for _, e := range elements[:min(len(elements), 3)] {
				n := Network{Name: "d/n", List: l, Element: e, AllowedCNIArgs: []string{"vlan"}}
				if given {
					n.Device, n.ResourceName, device = "0000:03:02.1", "r", "0000:03:02.1"
				}
				r.Networks = append(r.Networks, n)
			}
			p, err := NewPlan(r)
			if err != nil {
				continue
			}
			p.Attachments = p.Attachments[1:] // the default network's plugins are the runtime's
			w := &witness{}
			e := &Executor{BinDirs: []string{"/bin"}, CacheDir: t.TempDir(), Plugins: w, Kernel: &kernel{}}
			_ = e.Add(t.Context(), p) // a request that was not heard fails it
			for i, stdin := range w.stdin {
				checkGranted(t, stdin, device)
				for _, kv := range w.environ[i] {
					key, value, _ := strings.Cut(kv, "=")
					if key == "CNI_IFNAME" && !ifName.MatchString(value) {
						t.Errorf("CNI_IFNAME %q", value)
					}
					if key != "CNI_ARGS" {
						continue
					}
					for pair := range strings.SplitSeq(value, ";") {
						if k, _, ok := strings.Cut(pair, "="); !ok || !keys.MatchString(k) {
							t.Errorf("CNI_ARGS %q", value)
						}
					}
				}
			}
		}
	})
}

// checkGranted checks what one plugin of FuzzGrants was given.
func checkGranted(t *testing.T, conf map[string]json.RawMessage, device string) {
	t.Helper()
	var c struct {
		Type          string
		RuntimeConfig map[string]json.RawMessage
		DeviceID      string
		PCIBusID      string
		Args          struct {
			CNI map[string]json.RawMessage `json:"cni"`
		}
	}
	text, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err = json.Unmarshal(text, &c); err != nil {
		t.Fatalf("a plugin was given %s: %v", text, err)
	}
	for capability := range c.RuntimeConfig {
		if c.Type != "bridge" || capability != "mac" {
			t.Errorf("%s was given runtimeConfig %s", c.Type, text)
		}
	}
	if c.Type == "bridge" && (c.DeviceID != device || c.PCIBusID != device) {
		t.Errorf("the device became %q, %q: %s", c.DeviceID, c.PCIBusID, text)
	}
	for key := range conf {
		if !slices.Contains([]string{"type", "name", "cniVersion", "capabilities", "args", "prevResult", "runtimeConfig", "deviceID", "pciBusID"}, key) {
			t.Errorf("the key %q reached the plugin: %s", key, text)
		}
	}
	own := map[string]map[string]string{"bridge": {"promisc": "false", "own": ""}, "tuning": {"sysctl": `{"a":"1"}`}}[c.Type]
	for key, value := range c.Args.CNI {
		guarded := slices.ContainsFunc(guardedCNIArgs(), func(g string) bool { return strings.EqualFold(g, key) })
		if want, ok := own[key]; ok && (want == "" || want == string(value)) {
			continue
		}
		if guarded && key != capIPAMClaim {
			t.Errorf("args.cni has %q: %s", key, text)
		}
	}
}
