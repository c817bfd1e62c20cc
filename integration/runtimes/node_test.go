// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// node is a machine as an installer leaves it: a folder of plugins, a folder of configurations with Plexus in front of the cluster's
// own network, which is a bridge, and the manifests of pods and networks. It has a NIC, nic0.
type node struct {
	t          *testing.T
	dir, netns string
	boots      int
	sandboxes  []*sandbox
}

func newNode(t *testing.T) *node {
	t.Helper()
	testenv.RequireRoot(t)
	n := &node{t: t, dir: t.TempDir(), netns: testenv.NetNS(t)}
	testenv.Veth(t, testenv.End{NetNS: n.netns, Name: "nic0"}, testenv.End{NetNS: n.netns, Name: "nic1"})
	n.mkdir("bin", "manifests", "run/netns")
	for _, dir := range []string{testenv.Plugins(t), testenv.Build(t, "./cmd/plexus", "./conformance/recorder")} {
		programs, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range programs {
			if err := os.Symlink(p, n.path("bin/"+filepath.Base(p))); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.reboot()
	n.primary("10-cluster", "cluster", bridge("cni0", n.hostLocal("10.10.0.0/16")))
	n.plexus("00-plexus", "plexus", n.path("net.d/10-cluster.conflist"), nil)
	t.Cleanup(func() {
		for _, s := range n.sandboxes {
			s.end()
		}
	})
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) mkdir(names ...string) {
	n.t.Helper()
	for _, name := range names {
		if err := os.MkdirAll(n.path(name), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) write(name string, value any) {
	n.t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mkdir(filepath.Dir(name))
	if err := os.WriteFile(n.path(name), text, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) remove(name string) {
	n.t.Helper()
	if err := os.Remove(n.path(name)); err != nil {
		n.t.Fatal(err)
	}
}

// primary writes a configuration of the cluster's own network, or another one that is no Plexus.
func (n *node) primary(file, name string, plugins ...object) {
	n.t.Helper()
	n.write("net.d/"+file+".conflist", object{"cniVersion": "1.0.0", "name": name, "plugins": plugins})
}

// plexus writes a configuration of Plexus with a default network.
func (n *node) plexus(file, name, clusterNetwork string, more object) {
	n.t.Helper()
	conf := object{
		"type": "plexus", "clusterNetwork": clusterNetwork, "binDir": n.path("bin"), "confDir": n.path("net.d"),
		"cniDir": n.path("state"), "legacyCNIDir": n.path("legacy"), "manifestDir": n.path("manifests"),
	}
	maps.Copy(conf, more)
	n.write("net.d/"+file+".conflist", object{"cniVersion": "1.1.0", "name": name, "plugins": []any{conf}})
}

// second adds another configuration of Plexus, "plexus-b", whose default network is a bridge of its own.
func (n *node) second() {
	n.t.Helper()
	n.primary("20-other", "other", bridge("cni1", n.hostLocal("10.11.0.0/16")))
	n.plexus("01-plexus", "plexus-b", n.path("net.d/20-other.conflist"), nil)
}

// nad writes a NetworkAttachmentDefinition of the namespace default.
func (n *node) nad(name string, plugins ...object) {
	n.t.Helper()
	config, err := json.Marshal(object{"cniVersion": "1.0.0", "name": name, "plugins": plugins})
	if err != nil {
		n.t.Fatal(err)
	}
	n.write("manifests/net-"+name+".json", object{
		"kind": "NetworkAttachmentDefinition", "metadata": object{"namespace": "default", "name": name}, "spec": object{"config": string(config)},
	})
}

func bridge(name string, ipam object) object {
	return object{"type": "bridge", "bridge": name, "isGateway": true, "ipam": ipam}
}

func (n *node) hostLocal(subnet string) object {
	return object{"type": "host-local", "dataDir": n.path("leases"), "ranges": []any{[]any{object{"subnet": subnet}}}}
}

// recorder is a plugin that gives an address and does nothing, with more keys (see conformance/recorder).
func (n *node) recorder(more object) object {
	conf := object{"type": "recorder", "record": n.path("calls"), "result": object{"ips": []any{object{"address": "10.77.0.2/24"}}}}
	maps.Copy(conf, more)
	return conf
}

// calls are the verbs and networks that recorders were called with since the last time.
func (n *node) calls() []string {
	n.t.Helper()
	text, err := os.ReadFile(n.path("calls"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Fatal(err)
	}
	_ = os.Remove(n.path("calls"))
	var all []string
	for line := range strings.Lines(string(text)) {
		var c struct {
			Command, IfName string
			Config          struct{ Name string }
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			n.t.Fatal(err)
		}
		all = append(all, strings.TrimSpace(c.Command+" "+c.Config.Name+" "+c.IfName))
	}
	return all
}

// reboot starts another boot: all namespaces are gone.
func (n *node) reboot() {
	n.t.Helper()
	for _, s := range n.sandboxes {
		s.end()
	}
	n.boots++
	if err := os.WriteFile(n.path("boot-id"), fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", n.boots), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// sandbox is a network namespace, kept by a process as a pause container does.
type sandbox struct {
	*node
	id, pod string
	// netns is the path that the runtime hands on, "" once the namespace is closed.
	netns string
	pause *exec.Cmd
	hold  io.Closer
}

// sandbox makes the namespace of a pod, at a path under the runtime's folder.
func (n *node) sandbox(pod, networks string) *sandbox {
	n.t.Helper()
	n.write("manifests/pod-"+pod+".json", object{
		"kind": "Pod", "metadata": object{
			"namespace": "default", "name": pod, "uid": "uid-of-" + pod, "annotations": object{"k8s.v1.cni.cncf.io/networks": networks},
		},
	})
	s := n.container(strings.ToLower(rand.Text()), pod)
	path := n.path("run/netns/cni-" + s.id)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := unix.Mount(s.netns, path, "", unix.MS_BIND, ""); err != nil {
		n.t.Fatal(err)
	}
	s.netns = path
	return s
}

// container makes a container with a namespace, whose path is that of its process.
func (n *node) container(id, name string) *sandbox {
	n.t.Helper()
	s := &sandbox{node: n, id: id, pod: name, pause: exec.Command("cat")} //nolint:noctx // It ends with its stdin.
	s.pause.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	var err error
	if s.hold, err = s.pause.StdinPipe(); err != nil {
		n.t.Fatal(err)
	}
	if err := s.pause.Start(); err != nil {
		n.t.Fatal(err)
	}
	s.netns = fmt.Sprintf("/proc/%d/ns/net", s.pause.Process.Pid)
	n.sandboxes = append(n.sandboxes, s)
	return s
}

// end closes the namespace, as a runtime does that has stopped a sandbox, or a reboot.
func (s *sandbox) end() {
	if s.pause == nil {
		return
	}
	_ = s.hold.Close()
	_ = s.pause.Wait()
	if strings.HasPrefix(s.netns, s.dir) {
		if err := errors.Join(unix.Unmount(s.netns, unix.MNT_DETACH), os.Remove(s.netns)); err != nil {
			s.t.Errorf("close the namespace of %s: %v", s.pod, err)
		}
	}
	s.pause, s.netns = nil, ""
}

// links are the sandbox's interfaces but for lo and the kernel's fallback tunnels, by name with their addresses.
func (s *sandbox) links() map[string][]string {
	s.t.Helper()
	h := s.handle()
	defer h.Close()
	all := map[string][]string{}
	for _, l := range dump(s.t, h.LinkList) {
		if l.Attrs().Name == "lo" || isTunnel(l) {
			continue
		}
		addrs := []string{}
		for _, a := range dump(s.t, func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_V4) }) {
			addrs = append(addrs, a.IP.String())
		}
		all[l.Attrs().Name] = addrs
	}
	return all
}

// handle opens the kernel's routing socket in the sandbox. Who has it open keeps the namespace from being closed.
func (s *sandbox) handle() *netlink.Handle {
	s.t.Helper()
	ns, err := netns.GetFromPath(s.netns)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

// isTunnel reports whether a link is one that loaded modules put into each new namespace.
func isTunnel(l netlink.Link) bool {
	return slices.Contains([]string{"ipip", "sit", "gre", "gretap", "erspan", "ip6tnl", "ip6gre", "vti", "vti6"}, l.Type())
}

// expectLinks checks the names of the sandbox's interfaces, each of which has one address.
func (s *sandbox) expectLinks(want ...string) {
	s.t.Helper()
	var got []string
	for name, addrs := range s.links() {
		got = append(got, name)
		if len(addrs) != 1 {
			s.t.Errorf("%s of %s has the addresses %q, want one", name, s.pod, addrs)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("interfaces of %s (-want +got):\n%s", s.pod, diff)
	}
}

// left are the traces of attachments: interfaces of the node and of open sandboxes, addresses that are leased, records, and entries of
// the libcni caches of Plexus and of the runtimes. Bridges stay: their plugin keeps them.
func (n *node) left() []string {
	n.t.Helper()
	var all []string
	for _, l := range dump(n.t, testenv.Handle(n.t, n.netns).LinkList) {
		if name := l.Attrs().Name; name != "lo" && !strings.HasPrefix(name, "nic") && l.Type() != "bridge" && !isTunnel(l) {
			all = append(all, "link "+name)
		}
	}
	for _, s := range n.sandboxes {
		if s.pause != nil {
			for name := range s.links() {
				all = append(all, "pod "+s.pod+": link "+name)
			}
		}
	}
	for _, dir := range []string{"leases", "state"} {
		err := filepath.WalkDir(n.path(dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() || slices.Contains([]string{"lock", ".lock", "slots", "boot-id", "source-seen"}, d.Name()) || strings.HasPrefix(d.Name(), "last_reserved_ip") {
				return err
			}
			trace := strings.TrimPrefix(path, n.dir+"/")
			if dir == "leases" {
				owner, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				trace += fmt.Sprintf(" of %q", owner)
			}
			all = append(all, trace)
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
	results, err := filepath.Glob(n.path("cache-*/results/*"))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, path := range results {
		all = append(all, strings.TrimPrefix(path, n.dir+"/"))
	}
	slices.Sort(all)
	return all
}

// left are the traces of the sandbox alone, but for links of the node, which do not tell whose they are.
func (s *sandbox) left() []string {
	s.t.Helper()
	return slices.DeleteFunc(s.node.left(), func(trace string) bool {
		return !strings.Contains(trace, s.id) && !strings.HasPrefix(trace, "pod "+s.pod+": ")
	})
}

// expectNothingLeft checks that there is no trace of an attachment. The kernel removes links of a closed namespace in the background.
func (n *node) expectNothingLeft() {
	n.t.Helper()
	var all []string
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if all = n.left(); len(all) == 0 {
			return
		}
		if !slices.ContainsFunc(all, func(trace string) bool { return strings.HasPrefix(trace, "link ") }) {
			break // files do not go by themselves
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	n.t.Errorf("left:\n\t%s", strings.Join(all, "\n\t"))
}

// dump lists, again when something changed meanwhile.
func dump[E any](t *testing.T, list func() ([]E, error)) []E {
	t.Helper()
	for {
		found, err := list()
		if err == nil {
			return found
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			t.Fatal(err)
		}
	}
}
