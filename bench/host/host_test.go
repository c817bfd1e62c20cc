// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMemoryIsReadFromTheProcessStatus(t *testing.T) {
	t.Parallel()
	got := parseStatus("Name:\tx\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\nRssAnon:\t   100 kB\nOdd:\nVmSize:\tmany kB\n")
	if diff := cmp.Diff(Memory{RSS: 200, Anon: 100, Peak: 300}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDelegates(t *testing.T) {
	t.Parallel()
	types := func(k Kind) []any {
		var all []any
		for i := range MaxNetworks + 1 {
			all = append(all, k.delegate(i, "/leases")["type"])
		}
		return all
	}
	if diff := cmp.Diff([]any{"bridge", "bridge", "macvlan", "bridge", "macvlan", "bridge", "macvlan", "bridge", "macvlan"}, types(Real)); diff != "" {
		t.Errorf("real ones (-want +got):\n%s", diff)
	}
	if got := types(Noop); slices.ContainsFunc(got, func(t any) bool { return t != "noop" }) {
		t.Errorf("no-op ones: %v", got)
	}
	if got := (Workload{Kind: Real, Networks: 2}).Annotation(); got != "real-1,real-2" {
		t.Errorf("annotation %q", got)
	}
	if got := (Workload{Kind: Real}).Annotation(); got != "" {
		t.Errorf("annotation %q of a pod without networks", got)
	}
}

func TestDefinitionsAreAsManyAsAskedForAndDiffer(t *testing.T) {
	t.Parallel()
	all := definitions("/leases", 100)
	names := map[string]bool{}
	for _, d := range all {
		names[d.Name] = true
		if !json.Valid([]byte(d.Config)) {
			t.Errorf("%s: %s", d.Name, d.Config)
		}
	}
	if len(all) != 100 || len(names) != 100 || !names["real-8"] || !names["noop-8"] {
		t.Errorf("%d definitions with %d names", len(all), len(names))
	}
	if got := len(definitions("/leases", 0)); got != 2*MaxNetworks {
		t.Errorf("%d definitions at least", got)
	}
}

func TestContendersConfigurations(t *testing.T) {
	t.Parallel()
	values := Values{Plugins: "/plugins", Manifests: "/manifests", Kubeconfig: "/kubeconfig"}
	t.Run("the floor calls each delegate", func(t *testing.T) {
		t.Parallel()
		c, err := newContender(Direct, "", nil, values, "/dir", "/leases")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, list := range c.confs[Workload{Kind: Real, Networks: 2}] {
			names = append(names, list.Name)
		}
		if diff := cmp.Diff([]string{"real-0", "real-1", "real-2"}, names); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("others have one, whatever the pod selects", func(t *testing.T) {
		t.Parallel()
		v := values
		v.Source = `"manifestDir": "/manifests"`
		c, err := newContender(Manifests, plexusConf, nil, v, "/dir", "/leases")
		if err != nil {
			t.Fatal(err)
		}
		logging, err := c.Logging(Log{File: "/log", Level: "debug", MaxSizeMB: 1, MaxBackups: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []Workload{{Kind: Noop}, {Kind: Noop, Networks: 8}} {
			plain, logged := string(c.confs[w][0].Plugins[0].Bytes), string(logging.confs[w][0].Plugins[0].Bytes)
			if len(c.confs[w]) != 1 || !strings.Contains(plain, `"noop-0"`) || strings.Contains(plain, "logFile") || !strings.Contains(logged, `"maxBackups":2`) {
				t.Errorf("%s\n%s", plain, logged)
			}
		}
	})
	t.Run("Multus' names what it needs", func(t *testing.T) {
		t.Parallel()
		c, err := newContender("multus", MultusConf, nil, values, "/dir", "/leases")
		if err != nil {
			t.Fatal(err)
		}
		conf := string(c.confs[Workload{Kind: Noop}][0].Plugins[0].Bytes)
		for _, part := range []string{`"type":"multus"`, `"kubeconfig":"/kubeconfig"`, `"binDir":"/plugins"`, `"cniDir":"/dir/multus/state"`, `"noop-0"`} {
			if !strings.Contains(conf, part) {
				t.Errorf("%s has no %s", conf, part)
			}
		}
	})
	t.Run("and are checked before anything is measured", func(t *testing.T) {
		t.Parallel()
		for conf, says := range map[string]string{
			"{{":               "template",
			"{{.Colour}}":      "Colour",
			"not JSON":         "configuration",
			`{"name":"mine"}`:  "plugins",
			`{"plugins":"no"}`: "configuration",
		} {
			if _, err := newContender("mine", conf, nil, values, "/dir", "/leases"); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "mine") {
				t.Errorf("%s: %v, want %q", conf, err, says)
			}
		}
	})
}

func TestNoopPluginAnswers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "noop")
	if err := os.WriteFile(file, []byte(noopPlugin), 0o700); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"ADD": `"sandbox":"/ns"`, "VERSION": "supportedVersions", "DEL": "", "CHECK": ""} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", file)
		cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_IFNAME=eth0", "CNI_NETNS=/ns"}
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), want) || (want != "") != json.Valid(out) {
			t.Errorf("%s: %s, %v", command, out, err)
		}
	}
}

func TestLeftoversAreWhatHoldsSomething(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"leases/net/lock", "leases/net/last_reserved_ip.0", "records/.lock", "boot-id", "source-seen", "slots/.lock", "slots/slots"} {
		writeFile(t, filepath.Join(dir, name))
	}
	if left, err := leftovers(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v of what always stays", left, err)
	}
	writeFile(t, filepath.Join(dir, "leases/net/10.0.0.2"))
	if left, err := leftovers(dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v with a lease", left, err)
	}
	if left, err := leftovers(filepath.Join(dir, "none")); err != nil || left != nil {
		t.Errorf("%v, %v of no folder", left, err)
	}
}

func writeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUIDsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i := range 500 {
		seen[other(i).UID] = true
	}
	if len(seen) != 500 || len(other(0).UID) != 36 {
		t.Errorf("%d UIDs, like %s", len(seen), other(0).UID)
	}
}
