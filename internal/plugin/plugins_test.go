// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// selects rewrites the pod to select networks, by annotation, and the networks that there are, by name.
func (n *node) selects(annotation string, networks map[string]string) {
	n.t.Helper()
	text := fmt.Sprintf("kind: Pod\nmetadata:\n  name: web\n  annotations:\n    k8s.v1.cni.cncf.io/networks: '%s'\n", annotation)
	for name, config := range networks {
		text += fmt.Sprintf("---\nkind: NetworkAttachmentDefinition\nmetadata: {name: %s}\nspec:\n  config: '%s'\n", name, config)
	}
	n.write("manifests/all.yaml", text)
}

// configure sets keys of the Plexus configuration.
func (n *node) configure(keys map[string]any) {
	n.t.Helper()
	var conf map[string]any
	if err := json.Unmarshal(n.conf, &conf); err != nil {
		n.t.Fatal(err)
	}
	maps.Copy(conf, keys)
	var err error
	if n.conf, err = json.Marshal(conf); err != nil {
		n.t.Fatal(err)
	}
}

// hostLocal is an IPAM configuration with a range for each subnet.
func (n *node) hostLocal(subnets ...string) string {
	ranges := make([]string, 0, len(subnets))
	for _, s := range subnets {
		ranges = append(ranges, fmt.Sprintf(`[{"subnet":%q}]`, s))
	}
	return fmt.Sprintf(`{"type":"host-local","dataDir":%q,"ranges":[%s]}`, n.path("ipam"), strings.Join(ranges, ","))
}

// bridge makes a bridge on the host before a test looks at what is there: the plugin would make it, and leave it.
func (n *node) bridge(name string) {
	n.t.Helper()
	if err := testenv.Handle(n.t, n.host).LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
		n.t.Fatal(err)
	}
}

// link is what the kernel has under a name in the sandbox.
func (n *node) link(name string) netdev.Link {
	n.t.Helper()
	links, err := netdev.NewLinux().Links(n.sandbox)
	if err != nil {
		n.t.Fatal(err)
	}
	i := slices.IndexFunc(links, func(l netdev.Link) bool { return l.Name == name })
	if i < 0 {
		n.t.Fatalf("the sandbox has no %s: %v", name, links)
	}
	return links[i]
}

