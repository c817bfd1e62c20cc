// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const ownType = "plexus"

func TestFindFile(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files    map[string]string
		want     string
		warnings []string // a part of each
	}{
		"R4 R10 a conf by the name in it, not of it": {
			map[string]string{
				"10-x.conf": `{"name":"a","type":"macvlan"}`,
				"a.conf":    `{"name":"b","type":"bridge"}`,
			},
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"name":"a","type":"macvlan"}]}`, nil,
		},
		"R4 a json file": {
			map[string]string{"10-x.json": `{"name":"a","type":"macvlan"}`},
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"name":"a","type":"macvlan"}]}`, nil,
		},
		"R5 a conflist before a conf": {
			map[string]string{
				"10.conf":     `{"name":"a","type":"conf"}`,
				"90.conflist": `{"name":"a","plugins":[{"type":"conflist"}]}`,
			},
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"conflist"}]}`, nil,
		},
		"R5 then in lexical order": {
			map[string]string{
				"20.conflist": `{"name":"a","plugins":[{"type":"second"}]}`,
				"10.conflist": `{"name":"a","plugins":[{"type":"first"}]}`,
			},
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"first"}]}`, nil,
		},
		"R4 broken files of other networks are skipped with a warning": {
			map[string]string{
				"10.conflist": `{"name":`,
				"20.conf":     `{"name":5,"type":"x"}`,
				"30.conf":     `{"name":"b","type":"../x"}`,
				"40.conf":     `{"type":"x"}`,
				"45.txt":      `not looked at`,
				"50.conf":     `{"name":"a","type":"macvlan"}`,
			},
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"name":"a","type":"macvlan"}]}`,
			[]string{"10.conflist: invalid configuration: not JSON at line 1, column 8", `20.conf: invalid configuration: "name" is no string`},
		},
		"R21 plugins of the directory with its name are appended to a conflist": {
			map[string]string{
				"10.conflist": `{"name":"a","plugins":[{"type":"x"}]}`,
				"a/20.conf":   `{"type":"z"}`,
				"a/10.conf":   `{"type":"y"}`,
			},
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"x"},{"type":"y"},{"type":"z"}]}`, nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, warnings, err := FindFile(writeFiles(t, test.files), "a", Defaults{CNIVersion: "1.0.0"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(list.Bytes())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			checkWarnings(t, warnings, test.warnings)
		})
	}
}

func TestFindFileRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		name  string
		kind  error
		want  string
	}{
		"R8 no such file":                    {map[string]string{"10.conf": `{"name":"b","type":"x"}`}, "a", ErrNotFound, `network "a": not found`},
		"R8 no such directory":               {nil, "a", ErrNotFound, `network "a": not found`},
		"R8 only files that cannot be read":  {map[string]string{"10.conf": `{`}, "a", ErrNotFound, `(1 could not be read)`},
		"a broken file of this name":         {map[string]string{"10.conf": `{"name":"a"}`, "20.conf": `{"name":"a","type":"x"}`}, "a", ErrInvalid, `10.conf: invalid configuration: no "type"`},
		"a broken file in the chain":         {map[string]string{"10.conflist": `{"name":"a","plugins":[{"type":"x"}]}`, "a/10.conf": `{}`}, "a", ErrInvalid, `a/10.conf: invalid configuration: no "type"`},
		"a name that is a path":              {nil, "../a", ErrInvalid, `name "../a" is no CNI network name`},
		"no name, though a file lacks one":   {map[string]string{"10.conf": `{"type":"x"}`}, "", ErrInvalid, `name "" has 0 bytes`},
		"a directory that looks like a conf": {map[string]string{"10.conf/x": ``}, "a", ErrNotFound, `(0 could not be read)`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "absent")
			if test.files != nil {
				dir = writeFiles(t, test.files)
			}
			list, _, err := FindFile(dir, test.name, testDefaults)
			checkError(t, err, test.kind, test.want)
			if list != nil {
				t.Errorf("got %s beside the error", list.Bytes())
			}
		})
	}
}

