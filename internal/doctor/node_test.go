// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

// testNode is a network namespace that stands for a node, with folders that stand for the node's.
type testNode struct {
	*Doctor

	netns, dir string
}

// nadYAML is a network of a test.
func nadYAML(name, conf string) string {
	return fmt.Sprintf("---\napiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: %s, namespace: default}\nspec:\n  config: '%s'\n", name, conf)
}

func (n *testNode) bridge(name, more, ipam string) string {
	return nadYAML(name, fmt.Sprintf(`{"cniVersion":"1.0.0","type":"bridge","bridge":"br-%s"%s,"ipam":{"type":"host-local","dataDir":"%s",%s}}`, name, more, n.path("leases"), ipam))
}

func (n *testNode) path(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}

func (n *testNode) write(t *testing.T, name, text string) {
	t.Helper()
	file := n.path(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newTestNode makes a node with the default network, and keys of the configuration beside it.
func newTestNode(t *testing.T, keys string) *testNode {
	t.Helper()
	testenv.RequireRoot(t)
	n := &testNode{netns: testenv.NetNS(t), dir: t.TempDir()}
	for _, dir := range []string{testenv.Build(t, "./cmd/plexus"), testenv.Plugins(t)} {
		n.linkAll(t, dir)
	}
	n.write(t, "net.d/00-plexus.conflist", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"plexus","plugins":[{"type":"plexus","binDir":%q,"cniDir":%q,"legacyCNIDir":%q,"confDir":%q,"logFile":%q,
		%s"delegates":[{"cniVersion":"1.0.0","name":"cluster","type":"bridge","bridge":"br-cluster","isDefaultGateway":true,"ipMasq":false,
		"ipam": {"type": "host-local","dataDir":%q,"subnet":"10.201.0.0/24"}}]}]}`,
		n.path("bin"), n.path("state"), n.path("legacy"), n.path("conf"), n.path("plexus.log"), cmp.Or(keys, fmt.Sprintf(`"manifestDir":%q,`, n.path("manifests"))), n.path("leases")))
	n.write(t, "manifests/.keep", "")
	n.Doctor = &Doctor{
		Conf: n.path("net.d", "00-plexus.conflist"), Kernel: netdev.NewLinux(), Sysfs: sysfs.From(fstest.MapFS{}), Now: time.Now,
		JSON: func(data []byte) ([]byte, error) { return data, nil },
		Paths: Paths{
			NetNS: n.path("netns"), Results: []string{n.path("results")}, Sandboxes: []string{n.path("sandboxes")}, Leases: n.path("leases"), SRIOV: n.path("sriov"),
			LegacySRIOV: n.path("legacy-sriov"), Kubelet: n.path("kubelet"), PodLogs: n.path("logs"), Proc: n.path("proc"), Flannel: n.path("subnet.env"), APIServer: n.path("apiserver.yaml"),
		},
	}
	n.write(t, "proc/self/.keep", "")
	return n
}

func (n *testNode) linkAll(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.path("bin"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(dir, e.Name()), n.path("bin", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// pod attaches a pod, and returns its network namespace.
func (n *testNode) pod(t *testing.T, name, networks string) string {
	t.Helper()
	netns := testenv.NetNS(t)
	if err := n.add(t, name, networks, netns); err != nil {
		t.Fatal(err)
	}
	return netns
}

func (n *testNode) add(t *testing.T, name, networks, netns string) error {
	t.Helper()
	n.write(t, "manifests/pod-"+name+".yaml", fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: default, annotations: {k8s.v1.cni.cncf.io/networks: '%s'}}\n", name, networks))
	c, err := n.loadConf(nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), n.path("bin", "plexus"))
	cmd.Env = []string{
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + name + "-0123456789", "CNI_IFNAME=eth0", "CNI_NETNS=" + netns, "CNI_PATH=" + n.path("bin"), "PATH=" + searchPath,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name,
	}
	cmd.Stdin = bytes.NewReader(c.plugin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	testenv.Do(t, n.netns, cmd.Start)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, &out)
	}
	return nil
}

func (n *testNode) examine(t *testing.T) []Finding {
	t.Helper()
	var found []Finding
	testenv.Do(t, n.netns, func() error {
		found = n.Examine(t.Context())
		return nil
	})
	return found
}

// script makes a plugin of a shell script, which succeeds where the text does not exit.
func (n *testNode) script(t *testing.T, name, text string) {
	t.Helper()
	n.write(t, "bin/"+name, "#!/bin/sh\n"+text+`
echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'
`)
	if err := os.Chmod(n.path("bin", name), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (n *testNode) handle(t *testing.T, netns, link string) (*netlink.Handle, netlink.Link) {
	t.Helper()
	h := testenv.Handle(t, netns)
	l, err := h.LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	return h, l
}

// bad are the codes of errors and warnings. How fast a program starts here says nothing: the tests run beside others.
func bad(found []Finding) []string {
	var codes []string
	for _, f := range found {
		if f.Severity != Info && f.Code != "plugin-slow" {
			codes = append(codes, f.Code)
		}
	}
	return codes
}

// wantOnly fails unless the errors and warnings are of these codes, and the first says all of the texts.
func wantOnly(t *testing.T, found []Finding, code string, texts ...string) {
	t.Helper()
	if !slices.Equal(bad(found), strings.Split(code, ",")) {
		t.Fatalf("found %s\nwant only %s", show(found), code)
	}
	found = slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return f.Code == PluginSlow })
	for _, text := range texts {
		if !strings.Contains(found[0].Object+": "+found[0].Text, text) {
			t.Errorf("%+v\nwant %q in it", found[0], text)
		}
	}
	if found[0].Mend == "" {
		t.Errorf("%+v does not say how to fix it", found[0])
	}
}

func show(found []Finding) string {
	text, err := json.MarshalIndent(found, "", " ")
	return fmt.Sprint(string(text), err)
}

const subnet = `"subnet":"10.202.0.0/24"`

// TestDoctorNamesTheCause breaks a node on purpose, in one way each.
func TestDoctorNamesTheCause(t *testing.T) {
	t.Parallel()
	old := time.Now().Add(-time.Hour)
	for name, tc := range map[string]struct {
		keys   string
		breaks func(t *testing.T, n *testNode)
		code   string
		texts  []string
	}{
		"an exhausted pool": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", n.bridge("small", "", subnet+`,"rangeStart":"10.202.0.5","rangeEnd":"10.202.0.6"`))
				n.pod(t, "a", "small")
				n.pod(t, "b", "small")
			},
			code: PoolExhausted, texts: []string{"network default/small", "10.202.0.5-10.202.0.6: 2 of 2"},
		},
		"a lease of a container that is gone": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.pod(t, "a", "")
				n.write(t, "leases/cluster/10.201.0.77", "0123456789abcdef\r\neth0")
				if err := os.Chtimes(n.path("leases/cluster/10.201.0.77"), old, old); err != nil {
					t.Fatal(err)
				}
			},
			code: PoolLeak, texts: []string{"network cluster", "10.201.0.77 (container 0123456789ab)"},
		},
		"a missing binary": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", nadYAML("odd", `{"cniVersion":"1.0.0","type":"nosuch"}`))
			},
			code: PluginMissing, texts: []string{"plugin nosuch", "default/odd"},
		},
		"a binary that cannot be executed": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "bin/odd", "")
				n.write(t, "manifests/nads.yaml", nadYAML("odd", `{"cniVersion":"1.0.0","type":"odd"}`))
			},
			code: PluginNotExecutable, texts: []string{"plugin odd", "0600"},
		},
		"a binary that does not answer": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "bin/odd", "#!/bin/sh\necho nothing\n")
				if err := os.Chmod(n.path("bin/odd"), 0o700); err != nil {
					t.Fatal(err)
				}
				n.write(t, "manifests/nads.yaml", nadYAML("odd", `{"cniVersion":"1.0.0","type":"odd"}`))
			},
			code: PluginBroken, texts: []string{"plugin odd"},
		},
		"a binary of an older version": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "bin/odd", "#!/bin/sh\necho '{\"cniVersion\":\"0.4.0\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\"]}'\n")
				if err := os.Chmod(n.path("bin/odd"), 0o700); err != nil {
					t.Fatal(err)
				}
				n.write(t, "manifests/nads.yaml", nadYAML("odd", `{"cniVersion":"1.0.0","type":"odd"}`))
			},
			code: PluginVersion, texts: []string{"plugin odd", "CNI 1.0.0", "0.3.1, 0.4.0"},
		},
		"a wrong master": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", nadYAML("storage", `{"cniVersion":"1.0.0","type":"macvlan","master":"eth9"}`))
			},
			code: LinkMissing, texts: []string{"network default/storage", `"eth9"`},
		},
		"a master that is down": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				testenv.Veth(t, testenv.End{NetNS: n.netns, Name: "nic"}, testenv.End{NetNS: n.netns, Name: "peer"})
				h, link := n.handle(t, n.netns, "nic")
				if err := h.LinkSetDown(link); err != nil {
					t.Fatal(err)
				}
				n.write(t, "manifests/nads.yaml", nadYAML("storage", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic"}`))
			},
			code: LinkDown, texts: []string{"network default/storage", "nic is down"},
		},
		"a bridge that is down": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", n.bridge("b", "", subnet))
				n.pod(t, "a", "b")
				h, link := n.handle(t, n.netns, "br-b")
				if err := h.LinkSetDown(link); err != nil {
					t.Fatal(err)
				}
			},
			code: LinkDown, texts: []string{"network default/b", "br-b"},
		},
		"a bridge without the gateway": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.pod(t, "a", "")
				h, link := n.handle(t, n.netns, "br-cluster")
				addrs, err := h.AddrList(link, netlink.FAMILY_V4)
				if err != nil || len(addrs) != 1 {
					t.Fatal(addrs, err)
				}
				if err := h.AddrDel(link, &addrs[0]); err != nil {
					t.Fatal(err)
				}
			},
			code: GatewayMissing, texts: []string{"network cluster", "10.201.0.1"},
		},
		"a bridge of a smaller MTU": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.pod(t, "a", "")
				h, link := n.handle(t, n.netns, "br-cluster")
				if err := h.LinkSetMTU(link, 1300); err != nil {
					t.Fatal(err)
				}
			},
			code: MTUMismatch, texts: []string{"pod default/a", "MTU 1500", "1300"},
		},
		"a gateway that does not answer": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", n.bridge("b", "", subnet+`,"routes":[{"dst":"10.99.0.0/16","gw":"10.202.0.9"}]`))
				n.pod(t, "a", "b")
				n.Probe = true
			},
			code: GatewayUnreachable, texts: []string{"pod default/a", "gateway 10.202.0.9", "net1 (network default/b)"},
		},
		"a daemon that is down": {
			keys: `"daemonSocketDir":"/nonexistent/plexus",`, breaks: func(*testing.T, *testNode) {},
			code: DaemonUnreachable, texts: []string{"daemon socket /nonexistent/plexus/plexus.sock"},
		},
		"two default routes": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", n.bridge("b", `,"isGateway":true`, subnet))
				netns := n.pod(t, "a", "b")
				h, link := n.handle(t, netns, "net1")
				if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: []byte{10, 202, 0, 1}, Priority: 50}); err != nil {
					t.Fatal(err)
				}
			},
			code: RouteTwoDefaults, texts: []string{"pod default/a", "via 10.201.0.1 dev eth0", "via 10.202.0.1 dev net1 metric 50"},
		},
		"a rule without routes": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				h := testenv.Handle(t, n.pod(t, "a", ""))
				rule := netlink.NewRule()
				rule.Src, rule.Table, rule.Family = netlink.NewIPNet([]byte{10, 201, 0, 2}), 123, netlink.FAMILY_V4
				if err := h.RuleAdd(rule); err != nil {
					t.Fatal(err)
				}
			},
			code: RouteSourceEmpty, texts: []string{"pod default/a", "table 123"},
		},
		"strict reverse paths": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", n.bridge("b", `,"isGateway":true`, subnet+`,"routes":[{"dst":"10.99.0.0/16"}]`))
				testenv.Do(t, n.pod(t, "a", "b"), func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/net1/rp_filter", []byte("1"), 0o600) })
			},
			code: RouteReversePath, texts: []string{"network default/b", "in 1 pods", "default/a"},
		},
		"a corrupt record": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "state/records/abc-eth0.json", "{")
			},
			code: RecordCorrupt, texts: []string{"record abc-eth0", "abc-eth0.json"},
		},
		"a record of a newer version": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "state/records/abc-eth0.json", `{"version":99,"sandbox":{"containerID":"abc","ifName":"eth0"},"attachments":[]}`)
			},
			code: RecordNewer, texts: []string{"record abc-eth0"},
		},
		"an interface that was removed": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", n.bridge("b", "", subnet))
				h, link := n.handle(t, n.pod(t, "a", "b"), "net1")
				if err := h.LinkDel(link); err != nil {
					t.Fatal(err)
				}
			},
			code: InterfaceMissing, texts: []string{"pod default/a", "net1"},
		},
		"a namespace of nobody": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				const name = "cni-01234567-89ab-cdef-0123-456789abcdef"
				if err := netdev.NewLinux().CreateNetNS(n.path("netns", name)); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := netdev.NewLinux().DeleteNetNS(n.path("netns", name)); err != nil {
						t.Error(err)
					}
				})
				n.Now = func() time.Time { return time.Now().Add(time.Hour) }
			},
			code: NamespaceOrphan, texts: []string{"cni-01234567-89ab-cdef-0123-456789abcdef"},
		},
		"another configuration in front": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "net.d/00-aaa.conf", `{"cniVersion":"1.0.0","name":"x","type":"bridge"}`)
			},
			code: ConfNotFirst, texts: []string{"00-aaa.conf", "of type bridge"},
		},
		"a primary that renames": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "net.d/10-flannel.conflist.cilium_bak", `{}`)
			},
			code: ConfForeignRenamed, texts: []string{"10-flannel.conflist.cilium_bak"},
		},
		"several meta-plugins": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "net.d/01-multus.conf", `{"cniVersion":"1.0.0","name":"x","type":"multus-shim"}`)
			},
			code: ConfSeveralMeta, texts: []string{"00-plexus.conflist, 01-multus.conf"},
		},
		"a configuration that Plexus refuses": {
			keys: `"logLevel":"loud",`, breaks: func(*testing.T, *testNode) {},
			code: ConfInvalid, texts: []string{"logLevel"},
		},
		"a network that is no configuration": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "conf/broken.conflist", `{"cniVersion":"1.0.0","plugins":[]}`)
			},
			code: NetworkInvalid, texts: []string{"broken.conflist"},
		},
		"networks that overlap": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", n.bridge("a", "", subnet)+n.bridge("b", "", `"subnet":"10.202.0.128/25"`))
			},
			code: PoolOverlap, texts: []string{"network default/a and default/b"},
		},
		"a network within the cluster's services": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", n.bridge("a", "", `"subnet":"10.96.7.0/24"`))
				n.write(t, "apiserver.yaml", "    - --service-cluster-ip-range=10.96.0.0/12\n")
			},
			code: PoolOverlap, texts: []string{"network default/a", "service addresses, 10.96.0.0/12"},
		},
		"a network that gives away the node's address": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				testenv.Veth(t, testenv.End{NetNS: n.netns, Name: "nic", Addrs: []string{"192.0.2.20/24"}}, testenv.End{NetNS: n.netns, Name: "peer"})
				n.write(t, "manifests/nads.yaml", nadYAML("m", fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":"nic","ipam":{"type":"host-local","dataDir":%q,"subnet":"192.0.2.0/24"}}`, n.path("leases"))))
			},
			code: PoolNodeAddress, texts: []string{"network default/m", "192.0.2.20"},
		},
		"a device plugin that is gone": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				leaveSocket(t, n.path("kubelet", "device-plugins", "nic.sock"))
			},
			code: DevicePluginGone, texts: []string{"nic.sock"},
		},
		"an interface with a made-up name": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.Kernel = parentOf{netdev.NewLinux(), "dev7", "0000:03:02.1"}
				testenv.Veth(t, testenv.End{NetNS: n.netns, Name: "dev7"}, testenv.End{NetNS: n.netns, Name: "peer"})
			},
			code: SRIOVLeftoverName, texts: []string{"interface dev7", "0000:03:02.1"},
		},
		"no configuration at all": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				if err := os.Remove(n.Conf); err != nil {
					t.Fatal(err)
				}
			},
			code: ConfNone, texts: []string{"net.d"},
		},
		"no configuration of Plexus": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				if err := os.Rename(n.Conf, n.Conf+".off"); err != nil {
					t.Fatal(err)
				}
				n.write(t, "net.d/10-flannel.conf", `{"cniVersion":"1.0.0","name":"x","type":"bridge"}`)
			},
			code: ConfMissing, texts: []string{"takes 10-flannel.conf"},
		},
		"a broken neighbour in the folder": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "net.d/99-odd.conflist", `{`)
			},
			code: ConfBroken, texts: []string{"99-odd.conflist"},
		},
		"a network whose plugin is not ready": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.script(t, "odd", `[ $CNI_COMMAND != STATUS ] || { echo '{"cniVersion":"1.1.0","code":50,"msg":"no route to the switch"}'; exit 1; }`)
				n.write(t, "manifests/nads.yaml", nadYAML("odd", `{"cniVersion":"1.1.0","type":"odd"}`))
			},
			code: StatusNetwork, texts: []string{"network default/odd", "no route to the switch"},
		},
		"a default network that is not ready": {
			keys:   `"readinessindicatorfile":"/nonexistent",`,
			breaks: func(*testing.T, *testNode) {},
			code:   StatusPlexus, texts: []string{"00-plexus.conflist", "readinessindicatorfile /nonexistent"},
		},
		"state of containers of the former meta-plugin": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "legacy/0123456789abcdef", "[]")
				n.write(t, "legacy/fedcba9876543210", "[]")
				n.write(t, "sandboxes/fedcba9876543210/.keep", "")
			},
			code: LegacyOrphan, texts: []string{"1 containers", "0123456789ab"},
		},
		"an address of two pods": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", nadYAML("fixed", `{"cniVersion":"1.0.0","type":"bridge","bridge":"br-fixed","ipam":{"type":"static","addresses":[{"address":"10.203.0.7/24"}]}}`))
				n.pod(t, "a", "fixed")
				n.pod(t, "b", "fixed")
			},
			code: AddressConflict, texts: []string{"network default/fixed", "10.203.0.7", "default/a, default/b"},
		},
		"a lost source rule": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", nadYAML("b", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[{"type":"bridge","bridge":"br-b","isGateway":true,"ipam":{"type":"host-local","dataDir":%q,%s}},{"type":"sbr"}]}`, n.path("leases"), subnet)))
				h := testenv.Handle(t, n.pod(t, "a", "b"))
				rules, err := h.RuleList(netlink.FAMILY_V4)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range rules {
					if r.Src == nil {
						continue
					}
					if err := h.RuleDel(&r); err != nil {
						t.Fatal(err)
					}
				}
			},
			code: RouteSourceMissing, texts: []string{"pod default/a", "10.202.0.2", "net1"},
		},
		"a namespace that its pod has left": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				path := n.path("netns", "01234567-89ab-cdef-0123-456789abcdef")
				if err := netdev.NewLinux().CreateNetNS(path); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := netdev.NewLinux().DeleteNetNS(path); err != nil {
						t.Error(err)
					}
				})
				if err := n.add(t, "a", "", path); err != nil {
					t.Fatal(err)
				}
				n.Now = func() time.Time { return time.Now().Add(time.Hour) }
			},
			code: NamespaceIdle, texts: []string{"pod default/a"},
		},
		"a kubelet that does not answer": {
			keys: `"daemonSocketDir":"/nonexistent/plexus",`,
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				leaveSocket(t, n.path("kubelet", "pod-resources", "kubelet.sock"))
			},
			code: DaemonUnreachable + "," + DevicesUnknown,
		},
		"networks of type sriov without VFs": {
			breaks: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "manifests/nads.yaml", nadYAML("fast", `{"cniVersion":"1.0.0","type":"sriov"}`))
			},
			code: SRIOVNoVFs, texts: []string{"no device of this node"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t, tc.keys)
			tc.breaks(t, n)
			wantOnly(t, n.examine(t), tc.code, tc.texts...)
		})
	}
}