// status is what the pod was told, by interface.
func (n *node) status() map[string]annotations.Status {
	n.t.Helper()
	text, err := os.ReadFile(n.path("manifests/network-status/default_web.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	list, err := annotations.ParseStatus(string(text))
	if err != nil {
		n.t.Fatal(err)
	}
	byName := map[string]annotations.Status{}
	for _, s := range list {
		byName[s.Interface] = s
	}
	return byName
}

func TestRequestedAddressesAndMACAreTheKernelsAndTheStatus(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.selects(`[{"name":"lan","interface":"data0","mac":"02:00:00:00:00:07","ips":["10.79.0.7/24","fd00:79::7/64"]}]`, map[string]string{
		"lan": `{"type":"macvlan","master":"parent0","capabilities":{"mac":true,"ips":true},"ipam":{"type":"static"}}`,
	})
	n.mustCall("ADD", "")
	l, s := n.link("data0"), n.status()["data0"]
	if l.MAC.String() != "02:00:00:00:00:07" || s.MAC != "02:00:00:00:00:07" {
		t.Errorf("MAC: kernel %s, status %s", l.MAC, s.MAC)
	}
	var kernel []string
	for _, a := range l.Addrs {
		if !a.Addr().IsLinkLocalUnicast() {
			kernel = append(kernel, a.Addr().String())
		}
	}
	want := []string{"10.79.0.7", "fd00:79::7"}
	slices.Sort(kernel)
	slices.Sort(s.IPs)
	if diff := cmp.Diff(want, kernel); diff != "" {
		t.Errorf("addresses in the kernel (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, s.IPs); diff != "" {
		t.Errorf("addresses in the status (-want +got):\n%s", diff)
	}
	n.mustCall("CHECK", "")
	n.mustCall("DEL", "")
}

func TestDefaultRouteOverASecondaryNetworkInBothFamilies(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.selects(`[{"name":"wan","default-route":["10.79.0.1","fd00:79::1"]}]`, map[string]string{
		"wan": `{"type":"bridge","bridge":"br79","isGateway":true,"ipam":` + n.hostLocal("10.79.0.0/24", "fd00:79::/64") + `}`,
	})
	out := n.mustCall("ADD", "")
	routes, err := netdev.NewLinux().DefaultRoutes(n.sandbox)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range routes {
		got = append(got, r.IfName+" "+r.Gateway.String())
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"net1 10.79.0.1", "net1 fd00:79::1"}, got); diff != "" {
		t.Errorf("default routes in the kernel (-want +got):\n%s", diff)
	}
	if strings.Contains(string(out), "0.0.0.0/0") {
		t.Errorf("the result still has eth0's default route: %s", out)
	}
	if diff := cmp.Diff([]string{"10.79.0.1", "fd00:79::1"}, n.status()["net1"].Gateway); diff != "" {
		t.Errorf("gateways in the status (-want +got):\n%s", diff)
	}
	n.mustCall("CHECK", "")
	n.mustCall("DEL", "")
}

func TestAGatewayThatIsNotOnTheNetworkFailsThePodAndLeavesNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.bridge("br79")
	n.selects(`[{"name":"wan","default-route":["192.0.2.1"]}]`, map[string]string{
		"wan": `{"type":"bridge","bridge":"br79","ipam":` + n.hostLocal("10.79.0.0/24") + `}`,
	})
	before := n.snapshot()
	out, err := n.call("ADD", "")
	if err == nil || !strings.Contains(string(out), "192.0.2.1") || !strings.Contains(string(out), "default/wan") {
		t.Errorf("ADD: %v %s, want the gateway and the network named", err, out)
	}
	n.assertUntouched(before)
}

func TestBandwidthByAnnotation(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.bridge("br79")
	n.selects(`[{"name":"slow","bandwidth":{"ingressRate":8000000,"ingressBurst":800000,"egressRate":16000000,"egressBurst":1600000}}]`, map[string]string{
		"slow": `{"plugins":[{"type":"bridge","bridge":"br79","ipam":` + n.hostLocal("10.79.0.0/24") + `},{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`,
	})
	before := n.snapshot()
	rates := func() []uint64 {
		t.Helper()
		h := testenv.Handle(t, n.host)
		links, err := h.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		var bits []uint64
		for _, l := range links {
			qdiscs, err := h.QdiscList(l)
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range qdiscs {
				if tbf, ok := q.(*netlink.Tbf); ok {
					bits = append(bits, tbf.Rate*8)
				}
			}
		}
		slices.Sort(bits)
		return bits
	}
	n.mustCall("ADD", "")
	if diff := cmp.Diff([]uint64{8000000, 16000000}, rates()); diff != "" {
		t.Errorf("rates in the kernel, bit/s (-want +got):\n%s", diff)
	}
	n.mustCall("DEL", "")
	n.assertUntouched(before)
	if got := rates(); len(got) != 0 {
		t.Errorf("rates after DEL: %v", got)
	}
}

func TestPortMappingsOfThePodGoToItsDefaultNetworkAlone(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("portmap runs nft, which is not installed: `make deps` installs it")
	}
	n := newNode(t)
	const portmap = `{"type":"portmap","backend":"nftables","capabilities":{"portMappings":true}}`
	n.configure(map[string]any{
		"capabilities":  map[string]bool{"portMappings": true},
		"runtimeConfig": map[string]any{"portMappings": []any{map[string]any{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}}},
		"delegates": []any{json.RawMessage(`{"cniVersion":"1.0.0","name":"cluster","plugins":[{"type":"bridge","bridge":"br80","isGateway":true,"ipam":` +
			n.hostLocal("10.79.1.0/24") + `},` + portmap + `]}`)},
	})
	n.selects(`[{"name":"lan","portMappings":[{"hostPort":8082,"containerPort":81}]}]`, map[string]string{
		"lan": `{"plugins":[{"type":"bridge","bridge":"br79","isGateway":true,"ipam":` + n.hostLocal("10.79.2.0/24") + `},` + portmap + `]}`,
	})
	rules := func() string {
		t.Helper()
		var out []byte
		n.onHost(func() error {
			var err error
			out, err = exec.CommandContext(t.Context(), "nft", "list", "ruleset").Output()
			return err
		})
		return string(out)
	}
	n.mustCall("ADD", "")
	got := rules()
	for _, rule := range []string{"tcp dport 8081 dnat to 10.79.1.2:80", "tcp dport 8082 dnat to 10.79.2.2:81"} {
		if !strings.Contains(got, rule) {
			t.Errorf("there is no rule %q:\n%s", rule, got)
		}
	}
	for _, rule := range []string{"10.79.2.2:80", "10.79.1.2:81"} { // the port of one network on the other
		if strings.Contains(got, rule) {
			t.Errorf("there is a rule with %q:\n%s", rule, got)
		}
	}
	n.mustCall("DEL", "")
	if got := rules(); strings.Contains(got, "dnat") {
		t.Errorf("rules after DEL:\n%s", got)
	}
}

