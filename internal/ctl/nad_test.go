// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/lint"
	"github.com/plexus-cni/plexus/internal/testenv"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// nadRun runs plexusctl nad with stdin.
func nadRun(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := Command(Environment{Version: "v1.2.3"})
	var out bytes.Buffer
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"nad"}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func definition(name, config string) string {
	return fmt.Sprintf("apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: %s}\nspec:\n  config: |\n    %s\n", name, config)
}

func TestLintFailsFromTheGivenSeverityOn(t *testing.T) {
	t.Parallel()
	sound := definition("a", `{"cniVersion":"1.0.0","type":"macvlan","master":"eth1"}`)
	warning := definition("a", `{"cniVersion":"1.0.0","type":"mine"}`)
	broken := definition("a", `{"cniVersion":"1.0.0","type":"macvlan",}`)
	bin := t.TempDir()
	write(t, filepath.Join(bin, "mine"), "")
	for name, tc := range map[string]struct {
		stdin string
		flags []string
		want  string // the error, "" for none
	}{
		"a sound network":                  {stdin: sound, flags: []string{"--fail-on", "warning"}},
		"a warning":                        {stdin: warning},
		"a warning, when asked for":        {stdin: warning, flags: []string{"--fail-on=warning"}, want: "something is wrong: 1 warning"},
		"a plugin of one's own":            {stdin: warning, flags: []string{"--fail-on=warning", "--bin-dir", bin}},
		"an error":                         {stdin: broken, want: "something is wrong: 1 error"},
		"an error in a format for a robot": {stdin: broken, flags: []string{"-o", "github"}, want: "something is wrong: 1 error"},
		"no network at all":                {stdin: "kind: Pod\nmetadata: {name: a}\n", want: "neither a NetworkAttachmentDefinition nor a pod that selects networks in -: name a file or folder that has one"},
		"an unknown severity":              {stdin: sound, flags: []string{"--fail-on=info"}, want: `--fail-on "info": use error or warning`},
		"an unknown format":                {stdin: sound, flags: []string{"-o", "xml"}, want: `--output "xml": use text, json, sarif or github`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := nadRun(t, tc.stdin, append([]string{"lint", "-"}, tc.flags...)...)
			if got := fmt.Sprint(err); got != tc.want && (err != nil || tc.want != "") {
				t.Errorf("error %q; want %q", got, tc.want)
			}
		})
	}
}

func TestLintReadsFoldersAndWritesEachFormat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, sub := range []string{"deep", ".git"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "deep", "a.yml"), definition("a", `{"type":"macvlan","mode":"x"}`))
	write(t, filepath.Join(dir, "deep", "notes.txt"), "{")
	write(t, filepath.Join(dir, ".git", "b.yaml"), "{")
	for format, want := range map[string]string{
		"text":   dir + "/deep/a.yml:6:30, mode\n",
		"json":   `"line": 6,`,
		"github": "::error file=" + dir + "/deep/a.yml,line=6,col=30,title=key-value::",
		"sarif":  `"ruleId": "key-value",`,
	} {
		out, err := nadRun(t, "", "lint", dir, "-o", format)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, no %q in %s", format, err, want, out)
		}
		if (format == "json" || format == "sarif") && !json.Valid([]byte(out)) {
			t.Errorf("%s: no JSON: %s", format, out)
		}
	}
}

// scaffolds are one of each type, and each flag.
func scaffolds() map[string][]string {
	return map[string][]string{
		"bridge":      {"bridge", "net-of-a-long-name", "--vlan", "7", "--mtu", "1400"},
		"macvlan":     {"macvlan", "net", "--master", "nic0", "--mode", "private", "-n", "shop"},
		"ipvlan":      {"ipvlan", "net", "--master", "nic0", "--mtu", "1400"},
		"vlan":        {"vlan", "net", "--master", "nic0", "--vlan", "42", "--subnet", "10.56.0.0/24", "--subnet", "fd00:56::/64"},
		"sriov":       {"sriov", "net", "--resource", "intel.com/nic", "--vlan", "42", "--ipam", "static"},
		"host-device": {"host-device", "net", "--device", "nic0", "--ipam", "none"},
		"whereabouts": {"macvlan", "net", "--master", "nic0", "--ipam", "whereabouts"},
		"device":      {"host-device", "net", "--resource", "intel.com/nic", "--ipam", "dhcp"},
	}
}

