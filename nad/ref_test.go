// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRef(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("a.", 126) + "a"
	tests := map[string]struct {
		in   string
		want Ref
	}{
		"a bare name gets the default namespace": {"a", Ref{"pods", "a"}},
		"a namespace of its own wins":            {"other/c", Ref{"other", "c"}},
		"P16 a name may have dots":               {"a.b-c.d1", Ref{"pods", "a.b-c.d1"}},
		"digits may come first":                  {"1ns/2net", Ref{"1ns", "2net"}},
		"the longest names":                      {strings.Repeat("n", 63) + "/" + longest, Ref{strings.Repeat("n", 63), longest}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseRef(test.in, "pods")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParseRefRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in, defaultNamespace, want string
	}{
		"nothing":                      {"", "pods", `name "" is no RFC 1123 subdomain`},
		"P7 two slashes":               {"a/b/c", "pods", `more than one "/"`},
		"P11 capitals":                 {"A", "pods", `name "A" is no RFC 1123 subdomain`},
		"an empty namespace":           {"/a", "pods", `namespace "" is no RFC 1123 label`},
		"an empty name":                {"ns/", "pods", `name "" is no RFC 1123 subdomain`},
		"no default namespace":         {"a", "", `namespace "" is no RFC 1123 label`},
		"a namespace with a dot":       {"n.s/a", "pods", `namespace "n.s" is no`},
		"a path up":                    {"../a", "pods", `namespace ".." is no`},
		"a name that is a path up":     {"ns/..", "pods", `name ".." is no`},
		"a hyphen at the end":          {"a-", "pods", `name "a-" is no`},
		"a hyphen before a dot":        {"a-.b", "pods", `name "a-.b" is no`},
		"an empty part":                {"a..b", "pods", `name "a..b" is no`},
		"white space":                  {" a", "pods", `name " a" is no`},
		"a line feed at the end":       {"a\n", "pods", `name "a\n" is no`},
		"NUL":                          {"a\x00b", "pods", `name "a\x00b" is no`},
		"a namespace of 64 bytes":      {strings.Repeat("n", 64) + "/a", "pods", "1 to 63"},
		"a name of 254 bytes":          {strings.Repeat("a", 254), "pods", "1 to 253"},
		"a megabyte, in a short error": {strings.Repeat("a", 1<<20), "pods", `a"... is no`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref, err := ParseRef(test.in, test.defaultNamespace)
			checkError(t, err, ErrInvalid, test.want)
			if ref != (Ref{}) {
				t.Errorf("got %v beside the error", ref)
			}
		})
	}
}

func TestRefString(t *testing.T) {
	t.Parallel()
	for want, ref := range map[string]Ref{"ns/a": {"ns", "a"}, "a": {"", "a"}} {
		if got := ref.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRefJSON(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(Ref{Namespace: "ns", Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"namespace":"ns","name":"a"}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// An accepted reference is one again: String and ParseRef are inverse.
func FuzzParseRef(f *testing.F) {
	for _, seed := range []string{"a", "ns/a", "a.b", "a/b/c", "", "/", "../..", "A", "a\x00", "a@b"} {
		f.Add(seed, "default")
	}
	f.Add("a", "")
	f.Fuzz(func(t *testing.T, s, defaultNamespace string) {
		ref, err := ParseRef(s, defaultNamespace)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("not ErrInvalid: %v", err)
			}
			return
		}
		if !IsLabel(ref.Namespace) || !IsSubdomain(ref.Name) {
			t.Fatalf("accepted %q as %#v", s, ref)
		}
		again, err := ParseRef(ref.String(), "unused")
		if err != nil || again != ref {
			t.Fatalf("%#v became %#v, %v", ref, again, err)
		}
	})
}

// checkError fails unless err is of kind, has want in its text, and is one line of
// a readable length.
func checkError(t *testing.T, err, kind error, want string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if !errors.Is(err, kind) {
		t.Errorf("error is not %q: %v", kind, err)
	}
	text := err.Error()
	if !strings.Contains(text, want) {
		t.Errorf("error lacks %q: %s", want, text)
	}
	if strings.Contains(text, "\n") || len(text) > 1000 {
		t.Errorf("error is not one short line: %q", text)
	}
}
