// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
	"github.com/plexus-cni/plexus/nad"
)

// migrateNode runs plexusctl migrate and returns what it prints.
func migrateNode(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := Command(Environment{})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetArgs(append([]string{"migrate"}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// TestMigrationCommandsAreOnes checks the lines of MIGRATION.md that run plexusctl.
func TestMigrationCommandsAreOnes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../MIGRATION.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^(?:kubectl .* \| )?plexusctl ([^#\n]*)`).FindAllStringSubmatch(string(text), -1)
	if len(lines) < 5 {
		t.Fatalf("%d lines found", len(lines))
	}
	for _, line := range lines {
		if err := accepts(Command(Environment{}), strings.Fields(line[1])); err != nil {
			t.Errorf("plexusctl %s: %v", line[1], err)
		}
	}
}

func TestMigrateText(t *testing.T) {
	t.Parallel()
	const testdata = "../migrate/testdata/"
	out, err := migrateNode(t, "", "--root", testdata+"thick", "-f", testdata+"objects.yaml")
	if err == nil || !strings.Contains(err.Error(), "something is refused") {
		t.Errorf("refused pods, and the error is %v", err)
	}
	golden.Compare(t, "migrate-refused", []byte(out))
	out, err = migrateNode(t, "", "--root", testdata+"openshift")
	if err != nil {
		t.Errorf("nothing is refused, and the error is %v", err)
	}
	golden.Compare(t, "migrate", []byte(out))
}

func TestMigrateJSON(t *testing.T) {
	t.Parallel()
	// The configuration by stdin, and a folder of manifests.
	out, err := migrateNode(t, `{"type": "multus", "clusterNetwork": "/etc/cni/net.d/10-a.conf"}`, "--conf", "-", "--for", "plain", "-f", "../../examples/business-and-mgmt", "--root", t.TempDir(), "-o", "json")
	if err != nil {
		t.Error(err)
	}
	var report struct {
		Configuration json.RawMessage
		Examined      struct{ Pods, PodsRefused int }
		Findings      []any
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if report.Configuration == nil || report.Examined.Pods != 2 || report.Examined.PodsRefused != 0 || report.Findings == nil {
		t.Errorf("report %+v", report)
	}
}

func TestMigrateRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"an unknown output":            {[]string{"-o", "xml"}, `--output "xml": use text or json`},
		"an unknown target":            {[]string{"--for", "podman"}, `--for "podman": use kubernetes or plain`},
		"manifests for Kubernetes":     {[]string{"--manifest-dir", "/m"}, "give --for plain"},
		"to write nowhere":             {[]string{"--write"}, "say where to with --out"},
		"a file and no --write":        {[]string{"--out", "x"}, "give --write"},
		"stdin twice":                  {[]string{"--conf", "-", "-f", "-"}, "give it once"},
		"a node without Multus":        {[]string{"--root", "."}, "no configuration of Multus in etc/cni/net.d: name one with --conf"},
		"a file that is not there":     {[]string{"--conf", "nowhere"}, "nowhere"},
		"a folder without manifests":   {[]string{"--root", "../migrate/testdata/thin", "-f", "../migrate/testdata/thin"}, "no file .yaml, .yml or .json"},
		"to write what has no equal":   {[]string{"--conf", "-", "--for", "plain", "--root", ".", "--write", "--out", "x"}, "nothing was written"},
		"an install without a network": {[]string{"--conf", "-", "--root", "."}, "something is refused: 1 error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := migrateNode(t, `{"type": "multus"}`, tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want an error that says %q", err, tc.says)
			}
		})
	}
}

