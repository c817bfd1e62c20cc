// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// kinds are the types of the objects that may be there; nil ones are read without their fields.
func kinds() map[string]func() any {
	return map[string]func() any{
		"Namespace":                        func() any { return &corev1.Namespace{} },
		"ServiceAccount":                   func() any { return &corev1.ServiceAccount{} },
		"Service":                          func() any { return &corev1.Service{} },
		"DaemonSet":                        func() any { return &appsv1.DaemonSet{} },
		"ClusterRole":                      func() any { return &rbacv1.ClusterRole{} },
		"ClusterRoleBinding":               func() any { return &rbacv1.ClusterRoleBinding{} },
		"ValidatingAdmissionPolicy":        func() any { return &admissionv1.ValidatingAdmissionPolicy{} },
		"ValidatingAdmissionPolicyBinding": func() any { return &admissionv1.ValidatingAdmissionPolicyBinding{} },
		"FlowSchema":                       func() any { return &flowcontrolv1.FlowSchema{} },
		"ResourceQuota":                    func() any { return &corev1.ResourceQuota{} },
		"Role":                             func() any { return &rbacv1.Role{} },
		"RoleBinding":                      func() any { return &rbacv1.RoleBinding{} },
		"SecurityContextConstraints":       nil, // OpenShift's
		"CustomResourceDefinition":         nil,
		"Kustomization":                    nil,
		"Component":                        nil,
	}
}

func TestEachManifestIsSound(t *testing.T) {
	t.Parallel()
	documents := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path == "chart" {
			return fs.SkipDir // templates, which are rendered in deploy/render
		}
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		for _, doc := range split(t, path) {
			documents++
			var head struct{ Kind string }
			if err := yaml.Unmarshal(doc, &head); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			make, ok := kinds()[head.Kind]
			if !ok {
				t.Errorf("%s: kind %q is not expected", path, head.Kind)
			}
			if make != nil {
				if err := yaml.UnmarshalStrict(doc, make()); err != nil {
					t.Errorf("%s: %s: %v", path, head.Kind, err)
				}
			}
		}
		return nil
	})
	if err != nil || documents < 12 {
		t.Errorf("%d documents, %v", documents, err)
	}
}

func TestKustomizationsNameAllFiles(t *testing.T) {
	t.Parallel()
	components, err := filepath.Glob("components/*")
	if err != nil || len(components) < 6 {
		t.Fatalf("components %v, %v", components, err)
	}
	for _, dir := range append([]string{"base", "crd"}, components...) {
		var k struct{ Resources []string }
		if err := yaml.Unmarshal(split(t, filepath.Join(dir, "kustomization.yaml"))[0], &k); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		named := map[string]bool{"kustomization.yaml": true}
		for _, r := range k.Resources {
			named[r] = true
			if _, err := os.Stat(filepath.Join(dir, r)); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
		}
		for _, f := range files {
			if !named[filepath.Base(f)] {
				t.Errorf("%s is in no kustomization", f)
			}
		}
	}
}

func TestTheDaemonHasNoPrivilege(t *testing.T) {
	t.Parallel()
	var ds appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(split(t, "base/daemonset.yaml")[0], &ds); err != nil {
		t.Fatal(err)
	}
	pod := ds.Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Errorf("hostNetwork %v, hostPID %v, hostIPC %v; want the first alone", pod.HostNetwork, pod.HostPID, pod.HostIPC)
	}
	if pod.PriorityClassName == "" || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("priority class %q, seccomp %+v", pod.PriorityClassName, pod.SecurityContext.SeccompProfile)
	}
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Fatalf("%d containers, %d of them at the start; want one", len(pod.Containers), len(pod.InitContainers))
	}
	c := pod.Containers[0]
	yes, no, root := true, false, int64(0)
	want := &corev1.SecurityContext{
		Privileged: &no, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsUser: &root, RunAsGroup: &root,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	if diff := cmp.Diff(want, c.SecurityContext); diff != "" {
		t.Errorf("security context (-want +got):\n%s", diff)
	}
	i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "GOMEMLIMIT" })
	if i < 0 {
		t.Fatal("no GOMEMLIMIT")
	}
	goLimit, err := resource.ParseQuantity(strings.TrimSuffix(c.Env[i].Value, "B"))
	if limit := c.Resources.Limits.Memory().Value(); err != nil || goLimit.Value() > limit*9/10 || goLimit.Value() < limit/2 {
		t.Errorf("GOMEMLIMIT %s, %v, with a limit of %d bytes", c.Env[i].Value, err, limit)
	}
	if !c.Resources.Limits.Cpu().IsZero() || c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("resources %+v; want requests, and no limit of CPU", c.Resources)
	}
	if c.ReadinessProbe.HTTPGet.Path != "/readyz" || c.LivenessProbe.HTTPGet.Path != "/healthz" {
		t.Errorf("probes %+v, %+v", c.ReadinessProbe.HTTPGet, c.LivenessProbe.HTTPGet)
	}
	var paths []string
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			paths = append(paths, v.HostPath.Path)
		}
	}
	if diff := cmp.Diff([]string{"/run/plexus", "/etc/cni/net.d", "/opt/cni/bin", "/var/lib/kubelet/pod-resources"}, paths); diff != "" {
		t.Errorf("folders of the host (-want +got):\n%s", diff)
	}
	for _, m := range c.VolumeMounts {
		if m.MountPropagation != nil {
			t.Errorf("mount %s propagates", m.Name)
		}
	}
}

