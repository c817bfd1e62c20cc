// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func prefixes(texts ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range texts {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// somePods show each state that a pod and an interface can have.
func somePods() []inspect.Pod {
	began := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	return []inspect.Pod{
		{
			Namespace: "shop", Name: "web", UID: "u1", ContainerID: "0123456789abcdef0123", NetNS: "/run/netns/cni-1", StateDir: "/var/lib/cni/plexus", Began: began,
			State: inspect.Attached, Seen: true,
			Interfaces: []inspect.Interface{
				{
					Name: "eth0", Network: "cluster-default", Default: true, State: inspect.Attached, Plugins: []string{"bridge", "portmap"}, HostLink: "br0",
					Recorded: &inspect.Recorded{MAC: "02:00:00:00:00:01", Addresses: prefixes("10.1.0.2/24")},
					Live: &inspect.Live{
						Up: true, Carrier: true, MAC: "02:00:00:00:00:01", MTU: 1450, Addresses: prefixes("10.1.0.2/24", "fd00:1::2/64", "fe80::1/64"),
						DefaultRoutes: []inspect.DefaultRoute{{Family: 4, Gateway: netip.MustParseAddr("10.1.0.1")}, {Family: 6}},
					},
				},
				{
					Name: "net1", Network: "shop/fast", State: inspect.Attached, Plugins: []string{"sriov"}, Device: "0000:03:02.1", Driver: "vfio-pci",
					Recorded: &inspect.Recorded{MAC: "02:00:00:00:00:02", MTU: 9000},
				},
				{Name: "wg0\x1b[2J", State: inspect.Unmanaged, Live: &inspect.Live{Up: true, MTU: 1420, Addresses: prefixes("10.9.0.1/32")}},
			},
		},
		{
			Namespace: "shop", Name: "db", ContainerID: "fedcba9876543210fedc", NetNS: "/run/netns/cni-2", StateDir: "/var/lib/cni/plexus", Began: began,
			State: inspect.Failed, Seen: true,
			Interfaces: []inspect.Interface{
				{
					Name: "net1", Network: "shop/storage", State: inspect.Failed, Plugins: []string{"macvlan"}, HostLink: "ens1",
					Recorded: &inspect.Recorded{Addresses: prefixes("10.2.0.2/24")},
				},
			},
			Problems: []string{"interface net1 (network shop/storage) is no longer there: delete the pod, so that it is created again"},
		},
		{
			ContainerID: "00001111222233334444", StateDir: "/var/lib/cni/plexusctl", State: inspect.Gone, Seen: true,
			Interfaces: []inspect.Interface{}, Problems: []string{"its network namespace is gone"},
		},
	}
}

func TestRenderPods(t *testing.T) {
	t.Parallel()
	for _, format := range []string{formatTable, formatWide, formatJSON, formatYAML} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			if err := renderPods(&b, format, somePods(), paint{}, false); err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, "status-"+format, b.Bytes())
		})
	}
	for format, want := range map[string]string{formatTable: "no pod is on record\n", formatJSON: "[]\n", formatYAML: "[]\n"} {
		var b bytes.Buffer
		if err := renderPods(&b, format, nil, paint{}, false); err != nil || b.String() != want {
			t.Errorf("%s of no pods = %q, %v; want %q", format, b.String(), err, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	pods := somePods()
	if err := verdict(pods[:1], 0); err != nil {
		t.Errorf("verdict of a pod that is well: %v", err)
	}
	if err := verdict(pods[1:2], 0); err == nil || err.Error() != "something is wrong with pod shop/db" {
		t.Errorf("verdict of one pod: %v", err)
	}
	if err := verdict(pods, 0); err == nil || err.Error() != "something is wrong with 2 of 3 pods: shop/db, 00001111222233334444" {
		t.Errorf("verdict of three pods: %v", err)
	}
	if err := verdict(pods[:1], 2); err == nil || err.Error() != "2 records could not be read" {
		t.Errorf("verdict with records that cannot be read: %v", err)
	}
}

func TestFilterAndChoosePods(t *testing.T) {
	t.Parallel()
	pods := append(somePods(), inspect.Pod{Namespace: "other", Name: "web", ContainerID: "aaaabbbbccccdddd", State: inspect.Gone},
		inspect.Pod{Namespace: "other", Name: "web", ContainerID: "aaaaeeeeffff", State: inspect.Failed})
	tests := map[string]struct {
		namespace, name string
		found           int
		chosen          string
		says            string
	}{
		"all":                          {found: 5},
		"all of a namespace":           {namespace: "shop", found: 2},
		"one of a namespace":           {namespace: "shop", name: "web", found: 1, chosen: "0123456789abcdef0123"},
		"by its whole name":            {name: "shop/db", found: 1, chosen: "fedcba9876543210fedc"},
		"by container":                 {name: "fedcba", found: 1, chosen: "fedcba9876543210fedc"},
		"the sandbox that is there":    {name: "other/web", found: 2, chosen: "aaaaeeeeffff"},
		"a name that is several pods'": {name: "web", says: "name one as shop/web or other/web"},
		"too little of a container ID": {name: "fedcb", says: "no pod fedcb is on record"},
		"a name of another namespace":  {namespace: "shop", name: "other/web", says: "no pod other/web of namespace shop"},
		"a sandbox that is gone":       {name: "000011", found: 1, says: "is gone"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := filterPods(pods, tc.namespace, tc.name)
			if len(found) != tc.found || (tc.found > 0) != (err == nil) {
				t.Errorf("filterPods = %d pods, %v; want %d", len(found), err, tc.found)
			}
			if tc.name == "" {
				return
			}
			chosen, err := choosePod(pods, tc.namespace, tc.name)
			switch {
			case tc.says != "":
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("choosePod = %v; want an error that says %q", err, tc.says)
				}
			case err != nil:
				t.Error(err)
			case chosen.ContainerID != tc.chosen:
				t.Errorf("choosePod = %s; want %s", chosen.ContainerID, tc.chosen)
			}
		})
	}
}