func TestLoadPath(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files    map[string]string
		path     string
		want     []string // plugin types
		warnings []string // a part of each
	}{
		"R11 the lexically first file of a directory": {
			map[string]string{
				"20.conf":     `{"name":"n","type":"second"}`,
				"10.conflist": `{"name":"n","plugins":[{"type":"first"}]}`,
				"05.txt":      `{"name":"n","type":"not-a-conf"}`,
			},
			"",
			[]string{"first"},
			nil,
		},
		"R11 a file of a directory that is not usable is skipped with a warning": {
			map[string]string{
				"10.conf": `{"name":"n","plugins":[{"type":"no-bare-plugin"}]}`,
				"20.conf": `{`,
				"30.json": `{"name":"n","type":"third"}`,
			},
			"",
			[]string{"third"},
			[]string{`10.conf: invalid configuration: no "type"`, "20.conf: invalid configuration: not JSON"},
		},
		"T6 the plugin's own files in a directory are passed over": {
			map[string]string{
				"00-plexus.conf":     `{"name":"n","type":"plexus"}`,
				"01-plexus.conflist": `{"name":"n","plugins":[{"type":"bridge"},{"type":"plexus"}]}`,
				"10.conf":            `{"name":"n","type":"bridge"}`,
			},
			"",
			[]string{"bridge"},
			nil,
		},
		"R12 a conf": {
			map[string]string{"x.conf": `{"name":"n","type":"macvlan"}`},
			"x.conf",
			[]string{"macvlan"},
			nil,
		},
		"R12 a file with any extension is a bare plugin": {
			map[string]string{"x": `{"name":"n","type":"macvlan"}`},
			"x",
			[]string{"macvlan"},
			nil,
		},
		"R12 a conflist": {
			map[string]string{"x.conflist": `{"name":"n","plugins":[{"type":"bridge"},{"type":"tuning"}]}`},
			"x.conflist",
			[]string{"bridge", "tuning"},
			nil,
		},
		"R12 a type at the top of a conflist counts for nothing": {
			map[string]string{"x.conflist": `{"name":"n","type":"y","plugins":[{"type":"bridge"}]}`},
			"x.conflist",
			[]string{"bridge"},
			nil,
		},
		"R21 a conflist with its subdirectory, in lexical order": {
			map[string]string{
				"x.conflist":   `{"name":"n","plugins":[{"type":"bridge"}]}`,
				"n/20.conf":    `{"type":"second"}`,
				"n/10.conf":    `{"type":"first"}`,
				"n/15.json":    `not looked at`,
				"n/a.conf/dir": `not looked at`,
			},
			"x.conflist",
			[]string{"bridge", "first", "second"},
			nil,
		},
		"R21 a conflist all of whose plugins are in its subdirectory": {
			map[string]string{"x.conflist": `{"name":"n"}`, "n/10.conf": `{"type":"first"}`},
			"x.conflist",
			[]string{"first"},
			nil,
		},
		"R21 not with loadOnlyInlinedPlugins": {
			map[string]string{
				"x.conflist": `{"name":"n","loadOnlyInlinedPlugins":"true","plugins":[{"type":"bridge"}]}`,
				"n/10.conf":  `not looked at`,
			},
			"x.conflist",
			[]string{"bridge"},
			nil,
		},
		"R21 not for a conf": {
			map[string]string{"x.conf": `{"name":"n","type":"bridge"}`, "n/10.conf": `not looked at`},
			"x.conf",
			[]string{"bridge"},
			nil,
		},
		"R11 R21 a conflist found in a directory": {
			map[string]string{"x.conflist": `{"name":"n","plugins":[{"type":"bridge"}]}`, "n/10.conf": `{"type":"first"}`},
			"",
			[]string{"bridge", "first"},
			nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(writeFiles(t, test.files), test.path)
			list, warnings, err := LoadPath(path, ownType, Defaults{CNIVersion: "1.0.0"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, list.Types()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if err := checkList(list); err != nil {
				t.Error(err)
			}
			checkWarnings(t, warnings, test.warnings)
		})
	}
}

func TestLoadPathRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		path  string
		kind  error
		want  string
	}{
		"R13 no such path":                        {nil, "absent", ErrNotFound, `absent: not found: create it`},
		"R13 an empty directory":                  {nil, "", ErrNotFound, `(0 are not usable): install the cluster's network there`},
		"R13 only files that are not usable":      {map[string]string{"10.conf": `{}`}, "", ErrNotFound, `(1 are not usable)`},
		"T6 only the plugin's own file":           {map[string]string{"00.conf": `{"name":"n","type":"plexus"}`}, "", ErrNotFound, `other than plugin "plexus"`},
		"T6 the plugin's own file by name":        {map[string]string{"00.conf": `{"name":"n","type":"plexus"}`}, "00.conf", ErrInvalid, `would call itself for ever`},
		"T6 the plugin itself in the chain":       {map[string]string{"x.conflist": `{"name":"n","plugins":[{"type":"x"}]}`, "n/1.conf": `{"type":"plexus"}`}, "x.conflist", ErrInvalid, `would call itself for ever`},
		"R12 a conf without type":                 {map[string]string{"x.conf": `{"name":"n","plugins":[{"type":"x"}]}`}, "x.conf", ErrInvalid, `x.conf: invalid configuration: no "type"`},
		"R12 a conflist without plugins":          {map[string]string{"x.conflist": `{"name":"n","type":"x"}`}, "x.conflist", ErrInvalid, `"plugins" is empty`},
		"R12 a conflist of inlined plugins only":  {map[string]string{"x.conflist": `{"name":"n","loadOnlyInlinedPlugins":true}`, "n/1.conf": `{"type":"x"}`}, "x.conflist", ErrInvalid, `"plugins" is empty`},
		"R21 a name that leads out of the folder": {map[string]string{"d/x.conflist": `{"name":"../n","plugins":[{"type":"x"}]}`, "n/1.conf": `{"type":"x"}`}, "d/x.conflist", ErrInvalid, `name "../n" is no CNI network name`},
		"R21 a broken file in the chain":          {map[string]string{"x.conflist": `{"name":"n","plugins":[{"type":"x"}]}`, "n/1.conf": `[]`}, "x.conflist", ErrInvalid, `n/1.conf: invalid configuration: not a JSON object`},
		"R21 a chain with a type that is a path":  {map[string]string{"x.conflist": `{"name":"n","plugins":[{"type":"x"}]}`, "n/1.conf": `{"type":"../x"}`}, "x.conflist", ErrInvalid, `n/1.conf: invalid configuration: "type" "../x"`},
		"too large a file":                        {map[string]string{"x.conf": strings.Repeat(" ", MaxConfigBytes+1)}, "x.conf", ErrInvalid, `bytes are too many`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(writeFiles(t, test.files), test.path)
			list, _, err := LoadPath(path, ownType, Defaults{CNIVersion: "1.0.0"})
			checkError(t, err, test.kind, test.want)
			if list != nil {
				t.Errorf("got %s beside the error", list.Bytes())
			}
		})
	}
}