// parentOf shows an interface as one of a device.
type parentOf struct {
	*netdev.Linux

	name, parent string
}

func (k parentOf) Links(netns string) ([]netdev.Link, error) {
	links, err := k.Linux.Links(netns)
	for i := range links {
		if links[i].Name == k.name {
			links[i].Parent = k.parent
		}
	}
	return links, err
}

func TestAHealthyNodeHasNoFindings(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	n.write(t, "manifests/nads.yaml", n.bridge("b", `,"isGateway":true`, subnet))
	n.Probe = true
	n.pod(t, "a", "b")
	n.pod(t, "b", "b")
	found := n.examine(t)
	if len(bad(found)) > 0 {
		t.Errorf("found %s", show(found))
	}
	usage := slices.IndexFunc(found, func(f Finding) bool { return f.Code == PoolUsage && f.Object == "network default/b" })
	if usages := slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return f.Code != PoolUsage }); len(usages) != 2 {
		t.Errorf("found %s; want the usage of each pool once", show(usages))
	}
	if usage < 0 || found[usage].Text != "10.202.0.1-10.202.0.254: 2 of 253 addresses are in use, 251 are free" {
		t.Errorf("found %s; want the usage of default/b", show(found))
	}
}

func TestFixGivesBackWhatAGoneSandboxHolds(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	n.write(t, "manifests/nads.yaml", n.bridge("b", "", subnet))
	n.pod(t, "stays", "b")
	netns := filepath.Join(t.TempDir(), "goes")
	if err := netdev.NewLinux().CreateNetNS(netns); err != nil {
		t.Fatal(err)
	}
	if err := n.add(t, "goes", "b", netns); err != nil {
		t.Fatal(err)
	}
	if err := netdev.NewLinux().DeleteNetNS(netns); err != nil {
		t.Fatal(err)
	}
	lease := n.path("leases/b/10.202.0.3")
	wantOnly(t, n.examine(t), RecordOrphan, "pod default/goes", "10.201.0.3", "10.202.0.3")
	if _, err := os.Stat(lease); err != nil {
		t.Fatalf("without --fix: %v", err)
	}
	n.Fix = true
	found := n.examine(t)
	if len(bad(found)) > 0 || !slices.ContainsFunc(found, func(f Finding) bool { return f.Code == Fixed && f.Object == "pod default/goes" }) {
		t.Errorf("with --fix: found %s", show(found))
	}
	for _, file := range []string{lease, n.path("leases/cluster/10.201.0.3"), n.path("state/records/goes-0123456789-eth0.json")} {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v; want it gone", file, err)
		}
	}
	if _, err := os.Stat(n.path("leases/b/10.202.0.2")); err != nil {
		t.Errorf("the lease of the pod that lives: %v", err)
	}
}