func TestChooseInterface(t *testing.T) {
	t.Parallel()
	web := &somePods()[0]
	for name, says := range map[string]string{"eth0": "", "lo": "", "net1": "name one of eth0, wg0", "x": "name one of eth0, wg0"} {
		if err := chooseInterface(web, name); (err == nil) != (says == "") || (err != nil && !strings.Contains(err.Error(), says)) {
			t.Errorf("chooseInterface %s = %v; want %q", name, err, says)
		}
	}
	unseen := &inspect.Pod{Name: "web", Problems: []string{"not permitted"}}
	if err := chooseInterface(unseen, "eth0"); err == nil || !strings.Contains(err.Error(), "not permitted") {
		t.Errorf("chooseInterface of a pod that cannot be looked at = %v", err)
	}
	if err := chooseInterface(&somePods()[1], "net1"); err == nil || !strings.Contains(err.Error(), "plexusctl status -o wide shop/db") {
		t.Errorf("chooseInterface of a pod without any = %v", err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tests := map[string]struct {
		conf string
		want settings
		says string
	}{
		"keys":                             {conf: `{"name":"n","plugins":[{"type":"plexus","cniDir":"/s","logFile":"/l"},{"type":"other","cniDir":"/x"}]}`, want: settings{stateDir: "/s", logFile: "/l"}},
		"defaults":                         {conf: `{"name":"n","plugins":[{"type":"plexus"}]}`, want: settings{stateDir: "/var/lib/cni/plexus"}},
		"a plugin by itself":               {conf: `{"name":"n","type":"plexus","logFile":"/l"}`, want: settings{stateDir: "/var/lib/cni/plexus", logFile: "/l"}},
		"one that plexusd writes":          {conf: `{"name":"n","plugins":[{"type":"plexus","daemonSocketDir":"/run/plexus"}]}`, want: settings{stateDir: "/var/lib/cni/plexus", generated: true}},
		"no configuration":                 {conf: `{`, says: "--conf"},
		"a key of another kind":            {conf: `{"name":"n","plugins":[{"type":"plexus","cniDir":7}]}`, says: "--conf"},
		"a file that is not there, though": {says: "--conf"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := nodeOptions{conf: filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))}
			if tc.conf != "" {
				write(t, o.conf, tc.conf)
			}
			got, err := o.settings()
			if (err == nil) != (tc.says == "") || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Fatalf("settings: %v; want %q", err, tc.says)
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(settings{})); tc.says == "" && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRenderTrace(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time { return time.Date(2026, 3, 4, 5, 6, 7, ms*1e6, time.UTC) }
	tr := &traced{
		Pod: "shop/web", LogFile: "/var/log/plexus.log",
		Events: []inspect.Event{
			{Time: at(0), Pod: "shop/web", ContainerID: "0123456789abcdef", Verb: "ADD", Took: 1234 * time.Millisecond, Failed: true, Text: "no link\x1b[0m"},
			{Time: at(1), ContainerID: "0123456789abcdef", Text: "undo what an earlier ADD of this sandbox left"},
			{Time: at(2), ContainerID: "0123456789abcdef", Failed: true, Text: "unlock error=no"},
			{
				Time: at(3), Pod: "shop/web", ContainerID: "short", Verb: "ADD", Took: 56789 * time.Microsecond,
				Steps: []inspect.Step{{Name: "lookup", Took: 123456}, {Name: "attach eth0", Took: 55 * time.Millisecond}, {Name: "note", Text: "x"}},
			},
		},
		Records: somePods()[1:2],
	}
	var b bytes.Buffer
	if err := renderTrace(&b, tr, paint{}); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "trace", b.Bytes())
}

func TestTraceFindsThePod(t *testing.T) {
	t.Parallel()
	pods := somePods()
	for name, tc := range map[string]struct {
		namespace, name string
		events          []string // their pods
		want            string
		records         int
		says            string
	}{
		"on record":                     {name: "web", events: []string{"shop/web", ""}, want: "shop/web", records: 1},
		"on record, by container":       {name: "fedcba", want: "shop/db", records: 1},
		"only in the log, by namespace": {namespace: "other", name: "web", want: "other/web"},
		"only in the log, by name":      {name: "old", events: []string{"", "shop/old", "shop/old"}, want: "shop/old"},
		"in the log, in two namespaces": {name: "old", events: []string{"shop/old", "other/old"}, says: "name one as shop/old or other/old"},
		"nowhere":                       {name: "nobody", want: "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, err := newTraced(pods, tc.namespace, tc.name)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range tc.events {
				tr.Events = append(tr.Events, inspect.Event{Pod: p})
			}
			err = tr.settle()
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("settle = %v; want an error that says %q", err, tc.says)
				}
				return
			}
			if err != nil || tr.Pod != tc.want || len(tr.Records) != tc.records {
				t.Errorf("pod %q with %d records, %v; want %q with %d", tr.Pod, len(tr.Records), err, tc.want, tc.records)
			}
		})
	}
}

