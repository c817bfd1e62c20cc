// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/sriov"
)

const (
	pf      = "eth4"
	pfPCI   = "0000:03:00.0"
	vf0     = "0000:03:02.0"
	vf3     = "0000:03:02.3" // its number is 3: there is no VF 1 and 2
	sandbox = "/run/netns/pod-a"
	other   = "/run/netns/pod-b"
)

// node is a machine with one PF and two VFs, in memory: the kernel is a [netdev.Fake], and sysfs shows what is in that.
type node struct {
	t       *testing.T
	fake    *netdev.Fake
	drivers map[string]string // by PCI address; a VF that is not in it does not exist
	noLink  bool              // the PF is InfiniBand
	rdma    []string          // the InfiniBand devices of each VF
	plugin  *sriov.Plugin
	ipam    *ipam
	dir     string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, fake: &netdev.Fake{Boot: "boot-1"}, drivers: map[string]string{vf0: "iavf", vf3: "iavf"}, ipam: &ipam{leases: map[string]string{}}, dir: t.TempDir()}
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }
	n.fake.SetNetNS(netdev.Host, []netdev.Link{
		{Name: "lo", Index: 1, MTU: 65536, Up: true},
		{Name: pf, Index: 4, MTU: 9000, MAC: mac(4), Up: true, Carrier: true, Parent: pfPCI},
		{Name: "eth4v0", Index: 10, MTU: 1500, MAC: mac(10), Up: true, Carrier: true, Parent: vf0, AltNames: []string{"enp3s2", "net1"}},
		{Name: "eth4v3", Index: 13, MTU: 1500, MAC: mac(13), Parent: vf3},
	}, nil)
	vf := func(id int, device string) netdev.FakeVF {
		return netdev.FakeVF{Device: device, VF: netdev.VF{
			ID: id, MAC: "00:00:00:00:00:00", SpoofCheck: true, LinkState: netdev.LinkStateAuto, VLAN: netdev.VLAN{Proto: netdev.VLANProto8021Q},
		}}
	}
	n.fake.SetPF(pf, []netdev.FakeVF{vf(0, vf0), vf(3, vf3)})
	for i, path := range []string{sandbox, other} {
		n.fake.SetNetNS(path, []netdev.Link{{Name: "lo", Index: 1, MTU: 65536, Up: true}, {Name: "eth0", Index: 2, MTU: 1500, MAC: mac(byte(20 + i)), Up: true}}, nil)
	}
	n.plugin = n.newPlugin()
	return n
}

// newPlugin is the plugin as a process that starts anew has it.
func (n *node) newPlugin() *sriov.Plugin {
	return &sriov.Plugin{
		Kernel: n.fake, Sysfs: sysfs.From(live{n}), Dir: filepath.Join(n.dir, "records"), LegacyDir: filepath.Join(n.dir, "legacy"),
		DeviceInfoDir: filepath.Join(n.dir, "info"), Run: n.ipam.run, Log: slog.New(slog.DiscardHandler), ReturnTimeout: time.Millisecond,
	}
}

// config is a network of type sriov, with more keys.
func config(device string, keys map[string]any) string {
	conf := map[string]any{"cniVersion": "1.1.0", "name": "fast", "type": "sriov", "deviceID": device}
	maps.Copy(conf, keys)
	data, err := json.Marshal(conf)
	if err != nil {
		panic(err) // a test's own literal
	}
	return string(data)
}

// everything asks for all that a VF can be told.
func everything() map[string]any {
	return map[string]any{
		"vlan": 100, "vlanQoS": 3, "mac": "02:00:00:00:00:AA", "min_tx_rate": 10, "max_tx_rate": 1000, "spoofchk": "off", "trust": "on",
		"link_state": "enable", "mtu": 4000, "promisc": true, "allMulticast": true, "ipam": map[string]any{"type": "test-ipam"},
	}
}

type args struct {
	containerID, netns, ifName, extra string
}

func podA() args { return args{containerID: "aaaa", netns: sandbox, ifName: "net1"} }

func podB() args { return args{containerID: "bbbb", netns: other, ifName: "net1"} }

func (n *node) call(ctx context.Context, command string, a args, conf string) (string, error) {
	out, err := n.plugin.Builtin(ctx, []byte(conf), []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + a.containerID, "CNI_NETNS=" + a.netns, "CNI_IFNAME=" + a.ifName,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-" + a.containerID + a.extra, "CNI_PATH=/opt/cni/bin",
	})
	return string(out), err
}

func (n *node) must(command string, a args, conf string) string {
	n.t.Helper()
	out, err := n.call(n.t.Context(), command, a, conf)
	if err != nil {
		n.t.Fatalf("%s: %v", command, err)
	}
	return out
}

