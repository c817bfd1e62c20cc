// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/cel/environment"
)

// policy is an admission policy, compiled in the API server's own environment of expressions.
type policy struct {
	t      *testing.T
	about  []cel.Program
	values map[string]cel.Program
	rules  map[string][]cel.Program // by message
}

func compile(t *testing.T, doc object) policy {
	t.Helper()
	// The oldest release that has the node in the token of a service account.
	base, err := environment.MustBaseEnvSet(version.MajorMinor(1, 30)).Env(environment.NewExpressions)
	if err != nil {
		t.Fatal(err)
	}
	var variables []cel.EnvOption
	for _, name := range []string{"object", "oldObject", "request", "variables"} {
		variables = append(variables, cel.Variable(name, cel.DynType))
	}
	env, err := base.Extend(variables...)
	if err != nil {
		t.Fatal(err)
	}
	program := func(entry any) cel.Program {
		t.Helper()
		expression := at(t, entry, "expression").(string)
		ast, issues := env.Compile(expression)
		if issues.Err() != nil {
			t.Fatalf("%s: %v", expression, issues.Err())
		}
		p, err := env.Program(ast)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := policy{t: t, values: map[string]cel.Program{}, rules: map[string][]cel.Program{}}
	for _, c := range at(t, doc, "spec", "matchConditions").([]any) {
		p.about = append(p.about, program(c))
	}
	for _, v := range at(t, doc, "spec", "variables").([]any) {
		p.values[at(t, v, "name").(string)] = program(v)
	}
	for _, v := range at(t, doc, "spec", "validations").([]any) {
		message := at(t, v, "message").(string)
		p.rules[message] = append(p.rules[message], program(v))
	}
	return p
}

// review is a request as admission sees it.
type review struct {
	user, node, operation, subResource string
	object, old                        object
}

// refuses are the messages of all rules that a request breaks; none if the policy is not about it.
func (p policy) refuses(r review) []string {
	p.t.Helper()
	extra := object{}
	if r.node != "" {
		extra["authentication.kubernetes.io/node-name"] = []any{r.node}
	}
	request := object{"operation": r.operation, "userInfo": object{"username": r.user, "extra": extra}}
	if r.subResource != "" {
		request["subResource"] = r.subResource
	}
	in := map[string]any{"request": request, "object": r.object, "oldObject": nil}
	if r.old != nil {
		in["oldObject"] = r.old
	}
	for _, c := range p.about {
		out, _, err := c.Eval(in)
		if err != nil {
			p.t.Fatal(err)
		}
		if out.Value() != true {
			return nil
		}
	}
	values := object{}
	for name, program := range p.values {
		out, _, err := program.Eval(in)
		if err != nil {
			p.t.Fatalf("variable %s: %v", name, err)
		}
		values[name] = out
	}
	in["variables"] = values
	var broken []string
	for message, rules := range p.rules {
		for _, rule := range rules {
			// What can not be evaluated is refused: failurePolicy is Fail.
			if out, _, err := rule.Eval(in); err != nil || out.Value() != true {
				broken = append(broken, message)
			}
		}
	}
	return broken
}

const daemon = "system:serviceaccount:plexus-system:plexusd"

// with is a copy of an object in which a field, given by its path with dots, is another; nil takes it out.
func with(t *testing.T, o object, path string, value any) object {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var c object
	if err = json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	parent := c
	steps := strings.Split(path, ".")
	for _, step := range steps[:len(steps)-1] {
		if _, ok := parent[step].(object); !ok {
			parent[step] = object{}
		}
		parent = parent[step].(object)
	}
	if last := steps[len(steps)-1]; value == nil {
		delete(parent, last)
	} else {
		parent[last] = value
	}
	return c
}

func TestEventsThatTheDaemonMayTell(t *testing.T) {
	t.Parallel()
	p := compile(t, kustomize(t, Overlay{})["ValidatingAdmissionPolicy plexusd-events"])
	event := object{
		"metadata":           object{"name": "web.1", "namespace": "default"},
		"involvedObject":     object{"kind": "Pod", "apiVersion": "v1", "namespace": "default", "name": "web"},
		"source":             object{"component": "plexusd", "host": "n1"},
		"reportingComponent": "plexusd", "reportingInstance": "", "reason": "AddedInterface", "count": 1,
	}
	create := func(path string, value any) review {
		r := review{user: daemon, node: "n1", operation: "CREATE", object: event}
		if path != "" {
			r.object = with(t, event, path, value)
		}
		return r
	}
	update := func(path string, value any) review {
		r := create(path, value)
		r.operation, r.old = "UPDATE", event
		return r
	}
	elsewhere := create("", nil)
	elsewhere.node = ""
	otherNamespace := create("source.component", "kubelet")
	otherNamespace.user = "system:serviceaccount:cni-system:plexusd"
	kubelet := create("source.component", "kubelet")
	kubelet.user = "system:node:n1"
	ofAnother := update("count", 2)
	ofAnother.old = with(t, event, "source.host", "n2")
	taken := update("", nil)
	taken.old = with(t, event, "source.component", "kubelet")
	for name, tc := range map[string]struct {
		r       review
		refused bool
	}{
		"its own":                              {create("", nil), false},
		"as the one-shot lookup sends it":      {create("reportingComponent", nil), false},
		"counted again":                        {update("count", 2), false},
		"of nobody that the policy is about":   {kubelet, false},
		"about no pod":                         {create("involvedObject.kind", "Node"), true},
		"about a pod of another API":           {create("involvedObject.apiVersion", "example.org/v1"), true},
		"in the name of the kubelet":           {create("source.component", "kubelet"), true},
		"reported by the kubelet":              {create("reportingComponent", "kubelet"), true},
		"reported from another node":           {create("reportingInstance", "n2"), true},
		"from another node":                    {create("source.host", "n2"), true},
		"from nowhere":                         {create("source", nil), true},
		"with a token of no node":              {elsewhere, true},
		"with a finalizer":                     {create("metadata.finalizers", []any{"x/y"}), true},
		"with an owner":                        {create("metadata.ownerReferences", []any{object{"name": "x"}}), true},
		"with labels":                          {create("metadata.labels", object{"a": "b"}), true},
		"made another one":                     {update("involvedObject.name", "db"), true},
		"of another node, changed":             {ofAnother, true},
		"of the kubelet, taken":                {taken, true},
		"by an account of the name, elsewhere": {otherNamespace, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := p.refuses(tc.r); (len(got) > 0) != tc.refused {
				t.Errorf("refused for %q, want refused %v", got, tc.refused)
			}
		})
	}
}

