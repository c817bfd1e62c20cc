// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/testenv"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

func ref(namespace, name string) pod.Ref { return pod.Ref{Namespace: namespace, Name: name} }

func TestPick(t *testing.T) {
	t.Parallel()
	all := []pod.Ref{ref("default", "web"), ref("default", "db"), ref("shop", "web"), ref("shop", "default")}
	tests := map[string]struct {
		names   []string
		chosen  []pod.Ref
		missing []string
		says    string
	}{
		"a name that one pod has":           {names: []string{"db"}, chosen: []pod.Ref{ref("default", "db")}},
		"namespace and name":                {names: []string{"shop/web"}, chosen: []pod.Ref{ref("shop", "web")}},
		"in the order of the names":         {names: []string{"shop/web", "db"}, chosen: []pod.Ref{ref("shop", "web"), ref("default", "db")}},
		"each pod once":                     {names: []string{"db", "default/db", "db"}, chosen: []pod.Ref{ref("default", "db")}},
		"a name of no pod":                  {names: []string{"db", "x"}, chosen: []pod.Ref{ref("default", "db")}, missing: []string{"x"}},
		"a name of a pod in two namespaces": {names: []string{"web"}, says: "default/web or shop/web"},
		"a namespace is not a name":         {names: []string{"shop"}, missing: []string{"shop"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := pick(all, tc.names)
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("pick = %v; want an error that says %q", err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.chosen, got.pods); diff != "" {
				t.Errorf("chosen (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.missing, got.missing); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNetNSPath(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		name string
		pods int
		want string
		says string
	}{
		"none":                       {pods: 3},
		"a name":                     {name: "blue", pods: 1, want: "/run/netns/blue"},
		"a path":                     {name: "/proc/42/ns/net", pods: 1, want: "/proc/42/ns/net"},
		"a path out of the folder":   {name: "../../etc/passwd", pods: 1, says: "absolute path"},
		"the folder itself":          {name: ".", pods: 1, says: "absolute path"},
		"for more than one pod":      {name: "blue", pods: 2, says: "for one pod"},
		"a dot in the name is a dot": {name: "v1.2", pods: 1, want: "/run/netns/v1.2"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := netnsPath(tc.name, tc.pods)
			switch {
			case tc.says == "" && (err != nil || got != tc.want):
				t.Errorf("netnsPath = %q, %v; want %q", got, err, tc.want)
			case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)):
				t.Errorf("netnsPath = %v; want an error that says %q", err, tc.says)
			}
		})
	}
}

func TestPrepareConf(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		conf, want, says string
	}{
		"manifestDir is set and the rest kept": {
			conf: `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"plexus","manifestDir":"/old","delegates":[{"type":"bridge"}],"x":1.5},{"type":"tuning"}]}`,
			want: `{"cniVersion":"1.0.0","name":"n","plugins":[{"cniDir":"/state","delegates":[{"type":"bridge"}],"manifestDir":"/pods","type":"plexus","x":1.5},{"type":"tuning"}]}`,
		},
		"sources that would come first are dropped": {
			conf: `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"plexus","daemonSocketDir":"/run/plexus","kubeconfig":"/k"}]}`,
			want: `{"cniVersion":"1.0.0","name":"n","plugins":[{"cniDir":"/state","manifestDir":"/pods","type":"plexus"}]}`,
		},
		"a state folder becomes cniDir": {
			conf: `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"plexus","cniDir":"/old"}]}`,
			want: `{"cniVersion":"1.0.0","name":"n","plugins":[{"cniDir":"/state","manifestDir":"/pods","type":"plexus"}]}`,
		},
		"a bare plugin becomes a list": {
			conf: `{"cniVersion":"1.0.0","name":"n","type":"plexus"}`,
			want: `{"cniVersion":"1.0.0","name":"n","plugins":[{"cniDir":"/state","cniVersion":"1.0.0","manifestDir":"/pods","name":"n","type":"plexus"}]}`,
		},
		"a configuration of another plugin": {conf: `{"cniVersion":"1.0.0","name":"n","type":"bridge"}`, says: `no plugin of type "plexus"`},
		"no JSON":                           {conf: `{`, says: "invalid configuration"},
		"null":                              {conf: `null`, says: "invalid configuration"},
		"nothing":                           {conf: ``, says: "invalid configuration"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := prepareConf([]byte(tc.conf), "/pods", "/state")
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("prepareConf = %s, %v; want an error that says %q", got, err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzPrepareConf: what is accepted is a configuration list that libcni takes and whose Plexus has its manifests in the folder.
func FuzzPrepareConf(f *testing.F) {
	for _, seed := range []string{
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"plexus","delegates":[{"type":"bridge"}]},{"type":"tuning"}]}`,
		`{"cniVersion":"0.3.1","name":"n","type":"plexus","kubeconfig":"/k"}`, `{"cniVersion":"1.0.0","name":"n","type":"bridge"}`, `null`, `[]`, `{"plugins":[null]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		conf, err := prepareConf(data, "/pods", "/state")
		if err != nil {
			return
		}
		list, err := libcni.NetworkConfFromBytes(conf)
		if err != nil {
			t.Fatalf("%s: %v", conf, err)
		}
		found := 0
		for _, p := range list.Plugins {
			var keys map[string]any
			if err := json.Unmarshal(p.Bytes, &keys); err != nil {
				t.Fatal(err)
			}
			if keys["type"] == "plexus" && keys["manifestDir"] == "/pods" && keys["cniDir"] == "/state" && keys["kubeconfig"] == nil && keys["daemonSocketDir"] == nil {
				found++
			}
		}
		if found == 0 {
			t.Errorf("no Plexus for the folder in %s", conf)
		}
	})
}

func TestReadConfTakesTheGivenOneThenTheFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	given := filepath.Join(dir, "given.conflist")
	write(t, given, "given")
	if _, _, err := readConf(filepath.Join(dir, "absent"), dir); err == nil || !strings.Contains(err.Error(), "--conf") {
		t.Errorf("a given one that is absent: %v; want an error, and no other in its place", err)
	}
	write(t, filepath.Join(dir, confName), "folder")
	for give, want := range map[string]string{given: "given", "": "folder"} {
		if _, got, err := readConf(give, dir); err != nil || string(got) != want {
			t.Errorf("readConf(%q) = %q, %v; want %q", give, got, err, want)
		}
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	pods := []podStatus{
		{
			Namespace: "default", Name: "web", NetNS: "/run/netns/default-web", ContainerID: "c1",
			Networks: []annotations.Status{
				{
					Name: "cluster-default", Interface: "eth0", IPs: []string{"10.201.0.2", "fd00:201::2"}, MAC: "0a:58:0a:c9:00:02", MTU: 1500,
					Default: true, Gateway: []string{"10.201.0.1", "fd00:201::1"},
				},
				{
					Name: "default/fast", Interface: "net1", MAC: "0a:58:0a:c9:00:03", MTU: 9000,
					DeviceInfo: &annotations.DeviceInfo{Type: "pci", PCI: &annotations.PCIDevice{PCIAddress: "0000:03:02.0"}},
				},
				{Name: "default/größe", Interface: "net2", IPs: []string{"\x1b[31m10.0.0.1"}},
			},
		},
		{Namespace: "default", Name: "none", NetNS: "/run/netns/default-none", ContainerID: "c2"},
	}
	for name, tc := range map[string]struct {
		format string
		colour bool
	}{
		"table":        {format: formatTable},
		"table-colour": {format: formatTable, colour: true},
		"json":         {format: formatJSON},
		"yaml":         {format: formatYAML, colour: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			if err := render(&got, tc.format, pods, tc.colour); err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, name, got.String())
		})
	}
	if err := checkFormat("xml"); err == nil || !strings.Contains(err.Error(), "use table, json or yaml") {
		t.Errorf("checkFormat(xml) = %v; want the formats that there are", err)
	}
}

