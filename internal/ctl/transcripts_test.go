// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/doctor"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// documentedClient is pod client of examples/business-and-mgmt, as docs/plexusctl.md shows it.
func documentedClient() inspect.Pod {
	at := func(name, network, mac, v4, v6 string, routes ...inspect.DefaultRoute) inspect.Interface {
		addresses := prefixes(v4, v6)
		return inspect.Interface{
			Name: name, Network: network, State: inspect.Attached, Recorded: &inspect.Recorded{MAC: mac, Addresses: addresses},
			Live: &inspect.Live{Up: true, Carrier: true, MAC: mac, MTU: 1500, Addresses: addresses, DefaultRoutes: routes},
		}
	}
	return inspect.Pod{
		Namespace: "default", Name: "client", ContainerID: "a8f0168e5f324c21", NetNS: "/run/netns/default-client", State: inspect.Attached, Seen: true,
		Began: time.Date(2026, 11, 23, 2, 44, 58, 0, time.UTC),
		Interfaces: []inspect.Interface{
			at("eth0", "cluster-default", "8a:e3:79:a9:5f:ab", "10.201.0.2/24", "fd00:201::2/64",
				inspect.DefaultRoute{Family: 4, Gateway: netip.MustParseAddr("10.201.0.1")}, inspect.DefaultRoute{Family: 6, Gateway: netip.MustParseAddr("fd00:201::1")}),
			at("eth1", "default/business-net", "32:f7:d5:00:3a:c7", "10.202.0.2/24", "fd00:202::2/64"),
			at("net2", "default/mgmt-net", "1e:4a:35:3d:7a:38", "10.203.0.2/24", "fd00:203::2/64"),
		},
	}
}

// recordedOnly is a pod of which only the record is known.
func recordedOnly(p inspect.Pod) inspect.Pod {
	p.Seen, p.Interfaces = false, slices.Clone(p.Interfaces)
	for i := range p.Interfaces {
		p.Interfaces[i].Live = nil
	}
	return p
}

