// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/install"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
	"github.com/plexus-cni/plexus/nad"
)

// conf and daemon parse what a test is sure of.
func conf(t *testing.T, text string) *File {
	t.Helper()
	f, err := ParseConf("conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func daemon(t *testing.T, text string) *File {
	t.Helper()
	f, err := ParseDaemon("daemon", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestReports migrates whole nodes, and lets Plexus read what came of it.
func TestReports(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, root  string
		target      Target
		manifestDir string
		objects     bool
	}{
		{name: "thin, every key, on Kubernetes", root: "thin", target: Kubernetes, objects: true},
		{name: "thin, every key, plain", root: "thin", target: Plain},
		{name: "thin, plain, with manifests", root: "thin", target: Plain, manifestDir: "/etc/plexus/manifests"},
		{name: "thick, as the quickstart has it", root: "thick", target: Kubernetes, objects: true},
		{name: "thick, as OpenShift has it", root: "openshift", target: Kubernetes},
		{name: "thin without Kubernetes", root: "bare", target: Plain},
		{name: "a list with a plugin behind Multus", root: "chain", target: Plain},
		{name: "a list with a plugin behind Multus, on Kubernetes", root: "chain", target: Kubernetes},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join("testdata", tc.root)
			found, err := Find(root)
			if err != nil {
				t.Fatal(err)
			}
			in := Input{Conf: found.Conf, Daemon: found.Daemon, Target: tc.target, Root: root, ManifestDir: tc.manifestDir}
			var objects *Objects
			if tc.objects {
				objects = readObjects(t)
			}
			r, err := NewReport(in, objects)
			if err != nil {
				t.Fatal(err)
			}
			accepted(t, r)
			var text bytes.Buffer
			enc := json.NewEncoder(&text)
			enc.SetIndent("", "  ")
			enc.SetEscapeHTML(false)
			if err := enc.Encode(r); err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, tc.name, text.Bytes())
		})
	}
}

func readObjects(t *testing.T) *Objects {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "objects.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects := &Objects{}
	if err := objects.Parse("objects.yaml", data); err != nil {
		t.Fatal(err)
	}
	return objects
}