func TestDeviceInAWord(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]*annotations.DeviceInfo{
		"":           nil,
		"0000:3:2.0": {Type: "pci", PCI: &annotations.PCIDevice{PCIAddress: "0000:3:2.0"}},
		"vdpa0":      {Type: "vdpa", VDPA: &annotations.VDPADevice{ParentDevice: "vdpa0"}},
		"/s.sock":    {Type: "vhost-user", VhostUser: &annotations.VhostUserDevice{Mode: "client", Path: "/s.sock"}},
		"/m.sock":    {Type: "memif", Memif: &annotations.MemifDevice{Path: "/m.sock"}},
		"other":      {Type: "other"},
	} {
		if got := device(d); got != want {
			t.Errorf("device(%+v) = %q; want %q", d, got, want)
		}
	}
}

// TestCommandRefuses is what a user reads who calls it wrong: one line that says how to call it right.
func TestCommandRefuses(t *testing.T) {
	t.Parallel()
	dir, empty := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "pods.yaml"), "kind: Pod\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: {name: b}\n")
	state := filepath.Join(t.TempDir(), "state")
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no folder":              {args: []string{"attach"}, says: "with -f"},
		"a folder that is none":  {args: []string{"attach", "-f", filepath.Join(dir, "absent")}, says: "no such file or directory"},
		"a folder without pods":  {args: []string{"attach", "-f", empty}, says: "no Pod in"},
		"a pod that is not in":   {args: []string{"attach", "-f", dir, "c"}, says: "no Pod c in"},
		"one netns for two pods": {args: []string{"attach", "-f", dir, "--netns", "x"}, says: "is for one pod, not for 2"},
		"an unknown format":      {args: []string{"attach", "-f", dir, "-o", "xml"}, says: "use table, json or yaml"},
		"no configuration":       {args: []string{"attach", "-f", dir, "--conf", filepath.Join(dir, "absent")}, says: "correct --conf"},
		"an unknown command":     {args: []string{"atach"}, says: `unknown command "atach" for "plexusctl": did you mean attach or detach? see `},
		"a beginning of several": {args: []string{"stat"}, says: `did you mean status or stats?`},
		"a command of a command": {args: []string{"nad", "lnt"}, says: `unknown command "lnt" for "plexusctl nad": did you mean lint? see `},
		"one with flags":         {args: []string{"detch", "-f", "x"}, says: `unknown command "detch" for "plexusctl": did you mean detach?`},
		"nothing near":           {args: []string{"frobnicate"}, says: `unknown command "frobnicate" for "plexusctl": see `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := tc.args
			if args[0] == "attach" {
				args = append(args, "--state-dir", state)
			}
			out, err := run(t, args...)
			if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v; want one line that says %q", err, tc.says)
			}
			if out != "" {
				t.Errorf("it printed %q; want nothing beside the error", out)
			}
		})
	}
	t.Cleanup(func() {
		if _, err := os.Lstat(state); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a refused call made its state folder: %v", err)
		}
	})
}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := Command(Environment{Version: "v1.2.3", BinDir: t.TempDir()})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestVersionAndCompletion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "pods.yaml"), "kind: Pod\nmetadata: {name: a, namespace: shop}\n")
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"version":        {args: []string{"version"}, want: "v1.2.3\n"},
		"--version":      {args: []string{"--version"}, want: "v1.2.3\n"},
		"bash":           {args: []string{"completion", "bash"}, want: "__start_plexusctl"},
		"pods of -f":     {args: []string{"__complete", "attach", "-f", dir, ""}, want: "shop/a\n"},
		"output formats": {args: []string{"__complete", "attach", "-o", ""}, want: "table\njson\nyaml\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, tc.args...)
			if err != nil || !strings.Contains(out, tc.want) {
				t.Errorf("%v; want %q in:\n%s", err, tc.want, out)
			}
		})
	}
}
