// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
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

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// nodeConf is the node's configuration for examples that bring none along.
const nodeConf = `{"cniVersion":"1.0.0","name":"plexus","plugins":[{"type":"plexus","delegates":[{"cniVersion":"1.0.0","name":"cluster-default",
	"type":"bridge","bridge":"plexus-default","isDefaultGateway":true,"ipMasq":false,
	"ipam":{"type": "host-local","ranges":[[{"subnet":"10.201.0.0/24"}],[{"subnet":"fd00:201::/64"}]]}}]}]}`

// node is a network namespace that stands for a node, with a copy of an example.
type node struct {
	netns, dir string // dir has the manifests, state and leases
	binDirs    []string
}

func newNode(t *testing.T, example string, nics ...string) *node {
	t.Helper()
	testenv.RequireRoot(t)
	n := &node{netns: testenv.NetNS(t), dir: t.TempDir(), binDirs: []string{testenv.Build(t, "./cmd/plexus", "./cmd/plexusctl"), testenv.Plugins(t)}}
	for _, nic := range nics {
		testenv.Veth(t, testenv.End{NetNS: n.netns, Name: nic}, testenv.End{NetNS: n.netns, Name: nic + "-peer"})
	}
	if err := os.CopyFS(n.manifests(), os.DirFS(filepath.Join("..", "..", "examples", example))); err != nil {
		t.Fatal(err)
	}
	if conf := filepath.Join(n.manifests(), confName); !exists(conf) {
		write(t, conf, nodeConf)
	}
	// Leases stay with the test.
	files, err := filepath.Glob(filepath.Join(n.manifests(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, strings.ReplaceAll(string(data), `"type": "host-local",`, fmt.Sprintf(`"type": "host-local", "dataDir": %q,`, n.leases())))
	}
	return n
}

func (n *node) manifests() string { return filepath.Join(n.dir, "manifests") }
func (n *node) state() string     { return filepath.Join(n.dir, "state") }
func (n *node) leases() string    { return filepath.Join(n.dir, "leases") }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// left is what a node holds: links, leases, records and namespaces.
func (n *node) left(t *testing.T) []string {
	t.Helper()
	links, err := netdev.NewLinux().Links(n.netns)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range links {
		found = append(found, "link "+l.Name)
	}
	for _, pattern := range []string{"leases/*/*", "state/records/*.json", "state/results/*", "state/plexusctl/*.json", "state/plexusctl/cache/results/*", "manifests/network-status/*", "netns/*"} {
		files, err := filepath.Glob(filepath.Join(n.dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			// host-local keeps a lock and the last address that it gave beside the leases, which are named by their address.
			if _, err := netip.ParseAddr(filepath.Base(file)); err == nil || !strings.HasPrefix(pattern, "leases") {
				found = append(found, file)
			}
		}
	}
	return found
}

// TestExamplesAttach runs the examples with the reference plugins, all but the one that needs the kernel module 8021q.
func TestExamplesAttach(t *testing.T) {
	t.Parallel()
	type iface struct {
		Network, Name, MAC string
		IPs, Gateway       []string
	}
	eth0 := func(last string) iface {
		return iface{
			Network: "cluster-default", Name: "eth0",
			IPs: []string{"10.201.0." + last, "fd00:201::" + last}, Gateway: []string{"10.201.0.1", "fd00:201::1"},
		}
	}
	noRoute := eth0("2")
	noRoute.Gateway = nil
	business := func(last string) []iface {
		return []iface{
			eth0(last),
			{Network: "default/business-net", Name: "eth1", IPs: []string{"10.202.0." + last, "fd00:202::" + last}},
			{Network: "default/mgmt-net", Name: "net2", IPs: []string{"10.203.0." + last, "fd00:203::" + last}},
		}
	}
	isolated := func(last, private, network string) []iface {
		return []iface{
			{Network: "cluster-default", Name: "eth0", IPs: []string{"10.201.0." + last}, Gateway: []string{"10.201.0.1"}},
			{Network: network, Name: "net1", IPs: []string{private}},
			{Network: "shared/backbone", Name: "net2", IPs: []string{"10.207.0." + last}},
		}
	}
	for example, tc := range map[string]struct {
		nics    []string
		bridges []string // which the plugin keeps
		want    map[string][]iface
		// defaultRoutes are the interfaces with the default routes, IPv4 and IPv6.
		defaultRoutes []string
	}{
		"business-and-mgmt": {
			nics: []string{"business0"}, bridges: []string{"plexus-default", "plexus-mgmt"},
			want:          map[string][]iface{"default/client": business("2"), "default/server": business("3")},
			defaultRoutes: []string{"eth0", "eth0"},
		},
		"default-route": {
			nics: []string{"uplink0"}, bridges: []string{"plexus-default"},
			want: map[string][]iface{"default/gateway-user": {
				noRoute,
				{
					Network: "default/uplink", Name: "net1",
					IPs: []string{"10.204.0.100", "fd00:204::100"}, Gateway: []string{"10.204.0.1", "fd00:204::1"},
				},
			}},
			defaultRoutes: []string{"net1", "net1"},
		},
		"isolation": {
			bridges: []string{"plexus-default", "plexus-orders", "plexus-billing", "plexus-backbone"},
			want: map[string][]iface{
				"orders/worker":  isolated("2", "10.205.0.2", "orders/private"),
				"billing/worker": isolated("3", "10.206.0.2", "billing/private"),
			},
			defaultRoutes: []string{"eth0"},
		},
		"static-ips": {
			nics: []string{"office0"}, bridges: []string{"plexus-default"},
			want: map[string][]iface{"default/printer": {
				eth0("2"),
				{Network: "default/office", Name: "net1", MAC: "02:00:00:00:00:42", IPs: []string{"10.208.0.42", "fd00:208::42"}},
			}},
			defaultRoutes: []string{"eth0", "eth0"},
		},
		"dual-stack": {
			bridges: []string{"plexus-default", "plexus-sites"},
			want: map[string][]iface{"default/web": {
				eth0("2"),
				{Network: "default/sites", Name: "net1", IPs: []string{"10.210.0.2", "fd00:210::2"}},
			}},
			defaultRoutes: []string{"eth0", "eth0"},
		},
	} {
		t.Run(example, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, example, tc.nics...)
			kernel := netdev.NewLinux()
			r := newRuntime(n.state(), kernel, &hostPlugins{Exec: &delegate.Exec{Timeout: time.Minute}})
			r.netnsDir = filepath.Join(n.dir, "netns")
			before := n.left(t)

			objects, err := manifest.Load(n.manifests())
			if err != nil {
				t.Fatal(err)
			}
			conf, err := loadConf("", n.manifests(), n.state())
			if err != nil {
				t.Fatal(err)
			}
			var requests []request
			for _, p := range objects.Pods {
				requests = append(requests, request{pod: p.Ref, dir: n.manifests(), conf: conf, binDirs: n.binDirs})
			}
			var status []podStatus
			testenv.Do(t, n.netns, func() error {
				var err error
				status, err = r.attach(t.Context(), requests)
				return err
			})
			got := map[string][]iface{}
			for _, st := range status {
				name := st.Namespace + "/" + st.Name
				for _, s := range st.Networks {
					f := iface{Network: s.Name, Name: s.Interface, IPs: s.IPs, Gateway: s.Gateway}
					if example == "static-ips" && s.Interface == "net1" {
						f.MAC = s.MAC
					}
					if s.MAC == "" || s.MTU == 0 {
						t.Errorf("%s of pod %s has MAC %q and MTU %d", s.Interface, name, s.MAC, s.MTU)
					}
					got[name] = append(got[name], f)
				}
				routes, err := kernel.DefaultRoutes(st.NetNS)
				if err != nil {
					t.Error(err)
				}
				var ways []string
				for _, way := range routes {
					ways = append(ways, way.IfName)
				}
				if diff := cmp.Diff(tc.defaultRoutes, ways); diff != "" {
					t.Errorf("interfaces with the default routes of pod %s (-want +got):\n%s", name, diff)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("networks (-want +got):\n%s", diff)
			}

			testenv.Do(t, n.netns, func() error {
				return r.detach(t.Context(), n.manifests(), nil, nil, func(string, bool) {})
			})
			h := testenv.Handle(t, n.netns)
			for _, name := range tc.bridges {
				link, err := h.LinkByName(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := h.LinkDel(link); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, func() string { return cmp.Diff(before, n.left(t)) })
		})
	}
}

// eventually waits until check has nothing to say: the links of a namespace that is deleted go in the background.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		said := check()
		if said == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("after 10 s still: %s", said)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// command is the built program on the node.
func (n *node) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if !slices.Contains(args, "-f") {
		args = append(args, "-f", n.manifests())
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(n.binDirs[0], "plexusctl"),
		append(args, "--state-dir", n.state(), "--cni-bin", n.binDirs[0], "--cni-bin", n.binDirs[1])...)
	cmd.Stdout, cmd.Stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return cmd
}

// run runs a command to its end, and returns its stdout, stderr and exit code.
func (n *node) run(t *testing.T, args ...string) (string, string, int) {
	t.Helper()
	code := 0
	cmd := n.command(t, args...)
	testenv.Do(t, n.netns, func() error {
		if err := cmd.Run(); err != nil {
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok {
				return err
			}
			code = exit.ExitCode()
		}
		return nil
	})
	return fmt.Sprint(cmd.Stdout), fmt.Sprint(cmd.Stderr), code
}

func TestProgramAttachesAGivenNetNS(t *testing.T) {
	t.Parallel()
	n := newNode(t, "dual-stack")
	sandbox := testenv.NetNS(t)

	stdout, stderr, code := n.run(t, "attach", "web", "--netns", sandbox, "-o", "json")
	var status []podStatus
	if err := json.Unmarshal([]byte(stdout), &status); err != nil || code != 0 || stderr != "" {
		t.Fatalf("attach: code %d, %v, stdout %s, stderr %s", code, err, stdout, stderr)
	}
	if len(status) != 1 || status[0].NetNS != sandbox || len(status[0].Networks) != 2 {
		t.Errorf("status = %+v; want pod web with two networks in %s", status, sandbox)
	}
	links, err := netdev.NewLinux().Links(sandbox)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth0", "net1"} {
		if !slices.ContainsFunc(links, func(l netdev.Link) bool { return l.Name == name && l.Up && len(l.Addrs) > 1 }) {
			t.Errorf("no %s that is up and has addresses in %+v", name, links)
		}
	}

	stdout, stderr, code = n.run(t, "attach", "web", "--netns", sandbox)
	if want := "plexusctl: pod default/web: attached already: run `plexusctl detach -f " + n.manifests() + " --state-dir " + n.state() + " default/web` first\n"; code != 1 || stderr != want || stdout != "" {
		t.Errorf("attach again: code %d, stdout %q, stderr %q; want code 1 and stderr %q", code, stdout, stderr, want)
	}
	for _, want := range [][2]string{
		{"pod default/web detached\n", "left on the node: bridge plexus-default, plexus-sites; `ip link delete` removes one\n"},
		{"pod web was not attached, by the records in " + n.state() + "\n", ""},
	} {
		if stdout, stderr, code = n.run(t, "detach", "web"); code != 0 || stdout != want[0] || stderr != want[1] {
			t.Errorf("detach: code %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
		}
	}
	if dir := filepath.Join(n.manifests(), "network-status"); exists(dir) {
		t.Errorf("%s is left among the manifests", dir)
	}
	if is, err := netdev.NewLinux().IsNetNS(sandbox); err != nil || !is {
		t.Errorf("the given namespace is gone: %v, %v", is, err)
	}
}

func TestProgramShowsAPluginsErrorOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, "static-ips") // without its NIC
	stdout, stderr, code := n.run(t, "attach", "--netns", testenv.NetNS(t))
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "plexusctl: pod default/printer: network default/office (interface net1): plugin macvlan: ") {
		t.Errorf("attach: code %d, stdout %q, stderr %q; want one line that names pod, network and plugin", code, stdout, stderr)
	}
	if keys, err := newRuntime(n.state(), nil, nil).sandboxes.Keys(); err != nil || len(keys) != 0 {
		t.Errorf("records after the failure: %v, %v", keys, err)
	}
}