func TestFixTellsWhatItCouldNotGiveBack(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	n.script(t, "odd", `[ $CNI_COMMAND != DEL ] || { echo '{"cniVersion":"1.0.0","code":100,"msg":"the switch is off"}'; exit 1; }`)
	n.write(t, "manifests/nads.yaml", nadYAML("odd", `{"cniVersion":"1.0.0","type":"odd"}`))
	netns := filepath.Join(t.TempDir(), "goes")
	if err := netdev.NewLinux().CreateNetNS(netns); err != nil {
		t.Fatal(err)
	}
	if err := n.add(t, "a", "odd", netns); err != nil {
		t.Fatal(err)
	}
	if err := netdev.NewLinux().DeleteNetNS(netns); err != nil {
		t.Fatal(err)
	}
	n.Fix = true
	found := n.examine(t)
	at := slices.IndexFunc(found, func(f Finding) bool { return f.Code == FixFailed })
	if at < 0 || found[at].Object != "pod default/a" || !strings.Contains(found[at].Text, "the switch is off") {
		t.Errorf("found %s; want %s of default/a", show(found), FixFailed)
	}
	if _, err := os.Stat(n.path("state/records/a-0123456789-eth0.json")); err != nil {
		t.Errorf("what could not be given back is to stay on record: %v", err)
	}
}

