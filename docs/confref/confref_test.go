// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestThePageIsCurrent(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "configuration.md")
	if err := run("../..", out); err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	there, err := os.ReadFile("../configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(there), string(made)); diff != "" {
		t.Errorf("docs/configuration.md is not what the code says; run `make generate` (-there +made):\n%s", diff)
	}
}

// source makes a package of some text.
func source(t *testing.T, text string) *folder {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte("package a\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := parseFolder(dir, ".")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestKeys(t *testing.T) {
	t.Parallel()
	f := source(t, `
const (
	dir  = "/a"
	wait = 2 * time.Minute
)
type document struct {
	// What all have.
	base
	// Where. Default: [dir].
	Dir string `+"`json:\"dir,omitempty\"`"+`
	// Which,
	// and more. Default: [dir].
	Dirs []string `+"`json:\"dirs\"`"+`
	// At most [wait].
	Wait *int `+"`json:\"wait\"`"+`
	// On.
	On bool `+"`json:\"on\"`"+`
	// Perhaps on.
	Perhaps *bool `+"`json:\"perhaps\"`"+`
	// More.
	More more `+"`json:\"more\"`"+`
	// Runtime's.
	Runtime struct {
		// The MAC.
		MAC string `+"`json:\"mac\"`"+`
	} `+"`json:\"runtimeConfig\"`"+`
}
type more struct {
	// Raw.
	Raw []json.RawMessage `+"`json:\"raw\"`"+`
}
`)
	got, err := f.keys("document")
	if err != nil {
		t.Fatal(err)
	}
	want := []key{
		{Meaning: "What all have."},
		{Name: "dir", Type: "string", Default: `"/a"`, Meaning: "Where."},
		{Name: "dirs", Type: "list of strings", Default: `["/a"]`, Meaning: "Which, and more."},
		{Name: "wait", Type: "number", Meaning: "At most 120."},
		{Name: "on", Type: "true or false", Default: "false", Meaning: "On."},
		{Name: "perhaps", Type: "true or false", Meaning: "Perhaps on."},
		{Name: "more", Type: "object", Meaning: "More."},
		{Name: "more.raw", Type: "list of objects", Meaning: "Raw."},
		{Name: "runtimeConfig", Type: "object", Meaning: "Runtime's."},
		{Name: "runtimeConfig.mac", Type: "string", Meaning: "The MAC."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	f := source(t, `
type options struct{ dir string }
func (o *options) add(f *pflag.FlagSet) {
	f.StringVar(&o.dir, "dir", kube.Dir, "where")
	f.StringVar(&o.node, "node", os.Getenv("NODE"), "who")
	f.StringVar(&o.own, "own", own(), "whose")
}
// own is where it is. And more.
func own() string { return "" }
type wide struct{ options }
func newA() *cobra.Command {
	o := options{}
	cmd := &cobra.Command{Use: "a FILE"}
	o.add(cmd.Flags())
	return cmd
}
func newB() *cobra.Command {
	var o wide
	cmd := &cobra.Command{Use: "b"}
	o.options.add(cmd.Flags())
	cmd.Flags().IntVar(&o.n, "n", 3, "how many")
	cmd.Flags().TextVar(&o.level, "level", slog.LevelInfo, "how loud")
	return cmd
}
`)
	kube := source(t, `const Dir = "/kube"`)
	kube.name = "kube"
	got, err := f.flags(kube)
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"a", "b"}
	want := []commandFlag{
		{key{"--dir", "string", "/kube", "where"}, both},
		{key{"--node", "string", "$NODE", "who"}, both},
		{key{"--own", "string", "where it is", "whose"}, both},
		{key{"--n", "number", "3", "how many"}, []string{"b"}},
		{key{"--level", "string", "info", "how loud"}, []string{"b"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(commandFlag{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWhatCanNotBeDocumentedIsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, says string }{
		"a key without a comment":       {"type document struct { A string `json:\"a\"` }", "field A"},
		"a key without a tag":           {"type document struct {\n// A.\nA string }", "field A has no tag"},
		"an unknown constant":           {"type document struct {\n// A [b].\nA string `json:\"a\"` }", "no constant b"},
		"a constant that is calculated": {"var b = f()\ntype document struct {\n// A [b].\nA string `json:\"a\"` }", "make it a literal"},
		"no such struct":                {"type other struct{}", "no struct document"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := source(t, tc.text).keys("document"); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want one saying %q", err, tc.says)
			}
		})
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	words := keyWords([]key{{Name: "confDir"}, {Name: "confDirectory"}, {Name: "vlan"}})
	got := markdown(`net<i>, *.conf in confDirectory | "fail", vlan`, words)
	if want := "net&lt;i&gt;, \\*.conf in `confDirectory` \\| `\"fail\"`, vlan"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
