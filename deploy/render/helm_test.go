// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func helm(t *testing.T, values map[string]any, namespace string) map[string]object {
	t.Helper()
	if namespace == "" {
		namespace = "plexus-system"
	}
	data, err := Helm("../chart", namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return documents(t, data)
}

// TestChartAndKustomizationsAreEqual renders both: nothing but the labels by which Helm knows its own differs.
func TestChartAndKustomizationsAreEqual(t *testing.T) {
	t.Parallel()
	type v = map[string]any
	const driver = "sriovnetwork.k8snetworkplumbingwg.io"
	for name, tc := range map[string]struct {
		values v
		with   []string
	}{
		"nothing":           {},
		"k3s":               {v{"distribution": "k3s"}, []string{"k3s"}},
		"microk8s":          {v{"distribution": "microk8s"}, []string{"microk8s"}},
		"gke":               {v{"distribution": "gke"}, []string{"gke"}},
		"openshift":         {v{"distribution": "openshift"}, []string{"openshift"}},
		"one-shot":          {v{"oneShot": true}, []string{"one-shot"}},
		"metrics":           {v{"metrics": v{"enabled": true}}, []string{"metrics"}},
		"inspect":           {v{"inspect": true}, []string{"inspect"}},
		"device-checkpoint": {v{"deviceCheckpoint": true}, []string{"device-checkpoint"}},
		"dac-override":      {v{"dacOverride": true}, []string{"dac-override"}},
		"dra":               {v{"dra": v{"enabled": true}}, []string{"dra"}},
		"dra-status":        {v{"dra": v{"enabled": true, "statusDrivers": []any{driver}}}, []string{"dra", "dra-status"}},
		"uninstall":         {v{"uninstall": true, "distribution": "k3s"}, []string{"k3s", "uninstall"}},
		"much": {
			v{"distribution": "k3s", "metrics": v{"enabled": true}, "inspect": true, "dacOverride": true, "dra": v{"enabled": true, "statusDrivers": []any{driver}}},
			[]string{"k3s", "metrics", "inspect", "dac-override", "dra", "dra-status"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, namespace := range []string{"plexus-system", "cni-system"} {
				values := v{"image": v{"tag": "dev"}}
				maps.Copy(values, tc.values)
				chart := helm(t, values, namespace)
				more := map[string]any{"replacements": flowSchemaFollows()}
				base := kustomize(t, Overlay{Components: tc.with, Namespace: namespace, More: more})
				forget(chart, base)
				if diff := cmp.Diff(base, chart); diff != "" {
					t.Errorf("in %s (-kustomization +chart):\n%s", namespace, diff)
				}
			}
		})
	}
}

// flowSchemaFollows is what docs/install.md tells those to add who choose another namespace.
func flowSchemaFollows() any {
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(page), "replacements:\n")
	text, _, _ := strings.Cut(rest, "```")
	var list any
	if err := yaml.Unmarshal([]byte(text), &list); err != nil {
		return err
	}
	return list
}

// forget takes out what differs on purpose.
func forget(chart, base map[string]object) {
	for key, doc := range base {
		if strings.HasPrefix(key, "Namespace ") { // helm install --create-namespace
			delete(base, key)
		}
		// kustomize gives a namespace also to what has none and what it does not know; the API server takes it out.
		for _, kind := range []string{"FlowSchema", "SecurityContextConstraints", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} {
			if strings.HasPrefix(key, kind+" ") {
				delete(doc["metadata"].(object), "namespace")
			}
		}
		// By these components know each other; the chart has conditions.
		if a, ok := doc["metadata"].(object)["annotations"].(object); ok {
			delete(a, "plexus-cni.io/one-shot-excludes-dra-status")
			delete(a, "plexus-cni.io/one-distribution-alone")
		}
	}
	const crd = "CustomResourceDefinition network-attachment-definitions.k8s.cni.cncf.io"
	if _, ok := base[crd]; !ok { // an uninstallation; Helm leaves it in any case
		delete(chart, crd)
	}
	for _, doc := range chart {
		if labels, ok := doc["metadata"].(object)["labels"].(object); ok {
			for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance"} {
				delete(labels, label)
			}
		}
	}
	sortLists(chart)
	sortLists(base)
}