func TestScaffoldsPassLint(t *testing.T) {
	t.Parallel()
	typesSeen := map[string]bool{}
	for name, args := range scaffolds() {
		typesSeen[args[0]] = true
		out, err := nadRun(t, "", append([]string{"new"}, args...)...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found, n := lint.Run([]lint.File{{Name: name, Data: []byte(out)}}, lint.Options{})
		if n != 1 || found.Fails(finding.Info) {
			t.Errorf("%s: %d definitions, findings %v", name, n, found)
		}
		golden.Compare(t, "nad-new-"+name, []byte(out))
	}
	if len(typesSeen) != len(scaffoldTypes()) {
		t.Errorf("types %v; want all of %v", typesSeen, scaffoldTypes())
	}
}

func TestScaffoldsRefuseWhatMakesNoNetwork(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"tuning a", "no scaffold of type"},
		{"macvlan a", "--master"},
		{"vlan a --master e", "--vlan"},
		{"sriov a", "--resource"},
		{"host-device a", "--device"},
		{"host-device a --device e --resource a/b", "either"},
		{"bridge a --master e", "--master has no meaning for bridge"},
		{"macvlan a --master e --vlan 1", "--vlan has no meaning for macvlan"},
		{"macvlan a --master e --mode x", "mode"},
		{"macvlan a --master e --subnet 10.0.0.1/24", "10.0.0.1/24"},
		{"macvlan a --master e --subnet 10.0.0.0/24 --ipam dhcp", "--subnet has no meaning for --ipam dhcp"},
		{"ipvlan a --master e --ipam none", "ipam"},
		{"bridge a --vlan 4095", "4095"},
		{"sriov a --resource nic", "domain"},
		{"bridge A", "A"},
		{"bridge a --ipam x", "--ipam"},
	} {
		if _, err := nadRun(t, "", append([]string{"new"}, strings.Fields(tc.args)...)...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v; want one with %q", tc.args, err, tc.want)
		}
	}
}

// TestScaffoldsAttach attaches a pod to what nad new printed, but for the types that need the kernel module 8021q, or an SR-IOV NIC.
func TestScaffoldsAttach(t *testing.T) {
	t.Parallel()
	kinds := map[string]netlink.Link{
		"ipvlan": &netlink.IPVlan{Mode: netlink.IPVLAN_MODE_L2}, "macvlan": &netlink.Macvlan{Mode: netlink.MACVLAN_MODE_BRIDGE},
	}
	for _, name := range []string{"bridge", "macvlan", "ipvlan", "host-device"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "dual-stack", "nic0")
			files, err := filepath.Glob(filepath.Join(n.manifests(), "*.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if err = os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			requireKind(t, n.netns, kinds[name])
			args := slices.Clone(scaffolds()[name])
			if name == "bridge" { // its VLANs are a feature of their own in the kernel
				args = []string{"bridge", "net"}
			}
			out, err := nadRun(t, "", append([]string{"new"}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(n.manifests(), "net.yaml"), strings.ReplaceAll(out, `"type": "host-local",`, fmt.Sprintf(`"type": "host-local", "dataDir": %q,`, n.leases())))
			namespace := "default"
			if name == "macvlan" {
				namespace = "shop"
			}
			write(t, filepath.Join(n.manifests(), "pod.yaml"), "kind: Pod\nmetadata:\n  name: scaffold-"+name+"\n  namespace: "+namespace+"\n  annotations: {k8s.v1.cni.cncf.io/networks: net}\n")
			stdout, stderr, code := n.run(t, "attach", "-o", "json")
			if code != 0 {
				t.Fatalf("attach: %s", stderr)
			}
			var pods []struct {
				NetworkStatus []struct {
					Name, Interface string
					IPs             []string
				}
			}
			if err := json.Unmarshal([]byte(stdout), &pods); err != nil {
				t.Fatal(err)
			}
			want := 2 // an address of each family
			if name == "host-device" {
				want = 0
			}
			if len(pods) != 1 || len(pods[0].NetworkStatus) != 2 || pods[0].NetworkStatus[1].Name != namespace+"/net" || len(pods[0].NetworkStatus[1].IPs) != want {
				t.Errorf("attached: %s", stdout)
			}
			if _, stderr, code := n.run(t, "detach"); code != 0 {
				t.Errorf("detach: %s", stderr)
			}
		})
	}
}

// requireKind skips a test for which the kernel lacks a kind of link, on top of nic0.
func requireKind(t *testing.T, netns string, link netlink.Link) {
	t.Helper()
	if link == nil {
		return
	}
	h := testenv.Handle(t, netns)
	nic, err := h.LinkByName("nic0")
	if err != nil {
		t.Fatal(err)
	}
	link.Attrs().Name, link.Attrs().ParentIndex = "probe", nic.Attrs().Index
	err = h.LinkAdd(link)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skipf("the kernel has no links of kind %s", link.Type())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkDel(link); err != nil {
		t.Fatal(err)
	}
}

// TestDocumentedLint runs the example of docs/nad.md.
func TestDocumentedLint(t *testing.T) {
	t.Parallel()
	page := filepath.Join("..", "..", "docs", "nad.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	manifest := regexp.MustCompile("(?s)```yaml\n(apiVersion: k8s.cni.cncf.io.*?)```").FindStringSubmatch(string(text))
	if manifest == nil {
		t.Fatal("no example")
	}
	found, _ := lint.Run([]lint.File{{Name: "storage.yaml", Data: []byte(manifest[1])}}, lint.Options{})
	var out bytes.Buffer
	if err := finding.WriteText(&out, found, false); err != nil {
		t.Fatal(err)
	}
	golden.Section(t, page, "$ plexusctl nad lint storage.yaml\n", "```", out.String())
}

// TestDocumentedLintCodes compares the table of docs/nad.md with the codes.
func TestDocumentedLintCodes(t *testing.T) {
	t.Parallel()
	var rows []string
	for _, k := range lint.Kinds() {
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", k.Code, k.Severity, k.Meaning, k.Mend))
	}
	golden.Table(t, filepath.Join("..", "..", "docs", "nad.md"), "| code | severity | meaning | fix |", rows)
}
