// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"
)

var testDefaults = Defaults{Name: "a", CNIVersion: "1.0.0"}

func TestNormalize(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config, want string
	}{
		"R1 a plugin without name and cniVersion gets both": {
			`{"type":"macvlan"}`,
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"macvlan"}]}`,
		},
		"R3 a list without name and cniVersion gets both": {
			`{"plugins":[{"type":"bridge"},{"type":"tuning"}]}`,
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"},{"type":"tuning"}]}`,
		},
		"a plugin's own name and cniVersion win": {
			`{"cniVersion":"0.3.1","name":"n","type":"macvlan"}`,
			`{"cniVersion":"0.3.1","name":"n","plugins":[{"cniVersion":"0.3.1","name":"n","type":"macvlan"}]}`,
		},
		"a list's own name and cniVersion win": {
			`{"name":"n","cniVersion":"0.4.0","plugins":[{"type":"bridge"}]}`,
			`{"cniVersion":"0.4.0","name":"n","plugins":[{"type":"bridge"}]}`,
		},
		"empty and null name and cniVersion are missing": {
			`{"name":"","cniVersion":null,"plugins":[{"type":"bridge"}]}`,
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"}]}`,
		},
		"unknown fields of a plugin keep their values to the byte": {
			`{"type":"x","big":12345678901234567890123,"e":1.50e+3,"html":"<&>\u00e9\/","null":null,"nested":{"b":1,"a":[1, 2]}}`,
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"big":12345678901234567890123,"e":1.50e+3,"html":"<&>\u00e9\/","nested":{"b":1,"a":[1,2]},"null":null,"type":"x"}]}`,
		},
		"unknown fields of a list and its plugins survive": {
			`{"big":9007199254740993,"plugins":[{"type":"x","big":9007199254740993}]}`,
			`{"big":9007199254740993,"cniVersion":"1.0.0","name":"a","plugins":[{"big":9007199254740993,"type":"x"}]}`,
		},
		"what libcni reads from a list alone is copied up from a plugin": {
			`{"type":"x","disableCheck":true,"disableGC":"True","cniVersions":["0.4.0"],"dns":{"domain":"d"}}`,
			`{"cniVersion":"0.4.0","cniVersions":["0.4.0"],"disableCheck":true,"disableGC":"True","name":"a",` +
				`"plugins":[{"cniVersions":["0.4.0"],"disableCheck":true,"disableGC":"True","dns":{"domain":"d"},"type":"x"}]}`,
		},
		"type wins over plugins": {
			`{"type":"x","plugins":[{"type":"y"}]}`,
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"plugins":[{"type":"y"}],"type":"x"}]}`,
		},
		"an empty type is none": {
			`{"type":"","plugins":[{"type":"y"}]}`,
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"y"}],"type":""}`,
		},
		"a key that comes twice counts once, the last": {
			`{"plugins":[{"type":"../x","type":"y"}]}`,
			`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"y"}]}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := Normalize([]byte(test.config), testDefaults)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(list.Bytes())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if err := checkList(list); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNormalizeRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config, want string
	}{
		"R7 no JSON":                     {"{\n  \"type\": macvlan\n}", "not JSON at line 2, column 11: invalid character 'm'"},
		"R7 a key in two spellings":      {`{"plugins":[{"type":"x"}],"Plugins":[{"type":"y"}]}`, `"Plugins" beside "plugins": it can be taken for either: remove one`},
		"R7 nothing":                     {``, "not JSON at line 1, column 1: unexpected end of JSON input"},
		"R7 truncated":                   {"{\"type\":\n\"macvl", "not JSON at line 2, column 6: unexpected end of JSON input"},
		"R7 trailing garbage":            {`{"type":"x"} y`, "not JSON at line 1, column 14: invalid character 'y' after top-level value"},
		"R7 two objects":                 {`{"type":"x"}{"type":"x"}`, "column 13"},
		"R7 a list":                      {`[{"type":"x"}]`, "not a JSON object"},
		"R7 null":                        {`null`, "not a JSON object"},
		"R7 no UTF-8":                    {"{\"type\":\"x\",\"a\":\"\xff\"}", "not UTF-8"},
		"R7 too large":                   {`{"type":"` + strings.Repeat("x", MaxConfigBytes) + `"}`, "1048587 bytes are too many"},
		"R7 too large once normalised":   {`{"type":"x","a":"` + strings.Repeat("x", MaxConfigBytes-20) + `"}`, "bytes are too many"},
		"R7 too deep":                    {`{"type":"x","a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "more than 100 levels"},
		"R7 too deep once normalised":    {`{"type":"x","a":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + `}`, "more than 100 levels"},
		"neither type nor plugins":       {`{"name":"a"}`, `neither "type" nor "plugins"`},
		"an empty list":                  {`{"plugins":[]}`, `"plugins" is empty`},
		"plugins null":                   {`{"plugins":null}`, `"plugins" is empty`},
		"plugins not a list":             {`{"plugins":{"type":"x"}}`, `"plugins" is no list`},
		"a plugin without type":          {`{"plugins":[{"type":"x"},{"name":"y"}]}`, `plugins[1]: invalid configuration: no "type"`},
		"a first plugin without type":    {`{"plugins":[{},{"type":"x"}]}`, `plugins[0]: invalid configuration: no "type"`},
		"a plugin that is no object":     {`{"plugins":[{"type":"x"},"y"]}`, `plugins[1]: invalid configuration: not a JSON object`},
		"a plugin that is null":          {`{"plugins":[null]}`, `plugins[0]: invalid configuration: not a JSON object`},
		"a type that is a number":        {`{"type":5}`, `"type" is no string but 5`},
		"a second spelling of type":      {`{"type":"x","Type":"../../bin/sh"}`, `key "Type" is "type" in another spelling`},
		"a second spelling, folded":      {`{"type":"x","capabilitie\u017f":{"mac":true}}`, `is "capabilities" in another spelling`},
		"a type that is a path":          {`{"type":"../x"}`, `"type" "../x" is no file name`},
		"a type that is absolute":        {`{"type":"/bin/sh"}`, `"type" "/bin/sh" is no file name`},
		"a type with a backslash":        {`{"type":"..\\x"}`, `is no file name`},
		"a type that is a dot":           {`{"type":"."}`, `"type" "." is no file name`},
		"a type that is two dots":        {`{"type":".."}`, `"type" ".." is no file name`},
		"a type with NUL":                {`{"type":"a\u0000"}`, `is no file name`},
		"a type with white space":        {`{"type":"a b"}`, `is no file name`},
		"a type with odd white space":    {`{"type":"a\u2003b"}`, `is no file name`},
		"a type longer than a file name": {`{"type":"` + strings.Repeat("x", 256) + `"}`, `is no file name`},
		"a name that is a number":        {`{"type":"x","name":7}`, `"name" is no string but 7`},
		"a name that is a path":          {`{"type":"x","name":"../a"}`, `name "../a" is no CNI network name`},
		"a name that is two dots":        {`{"type":"x","name":".."}`, `name ".." is no CNI network name`},
		"a name with a line feed":        {`{"type":"x","name":"a\n"}`, `name "a\n" is no CNI network name`},
		"a name too long for a file":     {`{"type":"x","name":"` + strings.Repeat("n", 175) + `"}`, `has 175 bytes: use 1 to 174`},
		"a huge name, in a short error":  {`{"type":"x","name":"` + strings.Repeat("n", 1<<19) + `"}`, `use 1 to 174`},
		"an unknown cniVersion":          {`{"type":"x","cniVersion":"2.0.0"}`, `cniVersion "2.0.0" is not supported: use one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0`},
		"a cniVersion that never was":    {`{"type":"x","cniVersion":"1.0"}`, `cniVersion "1.0" is not supported`},
		"a cniVersion that is a number":  {`{"type":"x","cniVersion":1.0}`, `"cniVersion" is no string but 1.0`},
		"cniVersions all too new":        {`{"type":"x","cniVersions":["2.0.0"]}`, `none of "cniVersions" is supported`},
		"cniVersions with nonsense":      {`{"type":"x","cniVersions":["1.0.0","x"]}`, `cniVersion "x" is not supported`},
		"cniVersions with an odd one":    {`{"type":"x","cniVersions":["1.0.0","0.9.0"]}`, `cniVersion "0.9.0" is not supported`},
		"cniVersions no list":            {`{"type":"x","cniVersions":"1.0.0"}`, `"cniVersions" is no list of strings`},
		"cniVersions null":               {`{"type":"x","cniVersions":null}`, `"cniVersions" is no list of strings`},
		"cniVersions with null":          {`{"type":"x","cniVersions":[null]}`, `"cniVersions" is no list of strings`},
		"disableCheck no bool":           {`{"type":"x","disableCheck":1}`, `"disableCheck" is 1: write true or false`},
		"disableGC an odd word":          {`{"type":"x","disableGC":"yes"}`, `"disableGC" is "yes": write true or false`},
		"loadOnlyInlinedPlugins null":    {`{"plugins":[{"type":"x"}],"loadOnlyInlinedPlugins":null}`, `"loadOnlyInlinedPlugins" is null: write true or false`},
		"capabilities a list":            {`{"type":"x","capabilities":["mac"]}`, `field "capabilities" of plugin "x" holds array`},
		"a capability that is a string":  {`{"plugins":[{"type":"x"},{"type":"y","capabilities":{"mac":"true"}}]}`, `plugins[1]: invalid configuration: field "capabilities`},
		"ipam a string":                  {`{"type":"x","ipam":"host-local"}`, `field "ipam" of plugin "x" holds string`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := Normalize([]byte(test.config), testDefaults)
			checkError(t, err, ErrInvalid, test.want)
			checkError(t, err, ErrInvalid, `network "a": `)
			if list != nil {
				t.Errorf("got %s beside the error", list.Bytes())
			}
		})
	}
}