// TestDocumentedOutput holds what docs/plexusctl.md shows to what the commands print (-update writes it).
func TestDocumentedOutput(t *testing.T) {
	t.Parallel()
	page := filepath.Join("..", "..", "docs", "plexusctl.md")
	var out bytes.Buffer
	// They change one page, so one after the other.
	shows := func(begin string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		golden.Section(t, page, begin, "```", out.String())
		out.Reset()
	}

	client := documentedClient()
	shows("## status\n\n```console\n# plexusctl status client\n", renderPods(&out, formatTable, []inspect.Pod{client}, paint{}, false))

	broken := documentedClient()
	broken.State, broken.Interfaces[1].State, broken.Interfaces[1].Live = inspect.Failed, inspect.Failed, nil
	broken.Problems = []string{"interface eth1 (network default/business-net) is no longer there: delete the pod, so that it is created again"}
	err := renderPods(&out, formatTable, []inspect.Pod{broken}, paint{}, false)
	out.WriteString("plexusctl: " + verdict([]inspect.Pod{broken}, 0).Error() + "\n")
	shows("below the pod, with the fix:\n\n```console\n# plexusctl status client\n", err)

	steps := []inspect.Step{
		{Name: "prepare", Took: 772240},
		{Name: "lookup", Took: 439870},
		{Name: "plan", Took: 470520},
		{Name: "record", Took: 524700},
		{Name: "attach eth0", Took: 15480000},
		{Name: "attach eth1", Took: 1880000000},
		{Name: "attach net2", Took: 20610000},
		{Name: "routes", Took: 64900},
		{Name: "report", Took: 763160},
		{Name: "complete", Took: 1840000},
	}
	shows("## trace\n\n```console\n# plexusctl trace client\n", renderTrace(&out, &traced{
		Pod: "default/client", LogFile: "/var/log/plexus.log", Records: []inspect.Pod{recordedOnly(client)},
		Events: []inspect.Event{{Time: client.Began.Add(874 * time.Millisecond), ContainerID: client.ContainerID, Verb: "ADD", Took: 1920 * time.Millisecond, Steps: steps}},
	}, paint{}))

	rates := []inspect.Rate{
		{Name: "eth0", Tx: inspect.Flow{BitsPerSecond: 560, PacketsPerSecond: 1}},
		{Name: "eth1"},
		{Name: "net2", Rx: inspect.Flow{BitsPerSecond: 151000, PacketsPerSecond: 437}, Tx: inspect.Flow{BitsPerSecond: 144000, PacketsPerSecond: 430}},
	}
	out.WriteString("pod default/client  2026-11-23 02:45:03.4 UTC\n")
	shows("# plexusctl stats client --interval 1s --count 1\n", rateTable(&client, rates).write(&out, paint{}))

	var found finding.List
	for _, f := range []struct{ code, object, text, mend string }{
		{doctor.PluginMissing, "plugin nosuch", "it is not in /opt/cni/bin, but default/odd needs it", `install it there, or correct "type" in the network's configuration`},
		{doctor.LinkMissing, "network default/storage", `its "master" "eth9" is not an interface of this node, which has eth0, eth1`, `correct "master" in NetworkAttachmentDefinition default/storage, or create the interface`},
		{doctor.PoolLeak, "network cluster-default", "leased to containers that are gone and not on record: 10.201.0.77 (container 0123456789ab)", "once `crictl pods` does not list them either: rm /var/lib/cni/networks/cluster-default/10.201.0.77"},
		{doctor.RecordOrphan, "pod default/old", "its network namespace is gone, but it still holds 10.201.0.9 (3 times)", "plexusctl doctor --fix, or wait for the container runtime's next DEL or GC"},
		{doctor.PoolUsage, "network cluster-default", "10.201.0.1-10.201.0.254: 4 of 253 addresses are in use, 249 are free", ""},
	} {
		at := slices.IndexFunc(doctor.Codes(), func(c doctor.Code) bool { return c.Code == f.code })
		found = append(found, finding.Finding{Code: f.code, Severity: doctor.Codes()[at].Severity, Object: f.object, Text: f.text, Mend: f.mend})
	}
	err = finding.WriteText(&out, found, false)
	out.WriteString("plexusctl: " + findingsVerdict(found, finding.Error).Error() + "\n")
	shows("## doctor\n\n```console\n# plexusctl doctor\n", err)
}

// TestDocumentedMigration holds what MIGRATION.md shows of findings to what migrate prints.
func TestDocumentedMigration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	objects, conf := filepath.Join(dir, "cluster.yaml"), filepath.Join(dir, "00-multus.conf")
	const pod = "kind: Pod\nmetadata: {name: web-%s, namespace: shop, ownerReferences: [{kind: ReplicaSet, name: web, controller: true}], annotations: " +
		`{k8s.v1.cni.cncf.io/networks: '[{"name":"business","bandwidth":{"ingressRate":1000000,"ingressBurst":1000000}}]'}}` + "\n---\n"
	write(t, objects, strings.ReplaceAll(pod, "%s", "1")+strings.ReplaceAll(pod, "%s", "2")+
		"kind: NetworkAttachmentDefinition\nmetadata: {name: business, namespace: shop}\nspec: {config: '{\"cniVersion\":\"0.3.1\",\"type\":\"macvlan\",\"ipam\":{\"type\":\"dhcp\"}}'}\n---\n"+
		"kind: NetworkAttachmentDefinition\nmetadata: {name: fast, namespace: shop, annotations: {k8s.v1.cni.cncf.io/resourceName: intel.com/vf}}\nspec: {config: '{\"cniVersion\":\"0.3.1\",\"type\":\"sriov\",\"trust\":\"yes\"}'}\n")
	write(t, conf, `{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus","kubeconfig":"/k","delegates":[{"cniVersion":"0.3.1","name":"c","type":"calico"}]}`)
	out, err := migrateNode(t, "", "--root", dir, "--conf", conf, "-f", objects)
	if err == nil {
		t.Error("nothing is refused")
	}
	_, findings, _ := strings.Cut(out, "\nfindings\n")
	findings, _, _ = strings.Cut(findings, "\nsteps\n")
	golden.Section(t, filepath.Join("..", "..", "MIGRATION.md"), "```console\nfindings\n", "```", strings.TrimRight(findings, "\n")+"\n")
}