func TestTheSameNetworkTwice(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.selects(`lan, lan@second0`, map[string]string{
		"lan": `{"type":"macvlan","master":"parent0","ipam":` + n.hostLocal("10.79.0.0/24") + `}`,
	})
	before := n.snapshot()
	n.mustCall("ADD", "")
	first, second := n.link("net1"), n.link("second0")
	if len(first.Addrs) == 0 || len(second.Addrs) == 0 || first.Addrs[0] == second.Addrs[0] {
		t.Errorf("addresses %v and %v, want two distinct ones", first.Addrs, second.Addrs)
	}
	n.mustCall("CHECK", "")
	n.mustCall("DEL", "")
	n.assertUntouched(before)
}

func TestAnInterfaceThatTheSandboxHasAlreadyIsLeftAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	testenv.Veth(t, testenv.End{NetNS: n.sandbox, Name: "data0"}, testenv.End{NetNS: n.host, Name: "peer0"})
	n.selects(`lan@data0`, map[string]string{"lan": `{"type":"macvlan","master":"parent0","ipam":` + n.hostLocal("10.79.0.0/24") + `}`})
	before := n.snapshot()
	out, err := n.call("ADD", "")
	if err == nil || !strings.Contains(string(out), "network default/lan (interface data0)") || !strings.Contains(string(out), "has an interface of that name already") {
		t.Errorf("ADD: %v %s, want the network and the interface named", err, out)
	}
	n.assertUntouched(before)
	n.mustCall("DEL", "")
	n.assertUntouched(before)
}

func TestAnExhaustedRangeIsToldAndLeavesNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.selects(`tiny`, map[string]string{"tiny": `{"type":"bridge","bridge":"br79","ipam":` + n.hostLocal("10.79.0.0/30") + `}`})
	first := n.another("c2")
	first.mustCall("ADD", "")
	before := n.snapshot()
	out, err := n.call("ADD", "")
	if err == nil || !strings.Contains(string(out), "network default/tiny (interface net1)") || !strings.Contains(string(out), "no IP addresses available") {
		t.Errorf("ADD: %v %s, want the network, and IPAM's own words", err, out)
	}
	n.assertUntouched(before)
	first.mustCall("DEL", "")
}

func TestT9TwentyPodsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.snapshot()
	var pods []*node
	for i := range 20 {
		pods = append(pods, n.another(fmt.Sprintf("pod%d", i)))
	}
	together := func(verb string) {
		t.Helper()
		var all sync.WaitGroup
		for _, p := range pods {
			all.Go(func() {
				if out, err := p.call(verb, ""); err != nil {
					t.Errorf("%s of %s: %v %s", verb, p.containerID, err, out)
				}
			})
		}
		all.Wait()
	}
	together("ADD")
	owners := map[netip.Prefix]string{}
	for _, p := range pods {
		for _, ifName := range []string{"eth0", "net1", "wan0", "net3"} {
			for _, a := range p.link(ifName).Addrs {
				if other, taken := owners[a]; taken && !a.Addr().IsLinkLocalUnicast() {
					t.Errorf("%s is given to %s and to %s", a, other, p.containerID)
				}
				owners[a] = p.containerID
			}
		}
	}
	together("CHECK")
	together("DEL")
	n.assertUntouched(before)
}