func TestNormalizeWithoutDefaultsWantsNameAndVersion(t *testing.T) {
	t.Parallel()
	_, err := Normalize([]byte(`{"type":"x","cniVersion":"1.0.0"}`), Defaults{})
	checkError(t, err, ErrInvalid, `no "name"`)
	_, err = Normalize([]byte(`{"type":"x","name":"a"}`), Defaults{})
	checkError(t, err, ErrInvalid, `no "cniVersion"`)
	_, err = Normalize([]byte(`{"type":"x"}`), Defaults{Name: "..", CNIVersion: "1.0.0"})
	checkError(t, err, ErrInvalid, `name ".." is no CNI network name`)
	_, err = Normalize([]byte(`{"type":"x"}`), Defaults{Name: "a", CNIVersion: "7"})
	checkError(t, err, ErrInvalid, `cniVersion "7" is not supported`)
}

func TestNormalizeAllowsTheLargestAndDeepest(t *testing.T) {
	t.Parallel()
	head, tail := `{"cniVersion":"1.0.0","name":"`+strings.Repeat("n", maxNameBytes)+`","plugins":[{"a":"`, `","type":"x"}]}`
	large := head + strings.Repeat("x", MaxConfigBytes-len(head)-len(tail)) + tail
	deep := `{"cniVersion":"1.0.0","name":"a","plugins":[{"a":` + strings.Repeat("[", 97) + `"[[\"["` + strings.Repeat("]", 97) + `,"type":"x"}]}`
	for name, config := range map[string]string{"large": large, "deep": deep} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := Normalize([]byte(config), Defaults{})
			if err != nil {
				t.Fatal(err)
			}
			if got := list.Bytes(); string(got) != config {
				t.Errorf("%d bytes changed to %d", len(config), len(got))
			}
		})
	}
}

