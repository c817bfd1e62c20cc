// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/record"
)

var sandbox = delegate.Sandbox{ContainerID: "c0ffee", NetNS: "/run/netns/x", IfName: "eth0"}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// The state as the other meta-plugin writes it: a bare plugin whose configuration is in Bytes, and a list whose complete plugins are in
// CNINetworkConfigList (Bytes lacks the plugin that was appended from a folder).
var stateFile = fmt.Sprintf(`[
 {"Conf":{"cniVersion":"0.3.1","name":"cluster","type":"bridge","ipam":{},"dns":{}},"ConfList":{},"CNINetworkConfigList":{"Name":"","CNIVersion":"","Plugins":null,"Bytes":null},
  "Name":"","Bytes":%q},
 {"Conf":{},"ConfList":{"cniVersion":"1.0.0","name":"lan","plugins":[{"type":"macvlan"}]},
  "CNINetworkConfigList":{"Name":"lan","CNIVersion":"1.0.0","DisableCheck":true,"Plugins":[
    {"Network":{"type":"macvlan"},"Bytes":%q},{"Network":{"type":"tuning"},"Bytes":%q}],"Bytes":%q},
  "Name":"shop/lan","ifnameRequest":"data0","macRequest":"02:00:00:00:00:01","Bytes":%q},
 {"Conf":{"type":"ptp"},"Name":"shop/p2p","Bytes":%q}
]`,
	b64(`{"cniVersion":"0.3.1","name":"cluster","type":"bridge"}`),
	b64(`{"type":"macvlan","master":"eth1"}`), b64(`{"type":"tuning"}`), b64(`{"name":"lan"}`),
	b64(`{"cniVersion":"1.0.0","name":"lan","plugins":[{"type":"macvlan"}]}`),
	b64(`{"cniVersion":"1.0.0","name":"p2p","type":"ptp"}`),
)

func cacheEntry(t *testing.T, network, ifName, config string) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"kind": "cniCacheV1", "containerId": sandbox.ContainerID, "config": []byte(config), "ifName": ifName, "networkName": network,
		"cniArgs":        [][2]string{{"IgnoreUnknown", "true"}, {"MAC", "02:00:00:00:00:01"}},
		"capabilityArgs": map[string]any{"mac": "02:00:00:00:00:01"},
		"result":         map[string]any{"cniVersion": "1.0.0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// describe prints what undo would do.
func describe(p *delegate.Plan) []string {
	if p == nil {
		return nil
	}
	var lines []string
	for _, a := range p.Attachments {
		lines = append(lines, fmt.Sprintf("%s %s %s %s default=%v args=%d result=%v", a.Network, a.IfName, a.List.CNIVersion(), strings.Join(a.List.Types(), "+"), a.Default, len(a.Args), len(a.Result) > 0))
	}
	return lines
}

func TestD12StateOfTheFormerMetaPlugin(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"c0ffee":                   stateFile,
		"results/lan-c0ffee-data0": cacheEntry(t, "lan", "data0", `{"name":"lan"}`),
	})
	p, err := Load(dir, sandbox)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"cluster eth0 0.3.1 bridge default=true args=0 result=false",
		"shop/lan data0 1.0.0 macvlan+tuning default=false args=2 result=true",
		"shop/p2p net2 1.0.0 ptp default=false args=0 result=false",
	}
	if diff := cmp.Diff(want, describe(p)); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if err := p.Validate(); err != nil {
		t.Errorf("Validate: %v", err)
	}
	if got := string(p.Attachments[1].List.Bytes()); !strings.Contains(got, `"master":"eth1"`) || !strings.Contains(got, `"disableCheck":true`) {
		t.Errorf("list = %s, want the complete one, with disableCheck", got)
	}
}