func TestDoctorOfAPodTellsOnlyOfIt(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	n.write(t, "manifests/nads.yaml", n.bridge("b", "", subnet)+nadYAML("odd", `{"cniVersion":"1.0.0","type":"nosuch"}`))
	for _, name := range []string{"a", "b"} {
		h, link := n.handle(t, n.pod(t, name, "b"), "net1")
		if err := h.LinkSetDown(link); err != nil {
			t.Fatal(err)
		}
	}
	n.Pod = "default/b"
	n.Choose = func(pods []inspect.Pod) ([]inspect.Pod, error) {
		return slices.DeleteFunc(slices.Clone(pods), func(p inspect.Pod) bool { return p.Ref() != n.Pod }), nil
	}
	wantOnly(t, n.examine(t), InterfaceDown, "pod default/b", "net1")
}

func TestDoctorTellsWhyAPodCouldNotBeAttached(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	if err := n.add(t, "a", "nosuch", testenv.NetNS(t)); err == nil {
		t.Fatal("attached to a network that is not there")
	}
	wantOnly(t, n.examine(t), AddFailed, "pod default/a", "default/nosuch")
	n.Pod, n.Choose = "default/a", func([]inspect.Pod) ([]inspect.Pod, error) { return nil, errors.New("not on record") }
	wantOnly(t, n.examine(t), AddFailed, "pod default/a", "default/nosuch")
	n.Pod = "default/never"
	wantOnly(t, n.examine(t), PodUnknown, "not on record")
	n.write(t, "manifests/nads.yaml", n.bridge("nosuch", "", subnet))
	if err := n.add(t, "a", "nosuch", testenv.NetNS(t)); err != nil {
		t.Fatal(err)
	}
	n.Pod, n.Choose = "", nil
	if found := n.examine(t); len(bad(found)) > 0 {
		t.Errorf("after an ADD that succeeded: found %s", show(found))
	}
}