// accepted lets plexusd, or the container runtime, and then the plugin read a configuration.
func accepted(t *testing.T, r *Report) {
	t.Helper()
	if r.Configuration == nil {
		t.Error("there is no configuration")
		return
	}
	data := []byte(r.Configuration)
	if r.Target == Kubernetes {
		dir := t.TempDir()
		primary := `{"name": "cbr0", "cniVersion": "1.0.0", "plugins": [{"type": "flannel"}]}`
		if err := os.WriteFile(filepath.Join(dir, "10-flannel.conflist"), []byte(primary), 0o644); err != nil {
			t.Fatal(err)
		}
		extra, err := install.ParseExtra(data)
		if err != nil {
			t.Errorf("plexusd does not take %s: %v", data, err)
			return
		}
		if _, err = (install.Conf{Dir: dir, SocketDir: plexusSocketDir, Extra: extra}).Write(); err != nil {
			t.Errorf("plexusd does not take %s: %v", data, err)
			return
		}
		if data, err = os.ReadFile(filepath.Join(dir, install.ConfName)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := nad.Normalize(data, nad.Defaults{})
	if err != nil {
		t.Errorf("a runtime does not take %s: %v", data, err)
		return
	}
	var conf struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		t.Fatal(err)
	}
	i := slices.Index(list.Types(), config.PluginType)
	if i < 0 {
		t.Errorf("no plugin of Plexus in %s", data)
		return
	}
	if _, err := config.Parse(conf.Plugins[i]); err != nil {
		t.Errorf("Plexus does not take %s: %v", conf.Plugins[i], err)
	}
}

// TestKeys checks what becomes of one key.
func TestKeys(t *testing.T) {
	t.Parallel()
	thin := func(rest string) string { return `{"type": "multus", "delegates": [{"type": "bridge"}], ` + rest + `}` }
	for name, tc := range map[string]struct {
		conf, daemon string
		target       Target
		key          string
		want         Key // without File
		finding      string
	}{
		"the socket of Multus' daemon does not become that of plexusd, whose key has its name": {
			conf: thin(`"daemonSocketDir": "/run/multus/socket"`), target: Kubernetes, key: "daemonSocketDir",
			want: Key{Became: Ignored, Why: "the socket of Multus' daemon; in Plexus this key names plexusd's socket, and plexusd sets it"},
		},
		"a path of the daemon's container becomes that on the node": {
			daemon: `{"confDir": "/host/etc/cni/multus/net.d"}`, target: Kubernetes, key: "confDir",
			want: Key{Became: Changed, To: "confDir", Value: json.RawMessage(`"/etc/cni/multus/net.d"`), Why: "it was the path in the container of Multus' daemon; this is the node's"},
		},
		"so does one under the daemon's chroot": {
			daemon: `{"chrootDir": "/node/", "binDir": "/node/usr/lib/cni"}`, target: Kubernetes, key: "binDir",
			want: Key{Became: Changed, To: "binDir", Value: json.RawMessage(`"/usr/lib/cni"`), Why: "it was the path in the container of Multus' daemon; this is the node's"},
		},
		"a path of the thin plugin is one of the node whatever it is called": {
			conf: thin(`"binDir": "/host/bin"`), target: Plain, key: "binDir",
			want: Key{Became: Kept, To: "binDir", Value: json.RawMessage(`"/host/bin"`)},
		},
		"the state of Multus is not Plexus' own": {
			conf: thin(`"cniDir": "/data/multus"`), target: Plain, key: "cniDir",
			want: Key{Became: Renamed, To: "legacyCNIDir", Value: json.RawMessage(`"/data/multus"`), Why: "Multus keeps its state there; Plexus keeps its own in /var/lib/cni/plexus"},
		},
		"the daemon's value counts before the plugin's": {
			conf: `{"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-a.conf", "logLevel": "debug"}`, daemon: `{"logLevel": "error"}`, target: Kubernetes, key: "logLevel",
			want: Key{Became: Ignored, Why: "the daemon's configuration has another value, which takes precedence"},
		},
		"a master that Multus' daemon was told is the default network": {
			daemon: `{"multusMasterCNI": "10-a.conf", "multusAutoconfigDir": "/host/etc/cni/net.d"}`, target: Kubernetes, key: "multusMasterCNI",
			want: Key{Became: Renamed, To: "clusterNetwork", Value: json.RawMessage(`"/etc/cni/net.d/10-a.conf"`), Why: "it was the path in the container of Multus' daemon; this is the node's"},
		},
		"a relative path is refused": {
			conf: thin(`"logFile": "multus.log"`), target: Plain, key: "logFile",
			want: Key{Became: Refused, Why: `logFile "multus.log"`}, finding: ConfKeyRefused,
		},
		"a value of another type is refused": {
			conf: thin(`"namespaceIsolation": "true"`), target: Plain, key: "namespaceIsolation",
			want: Key{Became: Refused, Why: "namespaceIsolation: a JSON string stands where true or false is expected"}, finding: ConfKeyRefused,
		},
		"a default network that is no string is refused": {
			conf: thin(`"clusterNetwork": 7`), target: Plain, key: "clusterNetwork",
			want: Key{Became: Refused, Why: "clusterNetwork is not a string"}, finding: ConfKeyRefused,
		},
		"Multus in Multus is refused": {
			conf: `{"type": "multus", "delegates": [{"type": "multus"}]}`, target: Plain, key: "delegates",
			want: Key{Became: Refused, Why: "delegates[0] is of the meta-plugin multus, which is not a network"}, finding: ConfKeyRefused,
		},
		"a key that nobody knows is told": {
			conf: thin(`"namespaceIsolaton": true`), target: Plain, key: "namespaceIsolaton",
			want: Key{Became: Ignored, Why: "neither Multus nor Plexus knows it"}, finding: ConfKeyUnknown,
		},
		"a key in another case is the key": {
			conf: thin(`"NAMESPACEISOLATION": true`), target: Plain, key: "namespaceIsolation",
			want: Key{Became: Kept, To: "namespaceIsolation", Value: json.RawMessage(`true`)},
		},
		"a chain of plugins needs the default network's path": {
			conf: thin(`"auxiliaryCNIChainName": "chain"`), target: Plain, key: "auxiliaryCNIChainName",
			want: Key{Became: Kept, To: "auxiliaryCNIChainName", Value: json.RawMessage(`"chain"`)}, finding: ConfInvalid,
		},
		"a default network outside of what plexusd mounts is told": {
			conf: `{"type": "multus", "clusterNetwork": "/run/x/10-a.conf"}`, target: Kubernetes, key: "clusterNetwork",
			want: Key{Became: Kept, To: "clusterNetwork", Value: json.RawMessage(`"/run/x/10-a.conf"`)}, finding: ConfKeyChanged,
		},
		"a kubeconfig of Multus is told": {
			conf: thin(`"kubeconfig": "/k"`), target: Plain, key: "kubeconfig",
			want: Key{Became: Kept, To: "kubeconfig", Value: json.RawMessage(`"/k"`)}, finding: ConfKeyChanged,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := Input{Target: tc.target, Root: t.TempDir()}
			if tc.conf != "" {
				in.Conf = conf(t, tc.conf)
			}
			if tc.daemon != "" {
				in.Daemon = daemon(t, tc.daemon)
			}
			tr, err := Translate(in)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(tr.Keys, func(k Key) bool { return k.Key == tc.key })
			if i < 0 {
				t.Fatalf("nothing is said of %q: %+v", tc.key, tr.Keys)
			}
			got := tr.Keys[i]
			got.Key, got.File = "", ""
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.key, diff)
			}
			found := ""
			if len(tr.Findings) > 0 {
				found = tr.Findings[0].Code
			}
			if found != tc.finding {
				t.Errorf("first finding %q, want %q: %+v", found, tc.finding, tr.Findings)
			}
		})
	}
}