func TestStatsShows(t *testing.T) {
	t.Parallel()
	rates := []inspect.Rate{{Name: "eth0", Rx: inspect.Flow{BitsPerSecond: 1234567, PacketsPerSecond: 12.4, Dropped: 3}, Tx: inspect.Flow{BitsPerSecond: 9.9e9, Errors: 1}}}
	var b bytes.Buffer
	if err := rateTable(&somePods()[0], rates).write(&b, paint{}); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "stats", b.Bytes())
	for v, want := range map[float64]string{
		0: "0", 0.4: "0", 7: "7", 999.4: "999", 999.6: "1.00k", 9994: "9.99k", 9996: "10.0k", 99_960: "100k", 999_600: "1.00M", 12_345_678: "12.3M", 5e11: "500G", 2e12: "2T",
	} {
		if got := short(v); got != want {
			t.Errorf("short(%v) = %s; want %s", v, got, want)
		}
	}
	sample := inspect.Sample{Time: time.Unix(0, 0), Stats: []netdev.LinkStats{{Name: "net1", Rx: netdev.Counters{Bytes: 1, Packets: 2, Errors: 3, Dropped: 4}, RxMissed: 5}}}
	want := counters{
		Pod: "shop/web", ContainerID: "0123456789abcdef0123", NetNS: "/run/netns/cni-1", Time: sample.Time,
		Interfaces: []interfaceCounters{{Name: "net1", Network: "shop/fast", Rx: direction{1, 2, 3, 4}, RxMissed: 5}},
	}
	if diff := cmp.Diff(want, countersOf(&somePods()[0], sample), cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNodeCommandsRefuseBadFlags(t *testing.T) {
	t.Parallel()
	for args, says := range map[string]string{
		"status a b":                   "plexusctl status takes at most 1 argument, not 2: usage: plexusctl status [POD] [flags]; see `plexusctl status --help`",
		"status -o xml":                `--output "xml": use table, wide, json, yaml, dot, svg`,
		"trace":                        "takes 1 argument, not 0",
		"trace web -o yaml":            "use table or json",
		"trace web --last 0":           "use 1 to 10000",
		"capture web":                  "takes at least 2 arguments, not 1: usage: plexusctl capture POD INTERFACE [FILTER...]",
		"capture web eth0 tcp prt 1":   `invalid filter: "prt" is not expected there`,
		"capture web eth0 -w - -c 0":   "--count 0: use 1 to",
		"capture web eth0 -w - -d 0s":  "--duration 0s",
		"capture web eth0 -w - -d 25h": "at most 24h",
		"capture web eth0 -w - -s 13":  "--snaplen 13: use 14 to 262144",
		"stats web -o wide":            "use table or json",
		"stats web -o json --count 2":  "omit --interval and --count",
		"stats web --interval 1ms":     "--interval 1ms: use 100ms to",
		"stats web --count=-1":         "--count -1",
		"status --conf /nowhere/x":     "--conf",
		"status --root /nowhere/x":     "--root /nowhere/x",
		"status -A -n shop":            "[all-namespaces namespace] were all set",
		"status --wide":                "unknown flag: --wide: see `plexusctl status --help`",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			cmd := Command(Environment{})
			cmd.SetArgs(strings.Fields(args))
			cmd.SetOut(&bytes.Buffer{})
			cmd.SetErr(&bytes.Buffer{})
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("error %v; want one that says %q", err, says)
			}
		})
	}
}