func TestFailuresOfDeletedPodsAreOver(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	for _, name := range []string{"a", "ab"} {
		if err := n.add(t, name, "nosuch", testenv.NetNS(t)); err == nil {
			t.Fatal("attached to a network that is not there")
		}
	}
	n.write(t, "kubelet/pods/2222/.keep", "")
	if got := bad(n.examine(t)); !slices.Equal(got, []string{AddFailed, AddFailed}) {
		t.Errorf("without folders of logs: found %v", got)
	}
	n.write(t, "logs/default_a_1111/.keep", "") // which the kubelet has no more
	n.write(t, "logs/default_ab_2222/.keep", "")
	wantOnly(t, n.examine(t), AddFailed, "pod default/ab")
	n.write(t, "kubelet/pods/1111/.keep", "")
	if got := bad(n.examine(t)); !slices.Equal(got, []string{AddFailed, AddFailed}) {
		t.Errorf("with both pods: found %v", got)
	}
}

func TestDoctorOfAPodThatGotNoAddressTellsOfThePool(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	n.write(t, "manifests/nads.yaml", n.bridge("b", "", `"subnet":"10.9.0.0/24","rangeStart":"10.9.0.20","rangeEnd":"10.9.0.20"`))
	n.pod(t, "a", "b")
	if err := n.add(t, "late", "b", testenv.NetNS(t)); err == nil {
		t.Fatal("attached to a network without a free address")
	}
	n.Pod, n.Choose = "default/late", func([]inspect.Pod) ([]inspect.Pod, error) { return nil, errors.New("not on record") }
	found := n.examine(t)
	if got := bad(found); !slices.Equal(got, []string{AddFailed, PoolExhausted}) {
		t.Fatalf("found %s", show(found))
	}
	if !strings.Contains(show(found), "in NetworkAttachmentDefinition default/b") {
		t.Errorf("where to widen the range is not told: %s", show(found))
	}
}