func TestTheChartRefuses(t *testing.T) {
	t.Parallel()
	type v = map[string]any
	for says, values := range map[string]v{
		"oneShot and dra.statusDrivers exclude each other": {"oneShot": true, "dra": v{"enabled": true, "statusDrivers": []any{"d"}}},
		"dra.statusDrivers needs dra.enabled":              {"dra": v{"statusDrivers": []any{"d"}}},
		"need metrics.enabled":                             {"metrics": v{"podMonitor": v{"enabled": true}}},
		"distribution":                                     {"distribution": "k4s"},
		"imagge":                                           {"imagge": v{}},
		"confDir":                                          {"confDir": "etc/cni"},
	} {
		if _, err := Helm("../chart", "plexus-system", values); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v, want an error that says %q", values, err, says)
		}
	}
}

// TestTheChartsOwn has what only the chart has.
func TestTheChartsOwn(t *testing.T) {
	t.Parallel()
	type v = map[string]any
	docs := helm(t, v{
		"plugin": v{"namespaceIsolation": true}, "logLevel": "debug", "flowSchema": false, "confDir": "/c", "binDir": "/b",
		"image":   v{"repository": "registry.example/plexus", "pullPolicy": "Always", "pullSecrets": []any{v{"name": "s"}}},
		"metrics": v{"enabled": true, "podMonitor": v{"enabled": true, "labels": v{"release": "p"}}, "alerts": v{"enabled": true}},
	}, "cni")
	c := container(t, docs)
	checkArguments(t, c)
	version := at(t, docs["DaemonSet plexusd"], "metadata", "labels", "app.kubernetes.io/version")
	if got, want := c["image"], fmt.Sprint("registry.example/plexus:", version); got != want {
		t.Errorf("image %v, want %s", got, want)
	}
	if got := at(t, docs["ConfigMap plexus"], "data", "plugin.json"); got != "{\n  \"namespaceIsolation\": true\n}" {
		t.Errorf("plugin.json: %v", got)
	}
	for _, key := range []string{"PodMonitor plexusd", "PrometheusRule plexusd"} {
		if at(t, docs[key], "metadata", "namespace") != "cni" {
			t.Errorf("%s: %v", key, docs[key])
		}
	}
	if docs["FlowSchema plexusd"] != nil || at(t, docs["PodMonitor plexusd"], "metadata", "labels", "release") != "p" {
		t.Errorf("FlowSchema %v, labels %v", docs["FlowSchema plexusd"], at(t, docs["PodMonitor plexusd"], "metadata", "labels"))
	}
	notes, err := filepath.Glob("../chart/templates/NOTES.txt")
	if err != nil || len(notes) != 1 {
		t.Errorf("notes %v, %v", notes, err)
	}
}

// TestAlertsAreThoseOfTheDocumentation holds each expression to docs/metrics.md, which is held to the daemon's metrics elsewhere.
func TestAlertsAreThoseOfTheDocumentation(t *testing.T) {
	t.Parallel()
	type v = map[string]any
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## What to alert on")
	docs := helm(t, v{"metrics": v{"enabled": true, "alerts": v{"enabled": true}}}, "")
	rules := at(t, docs["PrometheusRule plexusd"], "spec", "groups", 0, "rules").([]any)
	for _, rule := range rules {
		for part := range strings.SplitSeq(at(t, rule, "expr").(string), " or ") {
			// Which job it is depends on who scrapes.
			if !strings.HasPrefix(part, "up{") && !strings.Contains(table, "`"+part+"`") {
				t.Errorf("alert %v: docs/metrics.md does not have `%s`", at(t, rule, "alert"), part)
			}
		}
		for _, text := range []string{"summary", "description"} {
			if s, _ := at(t, rule, "annotations", text).(string); s == "" || strings.Contains(s, "{{`") {
				t.Errorf("alert %v: %s %q", at(t, rule, "alert"), text, s)
			}
		}
	}
	if rows := strings.Count(table, "\n| ") - 1; len(rules) != rows { // without the head
		t.Errorf("%d alerts, docs/metrics.md has %d", len(rules), rows)
	}
}