func TestTheDaemonMayDoNothingMore(t *testing.T) {
	t.Parallel()
	for file, want := range map[string][]string{
		"base/rbac.yaml": {
			"/pods: get list watch",
			"/pods/status: patch",
			"/events: create patch",
			"k8s.cni.cncf.io/network-attachment-definitions: get list watch",
		},
		"components/dra/rbac.yaml": {
			"resource.k8s.io/resourceclaims: get",
			"resource.k8s.io/resourceslices: list watch",
		},
		"components/dra-status/rbac.yaml": {
			"resource.k8s.io/resourceclaims/status: patch",
			"resource.k8s.io/resourceclaims/driver: associated-node:patch of sriovnetwork.k8snetworkplumbingwg.io",
		},
	} {
		var got []string
		for _, doc := range split(t, file) {
			var role rbacv1.ClusterRole
			if err := yaml.Unmarshal(doc, &role); err != nil {
				t.Fatal(err)
			}
			for _, r := range role.Rules {
				for _, resource := range r.Resources {
					text := strings.Join(r.APIGroups, ",") + "/" + resource + ": " + strings.Join(r.Verbs, " ")
					if len(r.ResourceNames) > 0 {
						text += " of " + strings.Join(r.ResourceNames, " ")
					}
					got = append(got, text)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rules of %s (-want +got):\n%s", file, diff)
		}
	}
}

// TestUninstallKeepsTheNetworks guards users' networks, which go with their CustomResourceDefinition.
func TestUninstallKeepsTheNetworks(t *testing.T) {
	t.Parallel()
	var crd struct{ Metadata struct{ Name string } }
	if err := yaml.Unmarshal(split(t, "crd/k8s.cni.cncf.io_network-attachment-definitions.yaml")[0], &crd); err != nil {
		t.Fatal(err)
	}
	var k struct{ Patches []struct{ Patch string } }
	if err := yaml.Unmarshal(split(t, "components/uninstall/kustomization.yaml")[0], &k); err != nil {
		t.Fatal(err)
	}
	for _, p := range k.Patches {
		var patch struct {
			Do       string `json:"$patch"`
			Kind     string
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(p.Patch), &patch); err != nil {
			t.Fatal(err)
		}
		if patch.Do == "delete" && patch.Kind == "CustomResourceDefinition" && patch.Metadata.Name == crd.Metadata.Name && crd.Metadata.Name != "" {
			return
		}
	}
	t.Error("the component uninstall does not leave out the CustomResourceDefinition: to delete it would delete all networks")
}

func TestTheAdmissionPoliciesAreAboutTheDaemon(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"base/admission.yaml", "components/dra-status/admission.yaml"} {
		for pair := range slices.Chunk(split(t, file), 2) {
			checkAdmission(t, pair)
		}
	}
}

func checkAdmission(t *testing.T, docs [][]byte) {
	t.Helper()
	var policy admissionv1.ValidatingAdmissionPolicy
	var binding admissionv1.ValidatingAdmissionPolicyBinding
	if err := yaml.UnmarshalStrict(docs[0], &policy); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(docs[1], &binding); err != nil {
		t.Fatal(err)
	}
	var ds appsv1.DaemonSet
	if err := yaml.Unmarshal(split(t, "base/daemonset.yaml")[0], &ds); err != nil {
		t.Fatal(err)
	}
	// In any namespace: a kustomization's does not reach into expressions.
	_, pattern, _ := strings.Cut(policy.Spec.MatchConditions[0].Expression, "request.userInfo.username.matches('")
	who, err := regexp.Compile(strings.TrimSuffix(pattern, "')"))
	if err != nil {
		t.Fatal(err)
	}
	account := ds.Spec.Template.Spec.ServiceAccountName
	for user, about := range map[string]bool{
		"system:serviceaccount:" + ds.Namespace + ":" + account: true, "system:serviceaccount:cni-system:" + account: true,
		"system:serviceaccount:cni-system:not-" + account: false, "system:node:" + account: false, account: false,
	} {
		if who.MatchString(user) != about {
			t.Errorf("policy %s is about user %s: %v, want %v", policy.Name, user, !about, about)
		}
	}
	if binding.Spec.PolicyName != policy.Name || *policy.Spec.FailurePolicy != admissionv1.Fail {
		t.Errorf("binding of %q, failure policy %q", binding.Spec.PolicyName, *policy.Spec.FailurePolicy)
	}
}

// split returns the YAML documents of a file.
func split(t *testing.T, path string) [][]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var docs [][]byte
	for doc := range bytes.SplitSeq(append([]byte("\n"), data...), []byte("\n---\n")) {
		if len(bytes.TrimSpace(doc)) > 0 {
			docs = append(docs, doc)
		}
	}
	return docs
}
