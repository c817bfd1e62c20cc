// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const deploy = ".."

type object = map[string]any

// documents are the objects of a rendered file, by kind and name.
func documents(t *testing.T, data []byte) map[string]object {
	t.Helper()
	found := map[string]object{}
	for doc := range bytes.SplitSeq(append([]byte("\n"), data...), []byte("\n---\n")) {
		var o object
		if err := yaml.Unmarshal(doc, &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if o == nil {
			continue
		}
		key := fmt.Sprint(o["kind"], " ", at(t, o, "metadata", "name"))
		if _, twice := found[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		found[key] = o
	}
	return found
}

// at is what is at a path of fields and places; nil if it is not there.
func at(t *testing.T, value any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			o, _ := value.(object)
			value = o[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}
	return value
}

func kustomize(t *testing.T, o Overlay) map[string]object {
	t.Helper()
	data, err := Kustomize(deploy, o)
	if err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	return documents(t, data)
}

// container is the daemon's.
func container(t *testing.T, docs map[string]object) object {
	t.Helper()
	c, ok := at(t, docs["DaemonSet plexusd"], "spec", "template", "spec", "containers", 0).(object)
	if !ok {
		t.Fatal("the DaemonSet plexusd has no container")
	}
	return c
}

func components(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(deploy, "components"))
	if err != nil || len(entries) < 10 {
		t.Fatalf("components %v, %v", entries, err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// exclusive says of two components that only one may be there.
func exclusive(a, b string) bool {
	distributions := []string{"gke", "k3s", "microk8s", "openshift"}
	pair := []string{a, b}
	slices.Sort(pair)
	return a != b && slices.Contains(distributions, a) && slices.Contains(distributions, b) || slices.Equal(pair, []string{"dra-status", "one-shot"})
}

// TestComponentsGoTogetherInAnyOrder renders each pair both ways: both orders give the same, and plexusd takes what they give it. Those
// that exclude each other are refused by name.
func TestComponentsGoTogetherInAnyOrder(t *testing.T) {
	t.Parallel()
	all := components(t)
	for i, a := range all {
		for _, b := range all[i+1:] {
			t.Run(a+"+"+b, func(t *testing.T) {
				t.Parallel()
				var rendered [][]byte
				for _, order := range [][]string{{a, b}, {b, a}} {
					data, err := Kustomize(deploy, Overlay{Components: order})
					switch {
					case exclusive(a, b):
						if err == nil || !strings.Contains(err.Error(), "excludes") && !strings.Contains(err.Error(), "alone") {
							t.Errorf("%v: %v, want an error that says that they exclude each other", order, err)
						}
						continue
					case slices.Equal(order, []string{"uninstall", "one-shot"}):
						if err == nil {
							t.Error("one-shot takes an uninstallation back")
						}
						continue
					case err != nil:
						t.Errorf("%v: %v", order, err)
						continue
					}
					checkArguments(t, container(t, documents(t, data)))
					rendered = append(rendered, data)
				}
				if len(rendered) == 2 {
					if diff := cmp.Diff(normal(t, rendered[0]), normal(t, rendered[1])); diff != "" {
						t.Errorf("the order counts (-%s first +%s first):\n%s", a, b, diff)
					}
				}
			})
		}
	}
}

// normal is what is rendered, without the order of lists that have none.
func normal(t *testing.T, data []byte) map[string]object {
	t.Helper()
	docs := documents(t, data)
	sortLists(docs)
	return docs
}

func sortLists(docs map[string]object) {
	for _, doc := range docs {
		sortIn(doc)
	}
}

func sortIn(value any) {
	switch v := value.(type) {
	case object:
		for key, field := range v {
			sortIn(field)
			if list, ok := field.([]any); ok && slices.Contains([]string{"env", "volumes", "volumeMounts"}, key) {
				slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
		}
	case []any:
		for _, e := range v {
			sortIn(e)
		}
	}
}

// plexusd is the program that the manifests start.
func plexusd(t *testing.T) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "plexusd-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-C", "../..", "-o", filepath.Join(dir, "plexusd"), "./cmd/plexusd").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build plexusd: %w\n%s", err, out)
	}
	return filepath.Join(dir, "plexusd"), nil
})

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // Helm tells of each link that it follows
	code := m.Run()
	if path, err := buildOnce(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// checkArguments asks plexusd whether it takes arguments and variables of a container, and looks for a mount of each folder.
func checkArguments(t *testing.T, c object) {
	t.Helper()
	var args []string
	for _, a := range c["args"].([]any) {
		args = append(args, a.(string))
	}
	env := map[string]string{"PLEXUSD_CONF_DIR": "/etc/cni/net.d", "PLEXUSD_BIN_DIR": "/opt/cni/bin"}
	for _, e := range c["env"].([]any) {
		if value, ok := at(t, e, "value").(string); ok {
			env[at(t, e, "name").(string)] = value
		}
	}
	// --help comes after all flags are parsed; what is wrong with one goes before it.
	cmd := exec.CommandContext(t.Context(), plexusd(t), append(args, "--help")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("plexusd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for name := range env {
		if flag, ok := strings.CutPrefix(name, "PLEXUSD_"); ok {
			flag = "--" + strings.ReplaceAll(strings.ToLower(flag), "_", "-")
			// A variable is for the command that has the flag; of serve there is none that stands for nothing.
			if !strings.Contains(string(out), flag+" ") && args[0] == "serve" {
				t.Errorf("plexusd %s has no flag %s for variable %s", args[0], flag, name)
			}
		}
	}
	mounts := map[any]bool{}
	for _, m := range c["volumeMounts"].([]any) {
		mounts[at(t, m, "mountPath")] = true
	}
	for _, name := range []string{"PLEXUSD_CONF_DIR", "PLEXUSD_BIN_DIR"} {
		if !mounts[env[name]] {
			t.Errorf("%s is %s, which is not mounted: %v", name, env[name], mounts)
		}
	}
}

// TestFoldersAreMountedWhereTheHostHasThem is the rule by which the configuration can name them.
func TestFoldersAreMountedWhereTheHostHasThem(t *testing.T) {
	t.Parallel()
	for _, name := range append(components(t), "") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o Overlay
			if name != "" {
				o.Components = []string{name}
			}
			docs := kustomize(t, o)
			c := container(t, docs)
			checkArguments(t, c)
			paths := map[any]any{}
			for _, v := range at(t, docs["DaemonSet plexusd"], "spec", "template", "spec", "volumes").([]any) {
				if path := at(t, v, "hostPath", "path"); path != nil {
					paths[at(t, v, "name")] = path
				}
			}
			for _, m := range c["volumeMounts"].([]any) {
				path, ok := paths[at(t, m, "name")]
				// The kubelet's folder may be elsewhere: it is asked, and not named to anybody.
				if ok && path != at(t, m, "mountPath") && at(t, m, "name") != "pod-resources" {
					t.Errorf("folder %s of the host is mounted at %s", path, at(t, m, "mountPath"))
				}
			}
		})
	}
}

