// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// patience is far more than anything here takes on a busy machine: what waits that long waits for ever.
const patience = 60 * time.Second

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

// object is a JSON object.
type object = map[string]any

// host is a node: a network namespace with a NIC business0, the reference plugins, a folder of manifests, and the default network
// "cluster", a bridge in both families.
type host struct {
	t          *testing.T
	netns, dir string
	plexus     string // the built plugin
	conf       object
}

func newHost(t *testing.T) *host {
	t.Helper()
	testenv.RequireRoot(t)
	h := &host{t: t, netns: netNS(t), dir: t.TempDir(), plexus: filepath.Join(testenv.Build(t, "./cmd/plexus"), "plexus")}
	testenv.Veth(t, testenv.End{NetNS: h.netns, Name: "business0"}, testenv.End{NetNS: h.netns, Name: "business1"})
	h.conf = object{
		"cniVersion": "1.1.0", "name": "plexus", "type": "plexus",
		"binDir": testenv.Plugins(t), "cniDir": h.path("state"), "legacyCNIDir": h.path("legacy"), "manifestDir": h.path("manifests"),
	}
	h.cluster("1.0.0", object{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipam": h.hostLocal("10.10.0.0/24", "fd00:10::/64")})
	return h
}

// netNS makes a network namespace whose links do without duplicate address detection: it takes a second or two for each IPv6
// address, which plugins wait for in some cases, and in others leave to whoever uses the address first.
func netNS(t *testing.T) string {
	t.Helper()
	netns := testenv.NetNS(t)
	testenv.Do(t, netns, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o600)
	})
	return netns
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// write writes a value as JSON.
func (h *host) write(name string, value any) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path(name), marshal(h.t, value), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// cluster sets the default network.
func (h *host) cluster(cniVersion string, plugins ...object) {
	h.conf["delegates"] = []any{object{"cniVersion": cniVersion, "name": "cluster", "plugins": plugins}}
}

// nad writes a NetworkAttachmentDefinition.
func (h *host) nad(name string, plugins ...object) {
	h.t.Helper()
	h.write("manifests/net-"+name+".json", object{
		"kind": "NetworkAttachmentDefinition", "metadata": object{"name": name},
		"spec": object{"config": string(marshal(h.t, object{"cniVersion": "1.0.0", "plugins": plugins}))},
	})
}

// hostLocal is an IPAM configuration with a range for each subnet.
func (h *host) hostLocal(subnets ...string) object {
	var ranges []any
	for _, s := range subnets {
		ranges = append(ranges, []any{object{"subnet": s}})
	}
	return object{"type": "host-local", "dataDir": h.path("leases"), "ranges": ranges}
}

// businessAndMgmt writes the networks of the project's scenario: business-net on the host's NIC, mgmt-net on a bridge.
func (h *host) businessAndMgmt() {
	h.t.Helper()
	h.nad("business-net", object{"type": "macvlan", "master": "business0", "ipam": h.hostLocal("10.20.0.0/24", "fd00:20::/64")})
	h.nad("mgmt-net", object{"type": "bridge", "bridge": "mgmt0", "isGateway": true, "ipam": h.hostLocal("10.30.0.0/24", "fd00:30::/64")})
}

// The pod's selection of both, as most tests have it.
const businessAndMgmt = `[{"name":"business-net","interface":"eth1"},{"name":"mgmt-net"}]`

// pod is a pod of namespace default on the host, with a sandbox.
type pod struct {
	*host
	name, sandbox string
	// runtimeConfig is what the runtime adds to the configuration; nil for nothing.
	runtimeConfig object
	// given are the links that the kernel puts into each namespace: lo, and fallback tunnels of loaded modules.
	given []string
}

// pod writes the manifest of a pod that selects networks, and makes its sandbox.
func (h *host) pod(name, networks string) *pod {
	h.t.Helper()
	h.write("manifests/pod-"+name+".json", object{
		"kind": "Pod", "metadata": object{"name": name, "annotations": object{"k8s.v1.cni.cncf.io/networks": networks}},
	})
	p := &pod{host: h, name: name, sandbox: netNS(h.t)}
	for _, l := range p.links() {
		p.given = append(p.given, l.Name)
	}
	return p
}

// process is a call of the plugin that is under way.
type process struct {
	*pod
	cmd    *exec.Cmd
	verb   string
	stdout bytes.Buffer
	stderr bytes.Buffer
	cancel context.CancelFunc
}

// start calls the plugin in the host's namespace, as a runtime does. Its container ID is derived from the pod's name.
func (p *pod) start(verb string) *process {
	p.t.Helper()
	conf := maps.Clone(p.conf)
	if p.runtimeConfig != nil {
		conf["runtimeConfig"] = p.runtimeConfig
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	c := &process{pod: p, verb: verb, cmd: exec.CommandContext(ctx, p.plexus), cancel: cancel}
	c.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + verb, "CNI_CONTAINERID=id-of-" + p.name, "CNI_IFNAME=eth0", "CNI_NETNS=" + p.sandbox,
		"CNI_PATH=/nowhere", "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.name,
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = bytes.NewReader(marshal(p.t, conf)), &c.stdout, &c.stderr
	testenv.Do(p.t, p.netns, c.cmd.Start)
	return c
}

// wait returns what a call printed, and the CNI error that it ended with.
func (c *process) wait() ([]byte, *types.Error) {
	c.t.Helper()
	defer c.cancel()
	err := c.cmd.Wait()
	if err == nil {
		return c.stdout.Bytes(), nil
	}
	told := new(types.Error)
	if jsonErr := json.Unmarshal(c.stdout.Bytes(), told); jsonErr != nil || told.Msg == "" {
		c.t.Fatalf("%s of pod %s: %v, and no CNI error: %q, stderr %q", c.verb, c.name, err, &c.stdout, &c.stderr)
	}
	return nil, told
}

func (c *process) mustSucceed() []byte {
	c.t.Helper()
	out, err := c.wait()
	if err != nil {
		c.t.Fatalf("%s of pod %s: %v", c.verb, c.name, err)
	}
	return out
}

// must makes a call that has to succeed.
func (p *pod) must(verb string) []byte {
	p.t.Helper()
	return p.start(verb).mustSucceed()
}

// add does the ADD, and checks that the result, the network status and CHECK agree with the kernel.
func (p *pod) add() *types100.Result {
	p.t.Helper()
	out := p.must("ADD")
	p.assertStatus()
	p.must("CHECK")
	result, err := types100.NewResult(out)
	if err != nil {
		p.t.Fatalf("result of pod %s: %v\n%s", p.name, err, out)
	}
	r, err := types100.GetResult(result)
	if err != nil {
		p.t.Fatal(err)
	}
	var addrs []string
	for _, ip := range r.IPs {
		addrs = append(addrs, ip.Address.IP.String())
	}
	slices.Sort(addrs)
	if diff := cmp.Diff(p.iface("eth0").IPs, addrs); diff != "" {
		p.t.Errorf("eth0 of pod %s (-kernel +result):\n%s", p.name, diff)
	}
	return r
}

// mustFail makes an ADD that has to fail, leave all as it was, and tell each of the words.
func (p *pod) mustFail(words ...string) {
	p.t.Helper()
	before := p.state(p)
	_, err := p.start("ADD").wait()
	if err == nil {
		p.t.Fatalf("ADD of pod %s succeeded", p.name)
	}
	for _, w := range append(words, "pod default/"+p.name) {
		if !strings.Contains(err.Msg, w) {
			p.t.Errorf("ADD of pod %s: the error does not tell %q: %s", p.name, w, err.Msg)
		}
	}
	if strings.Contains(err.Msg, "\n") {
		p.t.Errorf("ADD of pod %s: the error has more than one line: %q", p.name, err.Msg)
	}
	p.assertState(before, p)
	p.must("DEL") // a runtime asks for it in any case
	p.assertState(before, p)
}

// iface is what a pod's interface has.
type iface struct {
	MAC string
	MTU int
	// IPs are bare addresses, sorted.
	IPs []string
}

func (p *pod) links() []netdev.Link {
	p.t.Helper()
	links, err := netdev.NewLinux().Links(p.sandbox)
	if err != nil {
		p.t.Fatal(err)
	}
	return slices.DeleteFunc(links, func(l netdev.Link) bool { return slices.Contains(p.given, l.Name) })
}

// ifaces are the pod's interfaces in the kernel, by name.
func (p *pod) ifaces() map[string]iface {
	p.t.Helper()
	all := map[string]iface{}
	for _, l := range p.links() {
		if !l.Up {
			p.t.Errorf("%s of pod %s is down", l.Name, p.name)
		}
		i := iface{MAC: l.MAC.String(), MTU: l.MTU}
		for _, a := range l.Addrs {
			if !a.Addr().IsLinkLocalUnicast() { // the kernel's own
				i.IPs = append(i.IPs, a.Addr().String())
			}
		}
		slices.Sort(i.IPs)
		all[l.Name] = i
	}
	return all
}

func (p *pod) iface(name string) iface {
	p.t.Helper()
	i, ok := p.ifaces()[name]
	if !ok {
		p.t.Fatalf("pod %s has no %s, but %v", p.name, name, p.ifaces())
	}
	return i
}

// status is the pod's network status, by interface.
func (p *pod) status() map[string]annotations.Status {
	p.t.Helper()
	text, err := os.ReadFile(p.path("manifests/network-status/default_" + p.name + ".json"))
	if err != nil {
		p.t.Fatal(err)
	}
	list, err := annotations.ParseStatus(string(text))
	if err != nil {
		p.t.Fatal(err)
	}
	all := map[string]annotations.Status{}
	for _, s := range list {
		if _, twice := all[s.Interface]; twice {
			p.t.Errorf("%s is in the status of pod %s twice", s.Interface, p.name)
		}
		all[s.Interface] = s
	}
	return all
}

// assertStatus compares the network status with the kernel: interfaces, addresses, MACs, and the gateways of the default routes.
func (p *pod) assertStatus() {
	p.t.Helper()
	want, got := p.ifaces(), map[string]iface{}
	gateways := map[string][]string{}
	for name, s := range p.status() {
		i := iface{MAC: s.MAC, MTU: s.MTU, IPs: slices.Sorted(slices.Values(s.IPs))}
		if i.MTU == 0 { // few plugins report it
			i.MTU = want[name].MTU
		}
		got[name] = i
		if s.Default != (name == "eth0") {
			p.t.Errorf("%s of pod %s: default is %t in the status", name, p.name, s.Default)
		}
		if len(s.Gateway) > 0 {
			gateways[name] = slices.Sorted(slices.Values(s.Gateway))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("interfaces of pod %s (-kernel +status):\n%s", p.name, diff)
	}
	if diff := cmp.Diff(p.gateways(), gateways); diff != "" {
		p.t.Errorf("gateways of pod %s (-kernel +status):\n%s", p.name, diff)
	}
}

// gateways are those of the pod's default routes in the kernel, sorted, by interface.
func (p *pod) gateways() map[string][]string {
	p.t.Helper()
	routes, err := netdev.NewLinux().DefaultRoutes(p.sandbox)
	if err != nil {
		p.t.Fatal(err)
	}
	all := map[string][]string{}
	for _, r := range routes {
		all[r.IfName] = append(all[r.IfName], r.Gateway.String())
	}
	for _, list := range all {
		slices.Sort(list)
	}
	return all
}

// state lists all that attachments leave on the host and in the sandboxes of pods: links, addresses, default routes, limits, leases,
// records. Bridges are not in it: their plugin keeps them.
func (h *host) state(pods ...*pod) []string {
	h.t.Helper()
	var all []string
	for _, l := range h.links() {
		if l.Type() == "bridge" {
			continue
		}
		all = append(all, "link "+l.Attrs().Name)
		for _, q := range h.qdiscs(l) {
			if kind := q.Type(); kind == "tbf" || kind == "ingress" || kind == "clsact" {
				all = append(all, kind+" on "+l.Attrs().Name)
			}
		}
	}
	for _, p := range pods {
		for _, l := range p.links() {
			all = append(all, fmt.Sprintf("pod %s: link %s %s mtu %d", p.name, l.Name, l.MAC, l.MTU))
		}
		for name, gateways := range p.gateways() {
			all = append(all, fmt.Sprintf("pod %s: default routes via %v on %s", p.name, gateways, name))
		}
	}
	all = append(all, h.leases()...)
	for _, dir := range []string{"state/records", "state/results"} {
		files, err := filepath.Glob(filepath.Join(h.path(dir), "*"))
		if err != nil {
			h.t.Fatal(err)
		}
		for _, f := range files {
			if filepath.Base(f) != ".lock" { // the folder's own, which stays
				all = append(all, dir+"/"+filepath.Base(f))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// leases are the addresses that host-local has given, with their networks.
func (h *host) leases() []string {
	h.t.Helper()
	var all []string
	err := filepath.WalkDir(h.path("leases"), func(path string, _ fs.DirEntry, err error) error {
		if _, parseErr := netip.ParseAddr(filepath.Base(path)); parseErr == nil {
			all = append(all, strings.TrimPrefix(path, h.dir+"/"))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func (h *host) assertState(want []string, pods ...*pod) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.state(pods...)); diff != "" {
		h.t.Errorf("the host is not as it was (-before +after):\n%s", diff)
	}
}

func (h *host) links() []netlink.Link {
	h.t.Helper()
	return dump(h.t, testenv.Handle(h.t, h.netns).LinkList)
}

func (h *host) qdiscs(l netlink.Link) []netlink.Qdisc {
	h.t.Helper()
	handle := testenv.Handle(h.t, h.netns)
	return dump(h.t, func() ([]netlink.Qdisc, error) { return handle.QdiscList(l) })
}

// dump lists, again when something changed meanwhile: the kernel ends links of a namespace in the background.
func dump[E any](t *testing.T, list func() ([]E, error)) []E {
	t.Helper()
	var found []E
	eventually(t, "a listing without interruption", func() bool {
		var err error
		if found, err = list(); err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			t.Fatal(err)
		}
		return err == nil
	})
	return found
}

// peer is the host's end of the veth pair of a pod's interface.
func (p *pod) peer(ifName string) netlink.Link {
	p.t.Helper()
	link, err := testenv.Handle(p.t, p.sandbox).LinkByName(ifName)
	if err != nil {
		p.t.Fatal(err)
	}
	peer, err := testenv.Handle(p.t, p.netns).LinkByIndex(link.Attrs().ParentIndex)
	if err != nil {
		p.t.Fatal(err)
	}
	return peer
}

// assertReaches connects from one pod to another over their interfaces of a name, by TCP in each family, and checks that the other
// pod sees the address that the network gave.
func (p *pod) assertReaches(other *pod, ifName string) {
	p.t.Helper()
	families := 0
	for _, to := range other.iface(ifName).IPs {
		for _, from := range p.iface(ifName).IPs {
			if strings.Contains(from, ":") == strings.Contains(to, ":") {
				families++
				l := listen(p.t, other.sandbox, net.JoinHostPort(to, "0"))
				if seen := dial(p.t, p.sandbox, from, l.Addr().String(), l); seen != from {
					p.t.Errorf("%s: pod %s at %s is seen as %s", ifName, p.name, from, seen)
				}
			}
		}
	}
	if families != 2 {
		p.t.Errorf("%s: pods %s and %s have %d address families in common, want both", ifName, p.name, other.name, families)
	}
}

// listen opens a TCP socket in a namespace, until the test ends.
func listen(t *testing.T, netns, address string) *net.TCPListener {
	t.Helper()
	var l net.Listener
	testenv.Do(t, netns, func() error {
		var err error
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		return err
	})
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// dial connects to an address that ends at a listener, from an address in a namespace, and returns the address that the listener sees.
func dial(t *testing.T, netns, from, address string, l *net.TCPListener) string {
	t.Helper()
	testenv.Do(t, netns, func() error {
		d := net.Dialer{Timeout: patience / 4, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	seen := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	return seen
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	testenv.Eventually(t, patience, holds, func() string { return what })
}