// A reader that opened the FIFO would wait for a writer for ever.
func TestFilesThatAreNotRegularAreNotOpened(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{"20.conf": `{"name":"a","type":"x"}`})
	fifo := filepath.Join(dir, "10.conf")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadPath(fifo, ownType, testDefaults); !errors.Is(err, ErrInvalid) {
		t.Errorf("LoadPath of a FIFO: %v", err)
	}
	for name, load := range map[string]func() (*List, []string, error){
		"FindFile": func() (*List, []string, error) { return FindFile(dir, "a", testDefaults) },
		"LoadPath": func() (*List, []string, error) { return LoadPath(dir, ownType, testDefaults) },
	} {
		_, warnings, err := load()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkWarnings(t, warnings, []string{"10.conf: invalid configuration: not a regular file"})
	}
}

// The files of a mounted ConfigMap are links into a directory that is replaced as a
// whole.
func TestLinksAreFollowed(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{"..data/a": `{"name":"a","type":"x"}`})
	if err := os.Symlink("..data/a", filepath.Join(dir, "20.conf")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..data/absent", filepath.Join(dir, "10.conf")); err != nil {
		t.Fatal(err)
	}
	list, warnings, err := FindFile(dir, "a", testDefaults)
	if err != nil {
		t.Fatal(err)
	}
	if got := list.Types()[0]; got != "x" {
		t.Errorf("got type %q", got)
	}
	checkWarnings(t, warnings, []string{"10.conf: no such file or directory"})
}

func TestAuxiliaryChain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		want  string // "" for none
	}{
		"R22 with files, in lexical order": {
			map[string]string{"aux/20.conf": `{"type":"y"}`, "aux/10.conf": `{"type":"x"}`, "aux/15.json": `not looked at`},
			`{"cniVersion":"1.0.0","name":"aux","plugins":[{"type":"passthru"},{"type":"x"},{"type":"y"}]}`,
		},
		"R22 without files":       {map[string]string{"aux/readme": ``}, ""},
		"R22 without a directory": {nil, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := AuxiliaryChain(writeFiles(t, test.files), "aux", testDefaults)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if list != nil {
				got = string(list.Bytes())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAuxiliaryChainRefuses(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{"aux/10.conf": `{"type":"x"}`, "aux/20.conf": `{}`})
	for chain, want := range map[string]string{
		"aux":    `20.conf: invalid configuration: no "type"`,
		"../aux": `auxiliaryCNIChainName: invalid configuration: name "../aux" is no CNI network name`,
		"..":     `name ".." is no CNI network name`,
		"":       `name "" has 0 bytes`,
	} {
		_, err := AuxiliaryChain(dir, chain, testDefaults)
		checkError(t, err, ErrInvalid, want)
	}
}

// writeFiles writes files, by their relative paths, to a new directory.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// checkWarnings fails unless there are exactly as many warnings as parts, each with
// its part.
func checkWarnings(t *testing.T, warnings, parts []string) {
	t.Helper()
	if len(warnings) != len(parts) {
		t.Fatalf("got %d warnings, want %d: %q", len(warnings), len(parts), warnings)
	}
	for i, part := range parts {
		if !strings.Contains(warnings[i], part) {
			t.Errorf("warning lacks %q: %s", part, warnings[i])
		}
	}
}