// TestRightsHoldInAnyNamespace renders with another namespace: whoever is given rights is who is narrowed.
func TestRightsHoldInAnyNamespace(t *testing.T) {
	t.Parallel()
	for _, namespace := range []string{"", "cni-system"} {
		t.Run(namespace, func(t *testing.T) {
			t.Parallel()
			docs := kustomize(t, Overlay{Components: []string{"dra", "dra-status", "openshift", "metrics"}, Namespace: namespace})
			want := "plexus-system"
			if namespace != "" {
				want = namespace
			}
			bindings, policies := 0, 0
			for key, doc := range docs {
				if strings.HasSuffix(strings.Fields(key)[0], "RoleBinding") {
					bindings++
					for _, s := range at(t, doc, "subjects").([]any) {
						if at(t, s, "namespace") != want || at(t, s, "name") != "plexusd" {
							t.Errorf("%s is for %v, want plexusd in %s", key, s, want)
						}
					}
				}
				if strings.HasPrefix(key, "ValidatingAdmissionPolicy ") {
					policies++
					expression := at(t, doc, "spec", "matchConditions", 0, "expression")
					if expression != "request.userInfo.username.matches('^system:serviceaccount:[^:]+:plexusd$')" {
						t.Errorf("%s is about %v", key, expression)
					}
					name := strings.Fields(key)[1]
					if at(t, docs["ValidatingAdmissionPolicyBinding "+name], "spec", "policyName") != name {
						t.Errorf("%s has no binding", key)
					}
				}
			}
			if bindings != 4 || policies != 3 || at(t, docs["ServiceAccount plexusd"], "metadata", "namespace") != want {
				t.Errorf("%d bindings, %d policies, account %v", bindings, policies, docs["ServiceAccount plexusd"])
			}
		})
	}
}

// TestAnUninstallationHasAllThatWasApplied is about what `kubectl delete -k` would leave.
func TestAnUninstallationHasAllThatWasApplied(t *testing.T) {
	t.Parallel()
	with := []string{"dra", "dra-status", "metrics", "k3s"}
	before := kustomize(t, Overlay{Components: with})
	after := kustomize(t, Overlay{Components: append(with, "uninstall")})
	for key := range before {
		if _, ok := after[key]; !ok && !strings.HasPrefix(key, "CustomResourceDefinition ") {
			t.Errorf("%s would stay", key)
		}
	}
	if _, ok := after["CustomResourceDefinition network-attachment-definitions.k8s.cni.cncf.io"]; ok {
		t.Error("the CustomResourceDefinition would go, and with it all networks of the cluster")
	}
}

// TestTheSelectorNeverChanges: a DaemonSet whose selector is another one can not be applied over the one that is there.
func TestTheSelectorNeverChanges(t *testing.T) {
	t.Parallel()
	for name, docs := range map[string]map[string]object{"kustomize": kustomize(t, Overlay{Components: []string{"metrics"}}), "helm": helm(t, nil, "")} {
		ds := docs["DaemonSet plexusd"]
		if diff := cmp.Diff(object{"app.kubernetes.io/name": "plexus"}, at(t, ds, "spec", "selector", "matchLabels")); diff != "" {
			t.Errorf("%s: selector (-want +got):\n%s", name, diff)
		}
	}
}

func TestManifestsNameTheRelease(t *testing.T) {
	t.Parallel()
	version, err := os.ReadFile("../../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSpace(string(version))
	if got := at(t, kustomize(t, Overlay{})["DaemonSet plexusd"], "metadata", "labels", "app.kubernetes.io/version"); got != want {
		t.Errorf("label app.kubernetes.io/version is %v, VERSION %s", got, want)
	}
	chart, err := os.ReadFile("../chart/Chart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"version: " + want, "appVersion: " + want} {
		if !strings.Contains("\n"+string(chart), "\n"+line+"\n") {
			t.Errorf("Chart.yaml has no line %q", line)
		}
	}
}