func TestMigrateWrites(t *testing.T) {
	t.Parallel()
	const root = "../migrate/testdata/thin"
	dir := t.TempDir()
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	run := func(args ...string) error {
		t.Helper()
		_, err := migrateNode(t, "", append([]string{"--root", root, "--write"}, args...)...)
		return err
	}
	// Into a folder, by the name that the target has.
	if err := run("--out", dir); err != nil {
		t.Fatal(err)
	}
	if text := read("plugin.json"); !strings.Contains(text, `"namespaceIsolation": true`) {
		t.Errorf("plugin.json: %s", text)
	}
	if err := run("--out", dir, "--for", "plain"); err != nil {
		t.Fatal(err)
	}
	if list, err := nad.Normalize([]byte(read("00-plexus.conflist")), nad.Defaults{}); err != nil || list.Types()[0] != config.PluginType {
		t.Errorf("00-plexus.conflist: %v", err)
	}
	// A whole ConfigMap.
	if err := run("--out", filepath.Join(dir, "plexus.yaml")); err != nil {
		t.Fatal(err)
	}
	var object struct {
		Kind     string
		Metadata struct{ Name, Namespace string }
		Data     map[string]string
	}
	if err := yaml.Unmarshal([]byte(read("plexus.yaml")), &object); err != nil {
		t.Fatal(err)
	}
	if object.Kind != "ConfigMap" || object.Metadata.Name != "plexus" || object.Metadata.Namespace != "plexus-system" || object.Data["plugin.json"] != read("plugin.json") {
		t.Errorf("plexus.yaml: %+v", object)
	}
	// A file that is there stays, also behind a link, unless forced.
	target := filepath.Join(dir, "mine")
	write(t, target, "mine")
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mine", "link"} {
		if err := run("--out", filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), "exists: name another file") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if read("mine") != "mine" {
		t.Error("the file was replaced")
	}
	if err := run("--out", target, "--force"); err != nil || read("mine") != read("plugin.json") {
		t.Errorf("by force: %v", err)
	}
	if err := run("--out", filepath.Join(dir, "no", "folder")); err == nil {
		t.Error("wrote into a folder that is not there")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestMigratedConfigurationAttaches takes a configuration of Multus, and a pod, to a running sandbox and back.
func TestMigratedConfigurationAttaches(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	host, pod, dir := testenv.NetNS(t), testenv.NetNS(t), t.TempDir()
	binDirs := []string{testenv.Build(t, "./cmd/plexus", "./cmd/plexusctl"), testenv.Plugins(t)}
	network := func(name, subnet string) string {
		return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "type": "bridge", "bridge": "br-%s", "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]]}}`,
			name, name, filepath.Join(dir, "leases"), subnet)
	}
	manifests := filepath.Join(dir, "manifests")
	if err := os.Mkdir(manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "10-cluster.conf"), network("cluster", "10.220.0.0/24"))
	write(t, filepath.Join(dir, "00-multus.conf"), fmt.Sprintf(`{
		"cniVersion": "0.4.0", "name": "multus-cni-network", "type": "multus", "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
		"clusterNetwork": %q, "cniDir": %q, "binDir": %q, "namespaceIsolation": true}`, filepath.Join(dir, "10-cluster.conf"), filepath.Join(dir, "multus"), binDirs[1]))
	write(t, filepath.Join(manifests, "all.yaml"), fmt.Sprintf(`kind: Pod
metadata: {name: web, namespace: shop, annotations: {k8s.v1.cni.cncf.io/networks: storage@data}}
---
kind: NetworkAttachmentDefinition
metadata: {name: storage, namespace: shop}
spec: {config: '%s'}
`, network("storage", "10.221.0.0/24")))

	out := filepath.Join(dir, "00-plexus.conflist")
	if text, err := migrateNode(t, "", "--conf", filepath.Join(dir, "00-multus.conf"), "--for", "plain", "--manifest-dir", manifests, "-f", manifests, "--write", "--out", out); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	list, err := nad.Normalize(data, nad.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	// Only the records go elsewhere: the node is not the test's.
	if list, err = list.EditPlugins(func(plugin map[string]json.RawMessage) error {
		return set(plugin, "cniDir", filepath.Join(dir, "plexus"))
	}); err != nil {
		t.Fatal(err)
	}
	conf, err := libcni.ConfListFromBytes(list.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	cni := libcni.NewCNIConfigWithCacheDir(binDirs, filepath.Join(dir, "cache"), nil)
	rt := &libcni.RuntimeConf{ContainerID: "sandbox", NetNS: pod, IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "true"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_INFRA_CONTAINER_ID", "sandbox"},
	}}
	podLinks := func() map[string]string {
		t.Helper()
		links, e := netdev.NewLinux().Links(pod)
		if e != nil {
			t.Fatal(e)
		}
		found := map[string]string{}
		for _, l := range links {
			if l.Name != "lo" {
				found[l.Name] = l.Name
			}
		}
		return found
	}
	testenv.Do(t, host, func() error {
		result, e := cni.AddNetworkList(t.Context(), conf, rt)
		if e != nil {
			return fmt.Errorf("ADD: %w", e)
		}
		got, e := types100.NewResultFromResult(result)
		if e != nil {
			return e
		}
		if len(got.IPs) != 1 || !strings.HasPrefix(got.IPs[0].Address.String(), "10.220.0.") {
			t.Errorf("the runtime was told %v", got.IPs)
		}
		if links := podLinks(); len(links) != 2 || links["eth0"] == "" || links["data"] == "" {
			t.Errorf("the pod has %v", links)
		}
		if e = cni.DelNetworkList(t.Context(), conf, rt); e != nil {
			return fmt.Errorf("DEL: %w", e)
		}
		return nil
	})
	if links := podLinks(); len(links) != 0 {
		t.Errorf("after DEL the pod has %v", links)
	}
	left, err := filepath.Glob(filepath.Join(dir, "plexus", "records", "*.json"))
	if err != nil || len(left) > 0 {
		t.Errorf("after DEL there is %v %v", left, err)
	}
}