// state is all that a VF's user could leave behind.
func (n *node) state() string {
	n.t.Helper()
	var files []string
	err := filepath.WalkDir(n.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, n.dir))
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return fmt.Sprintf("%s# files %v\n# leases %v\n", n.fake, files, n.ipam.leases)
}

// live is the sysfs of a node as it is at this moment.
type live struct{ n *node }

func (l live) Open(name string) (fs.File, error)          { return l.tree().Open(name) }
func (l live) ReadLink(name string) (string, error)       { return l.tree().ReadLink(name) }
func (l live) Lstat(name string) (fs.FileInfo, error)     { return l.tree().Lstat(name) }
func (l live) ReadDir(name string) ([]fs.DirEntry, error) { return l.tree().ReadDir(name) }
func (l live) ReadFile(name string) ([]byte, error)       { return l.tree().ReadFile(name) }
func (l live) Stat(name string) (fs.FileInfo, error)      { return l.tree().Stat(name) }

func (l live) tree() fstest.MapFS {
	t := fstest.MapFS{}
	file := func(path, content string) { t[path] = &fstest.MapFile{Data: []byte(content + "\n"), Mode: 0o444} }
	link := func(path, to string) { t[path] = &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777} }
	function := func(address, driver string) string {
		dir := "devices/pci0000:00/" + address
		link("bus/pci/devices/"+address, "../../../"+dir)
		file(dir+"/vendor", "0x8086")
		file(dir+"/device", "0x1889")
		file(dir+"/class", "0x020000")
		file(dir+"/numa_node", "-1")
		if driver != "" {
			t["bus/pci/drivers/"+driver] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			link(dir+"/driver", "../../../bus/pci/drivers/"+driver)
		}
		if where, netdevLink, ok := l.n.fake.Where(address); ok && where == netdev.Host {
			kind := "1"
			if l.n.noLink {
				kind = "32"
			}
			file(dir+"/net/"+netdevLink.Name+"/type", kind)
			link(dir+"/net/"+netdevLink.Name+"/device", "../../../"+address)
			link("class/net/"+netdevLink.Name, "../../"+dir+"/net/"+netdevLink.Name)
		}
		return dir
	}
	pfDir := function(pfPCI, "ice")
	file(pfDir+"/sriov_totalvfs", "8")
	file(pfDir+"/sriov_numvfs", fmt.Sprint(len(l.n.drivers)))
	for address, driver := range l.n.drivers {
		dir := function(address, driver)
		link(dir+"/physfn", "../"+pfPCI)
		for _, name := range l.n.rdma {
			file(dir+"/infiniband/"+name+"/node_type", "1: CA")
		}
		link(pfDir+"/virtfn"+address[len(address)-1:], "../"+address)
	}
	return t
}

// ipam gives one address to each container and interface.
type ipam struct {
	leases map[string]string
	calls  []string
	fail   func(command string) error
	result string // of an ADD; "" for one that is always the same
}

func (i *ipam) run(_ context.Context, plugin string, _ []byte, environ []string) ([]byte, error) {
	env := map[string]string{}
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		env[key] = value
	}
	command := env["CNI_COMMAND"]
	i.calls = append(i.calls, plugin+" "+command)
	if i.fail != nil {
		if err := i.fail(command); err != nil {
			return nil, err
		}
	}
	key := env["CNI_CONTAINERID"] + "/" + env["CNI_IFNAME"]
	switch command {
	case "ADD":
		i.leases[key] = "192.0.2.5/24"
		if i.result != "" {
			return []byte(i.result), nil
		}
		return []byte(`{"cniVersion":"1.1.0","ips":[{"address":"192.0.2.5/24","gateway":"192.0.2.1"}],"routes":[{"dst":"198.51.100.0/24"}]}`), nil
	case "DEL":
		delete(i.leases, key)
	}
	return nil, nil
}

var errFault = errors.New("injected fault")

// nth counts calls, and fails those that are chosen.
type nth struct {
	n      int
	chosen func(n int) bool
	seen   []string
}

func (f *nth) fault(op string) error {
	f.n++
	f.seen = append(f.seen, op)
	if f.chosen(f.n) {
		return fmt.Errorf("%w at call %d, %s", errFault, f.n, op)
	}
	return nil
}

func isWrite(op string) bool {
	return strings.HasPrefix(op, "Set") || slices.Contains([]string{"MoveLink", "Configure"}, op)
}

// recordWrites returns what tells the writes since it was asked last.
func (n *node) recordWrites() func() []string {
	var writes []string
	n.fake.Fault = func(op string) error {
		if isWrite(op) {
			writes = append(writes, op)
		}
		return nil
	}
	return func() []string {
		all := writes
		writes = nil
		return all
	}
}

func records(t *testing.T, n *node) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.dir, "records"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") {
			names = append(names, e.Name())
		}
	}
	return names
}