func TestProgramRollsBackOnInterrupt(t *testing.T) {
	t.Parallel()
	n := newNode(t, "dual-stack")
	// A name that no other run has: the namespace is among the machine's own.
	pods := filepath.Join(n.manifests(), "pod.yaml")
	data, err := os.ReadFile(pods)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("interrupted-%d-%d", os.Getpid(), time.Now().UnixNano())
	write(t, pods, strings.ReplaceAll(string(data), "name: web", "name: "+name))
	before := n.left(t)

	cmd := n.command(t, "attach")
	testenv.Do(t, n.netns, cmd.Start)
	// The ADD of an IPv6 address takes more than a second (duplicate address detection), and the record precedes it.
	eventually(t, func() string {
		if records, _ := filepath.Glob(filepath.Join(n.state(), "records", "*.json")); len(records) == 0 {
			return "no record of Plexus"
		}
		return ""
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	exit, ok := errors.AsType[*exec.ExitError](cmd.Wait())
	if !ok || exit.ExitCode() != 1 || fmt.Sprint(cmd.Stderr) != "plexusctl: pod default/"+name+": interrupt signal received: what was attached is detached again\n" {
		t.Errorf("attach: %v, stderr %q; want exit code 1 and the reason", exit, cmd.Stderr)
	}
	if exists(filepath.Join(netnsDir, "default-"+name)) {
		t.Error("the namespace is still there")
	}
	h := testenv.Handle(t, n.netns)
	for _, bridge := range []string{"plexus-default", "plexus-sites"} {
		link, err := h.LinkByName(bridge)
		if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
			continue
		}
		if err == nil {
			err = h.LinkDel(link)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() string { return cmp.Diff(before, n.left(t)) })
}