func TestCNIVersionIsTheOneThatLibcniPicks(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]string{
		`{"type":"x"}`:                                                       "1.0.0",
		`{"type":"x","cniVersion":"0.3.1"}`:                                  "0.3.1",
		`{"type":"x","cniVersions":[]}`:                                      "1.0.0",
		`{"type":"x","cniVersions":["0.3.1","0.4.0","0.2.0"]}`:               "0.4.0",
		`{"type":"x","cniVersion":"0.4.0","cniVersions":["0.3.1","1.1.0"]}`:  "1.1.0",
		`{"type":"x","cniVersion":"1.1.0","cniVersions":["0.3.1"]}`:          "1.1.0",
		`{"type":"x","cniVersion":"0.4.0","cniVersions":["1.2.0"]}`:          "0.4.0",
		`{"type":"x","cniVersion":"1.2.0","cniVersions":["1.0.0"]}`:          "1.0.0",
		`{"cniVersions":["0.4.0","10.0.0"],"plugins":[{"type":"x"}]}`:        "0.4.0",
		`{"cniVersion":"","cniVersions":["0.1.0"],"plugins":[{"type":"x"}]}`: "0.1.0",
	} {
		list, err := Normalize([]byte(config), testDefaults)
		if err != nil {
			t.Errorf("%s: %v", config, err)
			continue
		}
		if got := list.CNIVersion(); got != want {
			t.Errorf("%s: got %s, want %s", config, got, want)
		}
	}
}

