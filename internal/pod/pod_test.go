// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseArgs(t *testing.T) {
	t.Parallel()
	const kube = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u-1"
	web := Ref{Namespace: "ns", Name: "p", UID: "u-1"}
	tests := map[string]struct {
		in   string
		want Args
	}{
		"empty: no pod":                    {"", Args{}},
		"a runtime's usual pairs":          {kube, Args{Pod: web, InfraContainerID: "c1"}},
		"a trailing separator is harmless": {kube + ";", Args{Pod: web, InfraContainerID: "c1"}},
		"C9 a value may contain =":         {kube + ";FOO=a=b", Args{Pod: web, InfraContainerID: "c1", Others: [][2]string{{"FOO", "a=b"}}}},
		"C8 each key once, the last value wins": {
			"A=1;B=2;A=3", Args{Others: [][2]string{{"A", "3"}, {"B", "2"}}},
		},
		"Podman: a name without namespace": {"IgnoreUnknown=1;K8S_POD_NAME=web", Args{Pod: Ref{Namespace: "default", Name: "web"}, NamespaceAssumed: true}},
		"no pod, caller's own keys":        {"MAC=02:00:00:00:00:01", Args{Others: [][2]string{{"MAC", "02:00:00:00:00:01"}}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseArgs(tc.in, "default")
			if err != nil {
				t.Fatalf("ParseArgs(%q): %v", tc.in, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ParseArgs(%q) (-want +got):\n%s", tc.in, diff)
			}
		})
	}
}

func TestParseArgsRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ in, says string }{
		"a pair without =":         {"A=1;nonsense", `"nonsense" is not KEY=VALUE`},
		"an empty key":             {"=1", "is not KEY=VALUE"},
		"a namespace without name": {"K8S_POD_NAMESPACE=ns", "K8S_POD_NAME is missing"},
		"a path as name":           {"K8S_POD_NAMESPACE=../etc;K8S_POD_NAME=p", `K8S_POD_NAMESPACE "../etc"`},
		"a NUL":                    {"A=\x00", "control character"},
		"64 KiB and more":          {strings.Repeat("A=1;", 20000), "at most"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseArgs(tc.in, "default")
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("ParseArgs(%.40q) = %v, want ErrInvalid saying %q", tc.in, err, tc.says)
			}
		})
	}
}

func TestCNIArgsOrder(t *testing.T) {
	t.Parallel()
	args := Args{Pod: Ref{"ns", "p", "u"}, InfraContainerID: "c", Others: [][2]string{{"FOO", "a=b"}}}
	want := [][2]string{
		{"IgnoreUnknown", "true"},
		{"K8S_POD_NAMESPACE", "ns"},
		{"K8S_POD_NAME", "p"},
		{"K8S_POD_INFRA_CONTAINER_ID", "c"},
		{"K8S_POD_UID", "u"},
		{"FOO", "a=b"},
	}
	if diff := cmp.Diff(want, args.CNIArgs()); diff != "" {
		t.Errorf("CNIArgs (-want +got):\n%s", diff)
	}
}

func FuzzParseArgs(f *testing.F) {
	for _, s := range []string{"", ";", "A=1", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;FOO=a=b", "=", "A", "A=\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args, err := ParseArgs(s, "default")
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		// What a delegate is given parses to the same again.
		var b strings.Builder
		for i, kv := range args.CNIArgs() {
			if i > 0 {
				b.WriteByte(';')
			}
			b.WriteString(kv[0] + "=" + kv[1])
		}
		again, err := ParseArgs(b.String(), "default")
		if err != nil {
			t.Fatalf("ParseArgs(%q) of the printed form: %v", b.String(), err)
		}
		args.NamespaceAssumed = false // it is handed on
		if args.Pod.IsZero() {
			args.InfraContainerID = "" // not handed on without a pod
		}
		if diff := cmp.Diff(args, again); diff != "" {
			t.Errorf("printed form differs:\n%s", diff)
		}
	})
}