func TestD4NoState(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"an empty folder": t.TempDir(), "no folder": filepath.Join(t.TempDir(), "none")} {
		if p, err := Load(dir, sandbox); p != nil || err != nil {
			t.Errorf("%s: Load = %v, %v", name, p, err)
		}
		if p, bad, err := FromCache(dir, sandbox, nil); p != nil || bad != nil || err != nil {
			t.Errorf("%s: FromCache = %v, %v, %v", name, p, bad, err)
		}
		if ids, err := Containers(dir); ids != nil || err != nil {
			t.Errorf("%s: Containers = %v, %v", name, ids, err)
		}
	}
}

func TestUnreadableStateIsMadeUpForFromTheCache(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"half a file": stateFile[:100], "empty": "", "another shape": `{"a":1}`, "a delegate without configuration": `[{"Name":"x"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, map[string]string{
				"c0ffee":                      text,
				"results/lan-c0ffee-data0":    cacheEntry(t, "lan", "data0", `{"cniVersion":"1.0.0","name":"lan","plugins":[{"type":"macvlan"}]}`),
				"results/cluster-c0ffee-eth0": cacheEntry(t, "cluster", "eth0", `{"cniVersion":"0.3.1","name":"cluster","type":"bridge"}`),
				"results/other-deadbeef-eth0": "not JSON",
			})
			p, err := Load(dir, sandbox)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{
				"cluster eth0 0.3.1 bridge default=true args=2 result=true",
				"lan data0 1.0.0 macvlan default=false args=2 result=true",
			}
			if diff := cmp.Diff(want, describe(p)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnreadableStateWithoutACacheIsTold(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"c0ffee": "{"})
	_, err := Load(dir, sandbox)
	if !errors.Is(err, record.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Join(dir, "c0ffee")) {
		t.Errorf("Load: %v, want the file", err)
	}
}

func TestEntriesOfTheCacheThatCanNotBeReadAreTold(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"results/lan-c0ffee-net1":         cacheEntry(t, "lan", "net1", `{"cniVersion":"1.0.0","name":"lan","type":"macvlan"}`),
		"results/bad-c0ffee-net2":         cacheEntry(t, "bad", "net2", `{"no":"plugin"}`),
		"results/half-c0ffee-net3":        `{"kind":"cniCa`,
		"results/old-c0ffee-net4.corrupt": `{`,
	})
	p, bad, err := FromCache(dir, sandbox, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"lan net1 1.0.0 macvlan default=false args=2 result=true"}, describe(p)); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	want := []string{filepath.Join(dir, "results", "bad-c0ffee-net2"), filepath.Join(dir, "results", "half-c0ffee-net3")}
	if diff := cmp.Diff(want, bad); diff != "" {
		t.Errorf("unreadable (-want +got):\n%s", diff)
	}
}

func TestContainersAndRemove(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"c0ffee": stateFile, "deadbeef": "[]", "results/x-c0ffee-eth0": "{}", "records/c-eth0.json": "{}", "boot-id": "b", "source-seen": ""})
	ids, err := Containers(dir)
	if diff := cmp.Diff([]string{"c0ffee", "deadbeef"}, ids); err != nil || diff != "" {
		t.Errorf("Containers (-want +got): %v\n%s", err, diff)
	}
	for range 2 {
		if err := Remove(dir, "c0ffee"); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if ids, _ := Containers(dir); len(ids) != 1 {
		t.Errorf("Containers after Remove = %v", ids)
	}
}

func TestFilesThatAreNoStateAreLeftAlone(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("0123456789abcdef", 4)
	dir := folder(t, map[string]string{
		"multus.log": "started\n", "multus.log.1": "", "cut": `[{"Conf":`, "cut.corrupt": `[{"Conf":`, "empty": "", id: `{"gar`, ".hidden": "[]",
	})
	ids, err := Containers(dir)
	if diff := cmp.Diff([]string{id, "cut", "empty"}, ids); err != nil || diff != "" {
		t.Errorf("Containers (-want +got): %v\n%s", err, diff)
	}
}