func TestListTells(t *testing.T) {
	t.Parallel()
	list := mustNormalize(t, `{"name":"n","plugins":[{"type":"bridge","capabilities":{"mac":true,"ips":false}},`+
		`{"type":"tuning","capabilities":{"ips":true,"bandwidth":false}},{"type":"portmap","capabilities":null}]}`)
	if got := list.Name(); got != "n" {
		t.Errorf("name %q", got)
	}
	if diff := cmp.Diff([]string{"bridge", "tuning", "portmap"}, list.Types()); diff != "" {
		t.Errorf("types: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(map[string]bool{"mac": true, "ips": true}, list.Capabilities()); diff != "" {
		t.Errorf("capabilities: -want +got:\n%s", diff)
	}
}

func TestListCannotBeChangedThroughWhatItTells(t *testing.T) {
	t.Parallel()
	list := mustNormalize(t, `{"type":"x","capabilities":{"mac":true}}`)
	want := string(list.Bytes())
	clear(list.Bytes())
	clear(list.Types())
	clear(list.Capabilities())
	if got := string(list.Bytes()); got != want {
		t.Errorf("bytes became %q", got)
	}
	if list.Types()[0] != "x" || !list.Capabilities()["mac"] {
		t.Errorf("became %v, %v", list.Types(), list.Capabilities())
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	list := mustNormalize(t, `{"type":"x"}`)
	before := string(list.Bytes())
	longer, err := list.Append(json.RawMessage(`{"type":"y","n":9007199254740993}`), json.RawMessage(` {"capabilities": {"mac":true}, "type":"z"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"x"},{"n":9007199254740993,"type":"y"},{"capabilities":{"mac":true},"type":"z"}]}`
	if diff := cmp.Diff(want, string(longer.Bytes())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := checkList(longer); err != nil {
		t.Error(err)
	}
	if got := string(list.Bytes()); got != before {
		t.Errorf("the original became %s", got)
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	list := mustNormalize(t, `{"type":"x"}`)
	for raw, want := range map[string]string{
		`{"name":"y"}`:    `append to network "a": plugins[1]: invalid configuration: no "type"`,
		`"y"`:             `not a JSON object`,
		``:                `not JSON`,
		`{"type":"../y"}`: `is no file name`,
		`{"type":"y","a":"` + strings.Repeat("y", MaxConfigBytes/2) + `"},`: `not JSON`,
		`{"type":"y","a":"` + strings.Repeat("y", MaxConfigBytes-20) + `"}`: `bytes are too many`,
	} {
		_, err := list.Append(json.RawMessage(raw))
		checkError(t, err, ErrInvalid, want)
	}
}

func TestEditPlugins(t *testing.T) {
	t.Parallel()
	list := mustNormalize(t, `{"plugins":[{"type":"x","gone":1,"n":9007199254740993},{"type":"y"}]}`)
	before := string(list.Bytes())
	edited, err := list.EditPlugins(func(plugin map[string]json.RawMessage) error {
		delete(plugin, "gone")
		plugin["deviceID"] = json.RawMessage(`"0000:01:00.1"`)
		clear(plugin["n"]) // must not reach the original
		delete(plugin, "n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cniVersion":"1.0.0","name":"a","plugins":[{"deviceID":"0000:01:00.1","type":"x"},{"deviceID":"0000:01:00.1","type":"y"}]}`
	if diff := cmp.Diff(want, string(edited.Bytes())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := string(list.Bytes()); got != before {
		t.Errorf("the original became %s", got)
	}
}

func TestEditPluginsRefuses(t *testing.T) {
	t.Parallel()
	list := mustNormalize(t, `{"plugins":[{"type":"x"},{"type":"y"}]}`)
	boom := errors.New("boom")
	tests := map[string]struct {
		edit func(map[string]json.RawMessage) error
		kind error
		want string
	}{
		"an error of edit": {
			func(map[string]json.RawMessage) error { return boom },
			boom, `edit plugins[0] (x) of network "a": boom`,
		},
		"a value that is no JSON": {
			func(p map[string]json.RawMessage) error { p["a"] = json.RawMessage(`{`); return nil },
			ErrInvalid, `edit plugins[0] (x) of network "a": invalid configuration: not JSON`,
		},
		"a plugin without type": {
			func(p map[string]json.RawMessage) error { delete(p, "type"); return nil },
			ErrInvalid, `no "type"`,
		},
		"a type that is a path": {
			func(p map[string]json.RawMessage) error { p["type"] = json.RawMessage(`"/x"`); return nil },
			ErrInvalid, `is no file name`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := list.EditPlugins(test.edit)
			checkError(t, err, test.kind, test.want)
		})
	}
}

func TestListJSON(t *testing.T) {
	t.Parallel()
	type record struct {
		List *List `json:"list"`
	}
	want := record{mustNormalize(t, `{"type":"x","n":9007199254740993,"capabilities":{"mac":true}}`)}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got record
	if err = json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(List{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	err = json.Unmarshal([]byte(`{"list":{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"../x"}]}}`), &got)
	checkError(t, err, ErrInvalid, "is no file name")
	_, err = json.Marshal(&List{})
	checkError(t, err, ErrInvalid, "empty network configuration list")
}

// A record that was written must be readable, whatever json.Marshal makes of it.
func TestListOfAnySizeCanBeStored(t *testing.T) {
	t.Parallel()
	head, tail := `{"cniVersion":"1.0.0","name":"a","plugins":[{"a":"`, `","type":"x"}]}`
	room := MaxConfigBytes - len(head) - len(tail)
	config := head + strings.Repeat("<", room/6) + tail // "<" is stored as "\u003c"
	list, err := Normalize([]byte(config), Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.MarshalIndent([]*List{list}, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	var got []*List
	if err = json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	_, err = Normalize([]byte(head+strings.Repeat("<", room/6+1)+tail), Defaults{})
	checkError(t, err, ErrInvalid, "bytes are too many")
}

// An accepted configuration holds what a List promises, and stays what it is.
func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{
		`{"type":"macvlan","master":"eth1","ipam":{"type":"host-local"}}`,
		`{"plugins":[{"type":"bridge","capabilities":{"mac":true}},{"type":"tuning"}]}`,
		`{"name":"n","cniVersion":"0.4.0","cniVersions":["1.1.0","9.9.9"],"disableGC":"true","type":"x"}`,
		`{"type":"","plugins":[{"type":"x","type":"y","Type":"z"}],"loadOnlyInlinedPlugins":false}`,
		`{"type":"x","n":123456789012345678901234567890,"s":"<\u2028\ud800>"}`,
		`{"type":"../x"}`, `{"plugins":[]}`, `{"plugins":[null]}`, `null`, `[`, ``,
		`{"type":"x","a":[[[[["]"]]]]]}`,
		`{"plugins":[{"type":"0"}],"Plugins":false}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		list, err := Normalize(config, testDefaults)
		if err != nil {
			checkError(t, err, ErrInvalid, `network "a": `)
			return
		}
		if err := checkList(list); err != nil {
			t.Fatalf("%q: %v", config, err)
		}
	})
}

// checkList checks what a List promises, with the eyes of libcni: by the structs
// that it reads a list into.
func checkList(list *List) error {
	again, err := Normalize(list.Bytes(), Defaults{})
	if err != nil {
		return err
	}
	if !bytes.Equal(again.Bytes(), list.Bytes()) {
		return errors.New("no fixpoint: " + string(list.Bytes()) + " becomes " + string(again.Bytes()))
	}
	var conf types.NetConfList
	if err := json.Unmarshal(list.Bytes(), &struct {
		Name       *string              `json:"name"`
		CNIVersion *string              `json:"cniVersion"`
		Plugins    *[]*types.PluginConf `json:"plugins"`
	}{&conf.Name, &conf.CNIVersion, &conf.Plugins}); err != nil {
		return err
	}
	if conf.Name != list.Name() || checkName(conf.Name) != nil {
		return errors.New("bad name " + strconv.Quote(conf.Name))
	}
	if conf.CNIVersion != list.CNIVersion() || !slices.Contains(version.All.SupportedVersions(), conf.CNIVersion) {
		return errors.New("bad cniVersion " + strconv.Quote(conf.CNIVersion))
	}
	var pluginTypes []string
	for _, plugin := range conf.Plugins {
		pluginTypes = append(pluginTypes, plugin.Type)
		if plugin.Type == "" || strings.ContainsAny(plugin.Type, "/\\\x00 \n") {
			return errors.New("bad type " + strconv.Quote(plugin.Type))
		}
		for capability, on := range plugin.Capabilities {
			if on && !list.Capabilities()[capability] {
				return errors.New("lost capability " + strconv.Quote(capability))
			}
		}
	}
	if len(pluginTypes) == 0 || !slices.Equal(pluginTypes, list.Types()) {
		return errors.New("types differ: " + strings.Join(pluginTypes, ", "))
	}
	return nil
}

func mustNormalize(t *testing.T, config string) *List {
	t.Helper()
	list, err := Normalize([]byte(config), testDefaults)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