// TestDefaultNetwork checks when the default network is left to plexusd, which follows its file.
func TestDefaultNetwork(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("etc/cni/net.d/00-plexus.conflist", `{"cniVersion": "1.0.0", "name": "plexus", "plugins": [{"type": "plexus", "clusterNetwork": "/etc/cni/net.d/10-a.conf"}]}`)
	put("etc/cni/net.d/10-a.conf", `{"cniVersion": "1.0.0", "name": "a", "type": "bridge"}`)
	put("etc/cni/net.d/20-b.conf", `{"cniVersion": "1.0.0", "name": "b", "type": "bridge"}`)
	for name, tc := range map[string]struct {
		conf   string
		target Target
		want   string // the configuration
	}{
		"the file that plexusd finds":  {`{"type": "multus", "clusterNetwork": "/etc/cni/net.d/10-a.conf"}`, Kubernetes, `{}`},
		"another file":                 {`{"type": "multus", "clusterNetwork": "/etc/cni/net.d/20-b.conf"}`, Kubernetes, `{"clusterNetwork":"/etc/cni/net.d/20-b.conf"}`},
		"a copy of what plexusd finds": {`{"type": "multus", "delegates": [{"name": "a", "type": "bridge"}]}`, Kubernetes, `{}`},
		"an inline network of its own": {`{"type": "multus", "delegates": [{"name": "c", "type": "bridge"}]}`, Kubernetes, `{"delegates":[{"name":"c","type":"bridge"}]}`},
		"several inline networks":      {`{"type": "multus", "delegates": [{"name": "a", "type": "bridge"}, {"name": "c", "type": "ptp"}]}`, Kubernetes, `{"delegates":[{"name":"a","type":"bridge"},{"name":"c","type":"ptp"}]}`},
		"a name":                       {`{"type": "multus", "clusterNetwork": "a"}`, Kubernetes, `{"clusterNetwork":"a"}`},
		"the file of Plexus, which Multus' daemon took for a network": {`{"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/00-plexus.conflist"}`, Kubernetes, `{}`},
		"that file, in a plain install":                               {`{"cniVersion": "1.0.0", "name": "n", "type": "multus", "clusterNetwork": "/etc/cni/net.d/00-plexus.conflist"}`, Plain, `{"cniVersion":"1.0.0","name":"n","plugins":[{"clusterNetwork":"/etc/cni/net.d/10-a.conf","type":"plexus"}]}`},
		"none, in a plain install":                                    {`{"type": "multus"}`, Plain, `{"cniVersion":"0.3.1","name":"multus-cni-network","plugins":[{"clusterNetwork":"/etc/cni/net.d/10-a.conf","type":"plexus"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, err := Translate(Input{Conf: conf(t, tc.conf), Target: tc.target, Root: root})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(tr.Configuration); got != tc.want {
				t.Errorf("configuration %s, want %s; findings %+v", got, tc.want, tr.Findings)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		parse func(string, []byte) (*File, error)
		in    string
		says  string
	}{
		"nothing":                           {ParseConf, "", "it is empty"},
		"no JSON":                           {ParseConf, "{\"type\": ", "file: invalid manifest: document 1"},
		"a list of values":                  {ParseConf, "[]", "not a JSON object"},
		"null":                              {ParseConf, "null", "not a JSON object"},
		"two documents":                     {ParseConf, "{}\n---\n{}", "more than one document"},
		"another plugin":                    {ParseConf, `{"type": "bridge"}`, `its type is not "multus" or "multus-shim"`},
		"a type that is no string":          {ParseConf, `{"type": 7}`, `its type is not "multus"`},
		"a list without Multus":             {ParseConf, `{"plugins": [{"type": "bridge"}]}`, "none of its plugins"},
		"a list with two of it":             {ParseConf, `{"plugins": [{"type": "multus"}, {"type": "multus-shim"}]}`, "two plugins of Multus"},
		"plugins that are none":             {ParseConf, `{"plugins": [7]}`, "not an object"},
		"plugins that are no list":          {ParseConf, `{"plugins": {}}`, "plugins is not a list"},
		"a key in two spellings":            {ParseConf, `{"type": "multus", "confDir": "/a", "confdir": "/b"}`, `key "confDir" appears in two spellings`},
		"a plugin's configuration as other": {ParseDaemon, `{"type": "multus-shim"}`, "name it with --conf"},
		"a ConfigMap without the key":       {ParseDaemon, `{"kind": "ConfigMap", "data": {"x": "{}"}}`, `a ConfigMap without key "daemon-config.json"`},
		"more than 4 MiB":                   {ParseConf, `{"type": "` + strings.Repeat("x", config.MaxBytes) + `"}`, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tc.parse("file", []byte(tc.in))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want an ErrInvalid that says %q", err, tc.says)
			}
		})
	}
}

func TestParseConfigMap(t *testing.T) {
	t.Parallel()
	f := daemon(t, "kind: ConfigMap\napiVersion: v1\ndata:\n  daemon-config.json: |\n    {\"chrootDir\": \"/hostroot\", \"socketDir\": \"/host/run/multus/\"}\n")
	if got := string(f.Keys["socketDir"]); got != `"/host/run/multus/"` {
		t.Errorf("socketDir is %s", got)
	}
	f = conf(t, `{"kind": "ConfigMap", "data": {"cni-conf.json": "{\"type\": \"multus\", \"clusterNetwork\": \"a\"}"}}`)
	if f.Type != typeThin {
		t.Errorf("type %q", f.Type)
	}
}

func TestFindWithoutMultus(t *testing.T) {
	t.Parallel()
	found, err := Find(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Found{}, found); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if _, err := Translate(Input{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("nothing at all: %v", err)
	}
}

// TestObjects checks forms of input that the golden files do not have.
func TestObjects(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in   string
		pods int
		nads int
		says string
	}{
		"items of a typed list need no kind": {in: `{"kind": "PodList", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}`, pods: 2},
		"several documents":                  {in: "kind: Pod\nmetadata: {name: a}\n---\nkind: NetworkAttachmentDefinition\nmetadata: {name: net}\n", pods: 1, nads: 1},
		"other kinds are left alone":         {in: `{"kind": "List", "items": [{"kind": "Service"}, {"kind": "ConfigMap", "items": 7}]}`},
		"no YAML":                            {in: "\t{", says: "document 1"},
		"a list in a list":                   {in: `{"kind": "List", "items": [{"kind": "List"}]}`, says: "a list in a list"},
		"a broken list":                      {in: `{"kind": "PodList", "items": 7}`, says: "broken list"},
		"text":                               {in: "hello", says: "not a Kubernetes object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &Objects{}
			err := o.Parse("file", []byte(tc.in))
			if (err == nil) != (tc.says == "") || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Fatalf("error %v, want one that says %q", err, tc.says)
			}
			if len(o.pods) != tc.pods || len(o.refs) != tc.nads {
				t.Errorf("%d pods and %d networks, want %d and %d", len(o.pods), len(o.refs), tc.pods, tc.nads)
			}
		})
	}
}

// TestDevices checks networks of a resource against what pods ask the node for.
func TestDevices(t *testing.T) {
	t.Parallel()
	const networks = `{"kind": "NetworkAttachmentDefinition", "metadata": {"name": "vf", "namespace": "default", "annotations": {"k8s.v1.cni.cncf.io/resourceName": "example.com/vf"}}, "spec": {"config": "{\"cniVersion\": \"1.0.0\", \"type\": \"sriov\"}"}}
---
{"kind": "NetworkAttachmentDefinition", "metadata": {"name": "bound", "namespace": "default", "annotations": {"plexus-cni.io/claim-request": "nics/fast"}}, "spec": {"config": "{\"cniVersion\": \"1.0.0\", \"type\": \"sriov\"}"}}
---
`
	pod := func(selects, spec string) string {
		return networks + `{"kind": "Pod", "metadata": {"name": "p", "annotations": {"k8s.v1.cni.cncf.io/networks": "` + selects + `"}}, "spec": ` + spec + `}`
	}
	for name, tc := range map[string]struct {
		in   string
		want []string
	}{
		"as many as containers ask for": {in: pod("vf, vf", `{"containers": [{"resources": {"limits": {"example.com/vf": "1"}}}, {"resources": {"limits": {"example.com/vf": 1}}}]}`)},
		"one too few":                   {pod("vf, vf", `{"containers": [{"resources": {"limits": {"example.com/vf": "1"}}}]}`), []string{DeviceMissing}},
		"another resource":              {pod("vf", `{"containers": [{"resources": {"limits": {"example.com/other": "1"}}}]}`), []string{DeviceMissing}},
		"nonsense for a number":         {pod("vf", `{"containers": [{"resources": {"limits": {"example.com/vf": {"a": "b"}}}}]}`), []string{DeviceMissing}},
		"a claim may have any":          {in: pod("vf, vf", `{"resourceClaims": [{"name": "nics"}]}`)},
		"the claim that it is bound to": {in: pod("bound", `{"resourceClaims": [{"name": "nics"}]}`)},
		"another claim":                 {pod("bound", `{"resourceClaims": [{"name": "disks"}]}`), []string{DeviceMissing}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			findings, _ := examine(t, tc.in)
			var got []string
			for _, f := range findings {
				got = append(got, f.Code)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%+v", diff, findings)
			}
		})
	}
}

// examine examines manifests for a cluster whose Multus has a default network and nothing else.
func examine(t *testing.T, manifests string) ([]finding.Finding, Counts) {
	t.Helper()
	o := &Objects{}
	if err := o.Parse("file", []byte(manifests)); err != nil {
		t.Fatal(err)
	}
	tr, err := Translate(Input{Conf: conf(t, `{"type": "multus", "clusterNetwork": "/etc/cni/net.d/10-a.conf"}`), Target: Kubernetes, Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return Examine(tr, t.TempDir(), o)
}

func TestSplitMend(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"it is wrong: mend it": {"it is wrong", "mend it"},
		"it is wrong":          {"it is wrong", ""},
		"a: b: write one":      {"a: b", "write one"},
		`x is missing: add "capabilities": {"a": 1}`:  {"x is missing", `add "capabilities": {"a": 1}`},
		`name "a: b" is odd (see: there): correct it`: {`name "a: b" is odd (see: there)`, "correct it"},
		"":                       {"", ""},
		`no end of "quote: here`: {`no end of "quote: here`, ""},
	} {
		if text, mend := splitMend(in); text != want[0] || mend != want[1] {
			t.Errorf("splitMend(%q) = %q, %q, want %q", in, text, mend, want)
		}
	}
}

// FuzzTranslate holds that any two files become a configuration that Plexus takes, or none.
func FuzzTranslate(f *testing.F) {
	for _, pattern := range []string{"00-multus.conf", "00-multus.conflist"} {
		files, err := filepath.Glob(filepath.Join("testdata", "*", "etc", "cni", "net.d", pattern))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			// Not every install has a daemon.
			daemon, err := os.ReadFile(filepath.Join(filepath.Dir(file), "multus.d", "daemon-config.json"))
			if err != nil {
				daemon = nil
			}
			f.Add(data, daemon, true)
			f.Add(data, []byte(`{}`), false)
		}
	}
	f.Add([]byte(`{"type":"multus","delegates":[{"type":"a","\ud800":"\u0000"}]}`), []byte(`{"logLevel":null}`), true)
	f.Fuzz(func(t *testing.T, confText, daemonText []byte, kubernetes bool) {
		in := Input{Target: Plain, Root: filepath.Join("testdata", "thin")}
		if kubernetes {
			in.Target = Kubernetes
		}
		var confErr, daemonErr error
		in.Conf, confErr = ParseConf("conf", confText)
		in.Daemon, daemonErr = ParseDaemon("daemon", daemonText)
		for _, err := range []error{confErr, daemonErr} {
			if err != nil && !errors.Is(err, ErrInvalid) {
				t.Fatalf("error of another kind: %v", err)
			}
		}
		if confErr != nil {
			in.Conf = nil
		}
		if daemonErr != nil {
			in.Daemon = nil
		}
		r, err := NewReport(in, nil)
		if err != nil {
			if in.Conf != nil || in.Daemon != nil {
				t.Fatal(err)
			}
			return
		}
		if r.Configuration == nil {
			if r.Findings.Count(finding.Error) == 0 {
				t.Fatal("no configuration, and nothing that is refused")
			}
			return
		}
		if !json.Valid(r.Configuration) {
			t.Fatalf("no JSON: %s", r.Configuration)
		}
		if in.Target == Plain {
			accepted(t, r)
		} else if _, err := install.ParseExtra(r.Configuration); err != nil {
			t.Fatalf("plexusd does not take %s: %v", r.Configuration, err)
		}
	})
}

// FuzzObjects holds that every pod that is read is counted, whatever it asks for, and every finding says what to do.
func FuzzObjects(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "objects.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"kind":"List","items":[{"kind":"Pod","metadata":{"name":"a","annotations":{"k8s.v1.cni.cncf.io/networks":"[{\"name\":\"n\",\"ips\":[\"::1\"]}]"}}},{"kind":"NetworkAttachmentDefinition","metadata":{"name":"n","namespace":"default"},"spec":{"config":"{}"}}]}`))
	f.Add([]byte("kind: Pod\nmetadata: {name: a, annotations: {v1.multus-cni.io/default-network: x}}\nspec: {containers: [{resources: {limits: {a/b: 1e9}}}]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := &Objects{}
		if o.Parse("file", data) != nil {
			return
		}
		tr, err := Translate(Input{Conf: conf(t, `{"type": "multus", "clusterNetwork": "a", "namespaceIsolation": true, "defaultNetworks": ["storage", "/x/y"]}`), Target: Kubernetes, Root: "testdata/thin"})
		if err != nil {
			t.Fatal(err)
		}
		findings, counts := Examine(tr, "testdata/thin", o)
		if counts.Pods != len(o.pods) || counts.Networks != len(o.refs) || counts.PodsRefused > counts.PodsWithRequests {
			t.Errorf("counts %+v of %d pods and %d networks", counts, len(o.pods), len(o.refs))
		}
		for _, finding := range findings {
			if finding.Code == "" || finding.Object == "" || finding.Text == "" {
				t.Errorf("a finding that says nothing: %+v", finding)
			}
		}
	})
}