func TestStateOfOneInterfaceIsNotThatOfAnother(t *testing.T) {
	t.Parallel()
	entry := cacheEntry(t, "cluster", "eth0", `{"cniVersion":"0.3.1","name":"cluster","type":"bridge"}`)
	dir := folder(t, map[string]string{"c0ffee": stateFile, "results/cluster-c0ffee-eth0": entry})
	for ifName, want := range map[string]bool{"eth0": true, "eth1": false} {
		p, err := Load(dir, delegate.Sandbox{ContainerID: "c0ffee", IfName: ifName})
		if err != nil || (p != nil) != want {
			t.Errorf("%s: Load = %v, %v", ifName, p, err)
		}
	}
}

func TestEntriesThatSayWhoseTheyAre(t *testing.T) {
	t.Parallel()
	own := func(ifName, sandboxIfName string) string {
		return strings.Replace(cacheEntry(t, "lan", ifName, `{"cniVersion":"1.0.0","name":"lan","type":"macvlan"}`), "{", `{"plexusSandboxIfName":"`+sandboxIfName+`",`, 1)
	}
	dir := folder(t, map[string]string{
		"results/lan-c0ffee-net1":  own("net1", "eth0"),
		"results/lan-c0ffee-net2":  own("net2", "eth1"),
		"results/lan-c0ffee-net3":  cacheEntry(t, "lan", "net3", `{"cniVersion":"1.0.0","name":"lan","type":"macvlan"}`),
		"results/self-c0ffee-eth0": cacheEntry(t, "plexus", "eth0", `{"cniVersion":"1.0.0","name":"plexus","type":"plexus"}`),
	})
	for name, tc := range map[string]struct {
		ifName string
		taken  bool
		want   []string
	}{
		"of eth0, and one that nobody has":  {"eth0", false, []string{"net1", "net3"}},
		"of eth0, and one that another has": {"eth0", true, []string{"net1"}},
		"of eth1, and one that another has": {"eth1", true, []string{"net2"}},
	} {
		p, unreadable, err := FromCache(dir, delegate.Sandbox{ContainerID: "c0ffee", IfName: tc.ifName}, func(string) bool { return tc.taken })
		if err != nil || unreadable != nil {
			t.Fatal(unreadable, err)
		}
		var got []string
		for _, a := range p.Attachments {
			got = append(got, a.IfName)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	sandboxes, err := Sandboxes(dir)
	want := []delegate.Sandbox{{ContainerID: "c0ffee", IfName: "eth0"}, {ContainerID: "c0ffee", IfName: "eth1"}}
	if diff := cmp.Diff(want, sandboxes); err != nil || diff != "" {
		t.Errorf("Sandboxes (-want +got): %v\n%s", err, diff)
	}
}

func TestEntryThatAnotherSandboxIsJustWritingIsItsOwn(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"results/lan-c0ffee-net1": "", "results/wan-c0ffee-net2": "{"})
	taken := func(entry string) bool { return entry == "lan-c0ffee-net1" }
	p, unreadable, err := FromCache(dir, delegate.Sandbox{ContainerID: "c0ffee", IfName: "eth0"}, taken)
	want := []string{filepath.Join(dir, "results/wan-c0ffee-net2")}
	if diff := cmp.Diff(want, unreadable); p != nil || err != nil || diff != "" {
		t.Errorf("plan %v, %v, files that cannot be read (-want +got):\n%s", p, err, diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(stateFile))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"CNINetworkConfigList":{"Plugins":[{"Bytes":"e30="}]}}]`))
	f.Add([]byte(`[{"Bytes":"bnVsbA=="}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parse(data, sandbox)
		if err != nil {
			return
		}
		for i := range p.Attachments {
			if a := &p.Attachments[i]; a.List == nil || len(a.List.Types()) == 0 {
				t.Errorf("attachment %d has no plugins: %+v", i, a)
			}
		}
	})
}