func TestPodsThatTheDaemonMayPatch(t *testing.T) {
	t.Parallel()
	p := compile(t, kustomize(t, Overlay{Namespace: "cni-system"})["ValidatingAdmissionPolicy plexusd"])
	pod := object{
		"metadata": object{"name": "web", "namespace": "default", "annotations": object{"a": "b"}, "labels": object{"app": "web"}},
		"spec":     object{"nodeName": "n1"},
		"status":   object{"phase": "Running"},
	}
	patch := func(path string, value any) review {
		return review{user: "system:serviceaccount:cni-system:plexusd", node: "n1", operation: "UPDATE", subResource: "status", object: with(t, pod, path, value), old: pod}
	}
	status := object{"a": "b", "k8s.v1.cni.cncf.io/network-status": "[]"}
	foreign := patch("metadata.annotations", status)
	foreign.node = "n2"
	whole := patch("metadata.annotations", status)
	whole.subResource = ""
	for name, tc := range map[string]struct {
		r       review
		refused bool
	}{
		"the status of its node's pod":   {patch("metadata.annotations", status), false},
		"another annotation":             {patch("metadata.annotations", object{"a": "c"}), true},
		"an annotation taken away":       {patch("metadata.annotations", object{}), true},
		"a label":                        {patch("metadata.labels", object{"app": "x"}), true},
		"the phase":                      {patch("status.phase", "Failed"), true},
		"a finalizer":                    {patch("metadata.finalizers", []any{"x/y"}), true},
		"a pod of another node":          {foreign, true},
		"the pod itself, not its status": {whole, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := p.refuses(tc.r); (len(got) > 0) != tc.refused {
				t.Errorf("refused for %q, want refused %v", got, tc.refused)
			}
		})
	}
}

// TestEachPolicyCompiles has those of the components as well.
func TestEachPolicyCompiles(t *testing.T) {
	t.Parallel()
	docs := kustomize(t, Overlay{Components: []string{"dra", "dra-status"}})
	compiled := 0
	for key := range maps.Keys(docs) {
		if strings.HasPrefix(key, "ValidatingAdmissionPolicy ") {
			compile(t, docs[key])
			compiled++
		}
	}
	if compiled != 3 {
		t.Errorf("%d policies", compiled)
	}
}
