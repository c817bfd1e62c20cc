// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func TestBadAnnotation(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		annotation string
		says       []string
	}{
		"truncated":                      {`[{"name":"a"`, []string{"no valid JSON at byte 12"}},
		"two documents":                  {`[{"name":"a"}][{"name":"b"}]`, []string{"no valid JSON at byte"}},
		"too long":                       {`[{"name":"` + strings.Repeat("a", 300<<10) + `"}]`, []string{"shorten it"}},
		"too many elements, short form":  {strings.Repeat("a,", 5000) + "a", []string{"5001 elements"}},
		"too many elements, JSON form":   {"[" + strings.Repeat(`{"name":"a"},`, 5000) + `{"name":"a"}]`, []string{"5001 elements"}},
		"deeply nested":                  {`[{"name":"a","cni-args":{"x":` + strings.Repeat("[", 50000) + strings.Repeat("]", 50000) + `}}]`, []string{"default/web"}},
		"an element that is a number":    {`[1]`, []string{"element 1", "no object", `{"name":"..."}`}},
		"an element that is null":        {`[null]`, []string{"element 1", "no object"}},
		"a name that is a number":        {`[{"name":1}]`, []string{"element 1", "name", "a string"}},
		"no name":                        {`[{}]`, []string{"element 1", "name is missing"}},
		"ips that are a string":          {`[{"name":"a","ips":"10.2.0.9"}]`, []string{`element 1 ("a")`, "ips", "an array"}},
		"a bandwidth that is a number":   {`[{"name":"a","bandwidth":1}]`, []string{"bandwidth", "an object"}},
		"a bandwidth below zero":         {`[{"name":"a","bandwidth":{"ingressRate":-1,"ingressBurst":1}}]`, []string{"ingressRate -1", "0 or more"}},
		"a port out of range":            {`[{"name":"a","portMappings":[{"hostPort":70000,"containerPort":80}]}]`, []string{"portMappings[0]", "70000", "65535"}},
		"cni-args that are a list":       {`[{"name":"a","cni-args":[1]}]`, []string{"cni-args", "an object"}},
		"a gateway that is none":         {`[{"name":"a","default-route":["nowhere"]}]`, []string{"default-route", `"nowhere"`, "10.1.2.1"}},
		"a name that leads up":           {"..", []string{"element 1", `".."`, "lower-case"}},
		"a name that leads up and away":  {"../../etc/passwd", []string{"element 1", "[namespace/]name[@interface]"}},
		"a namespace that leads up":      {"../a", []string{"element 1", "namespace", `".."`}},
		"an absolute path":               {"/etc/passwd", []string{"element 1", "[namespace/]name[@interface]"}},
		"a path as a name, in JSON":      {`[{"name":"../../etc/passwd"}]`, []string{"element 1", "name", `"../../etc/passwd"`}},
		"a path as a namespace, in JSON": {`[{"name":"a","namespace":"../x"}]`, []string{"namespace", `"../x"`}},
		"NUL in a name":                  {`[{"name":"a\u0000"}]`, []string{"name", `"a\x00"`}},
		"NUL in an interface name":       {`[{"name":"a","interface":"x\u0000y"}]`, []string{"interface", `"x\x00y"`}},
		"a path as an interface name":    {"a@../x", []string{"/"}},
		"a path as an interface, JSON":   {`[{"name":"a","interface":"../x"}]`, []string{"interface", `"../x"`}},
		"a path as a device":             {`[{"name":"a","deviceID":"../../etc/passwd"}]`, []string{"deviceID", `"../../etc/passwd"`}},
		"a path as a claim":              {`[{"name":"a","ipam-claim-reference":"../x"}]`, []string{"ipam-claim-reference", `"../x"`}},
		"lo as an interface name":        {"a@lo", []string{"interface", `"lo"`, "reserved"}},
		"a dot as an interface name":     {"a@.", []string{"interface", `"."`, "reserved"}},
		"two dots as an interface name":  {"a@..", []string{"interface", `".."`, "reserved"}},
		"a template as interface name":   {"a@net%d", []string{"interface", `"net%d"`}},
		"a colon in an interface name":   {"a@net1:0", []string{"interface", `"net1:0"`}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.annotate(networks, tc.annotation)
			w.expectRefused(types.ErrInvalidNetworkConfig, append(tc.says, "pod default/web", networks)...)
		})
		t.Run(name+", of the default network", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.annotate(defaultNetwork, tc.annotation)
			w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", defaultNetwork)
		})
	}
}

func TestBadNetwork(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config string
		says   []string
	}{
		"truncated":                       {`{"type":"recorder"`, []string{"not JSON", "line 1, column"}},
		"an array":                        {`[]`, []string{"not a JSON object"}},
		"null":                            {`null`, []string{"not a JSON object"}},
		"neither type nor plugins":        {`{"name":"a"}`, []string{`neither "type" nor "plugins"`, "add"}},
		"no plugin":                       {`{"name":"a","plugins":[]}`, []string{`"plugins" is empty`}},
		"plugins that are none":           {`{"name":"a","plugins":"recorder"}`, []string{`"plugins" is no list`}},
		"a plugin that is null":           {`{"name":"a","plugins":[null]}`, []string{"plugins[0]", "not a JSON object"}},
		"a plugin without type":           {`{"name":"a","plugins":[{}]}`, []string{"plugins[0]", `no "type"`}},
		"a type that is a number":         {`{"type":1}`, []string{`"type" is no string`}},
		"a type that is a path":           {`{"type":"../../bin/sh"}`, []string{`"../../bin/sh"`, "bare name of a plugin"}},
		"a type with two spellings":       {`{"type":"recorder","Type":"plexus"}`, []string{`"Type"`, "once"}},
		"a name that is a path":           {`{"type":"recorder","name":"../../x"}`, []string{`"../../x"`, "no CNI network name"}},
		"a version that does not exist":   {`{"type":"recorder","cniVersion":"9.9.9"}`, []string{`"9.9.9"`, "1.1.0"}},
		"capabilities of a wrong type":    {`{"type":"recorder","capabilities":"mac"}`, []string{"capabilities"}},
		"args of a wrong type":            {`{"type":"recorder","args":{"cni":[]}}`, []string{"default/a"}},
		"too deeply nested":               {`{"type":"recorder","x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, []string{"nest the configuration less deep"}},
		"longer than a Kubernetes object": {`{"type":"recorder","x":"` + strings.Repeat("x", 1<<20) + `"}`, []string{"make the configuration at most"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.nad("default/a", tc.config)
			w.annotate(networks, `[{"name":"a","cni-args":{"x":1}}]`)
			w.expectRefused(types.ErrInvalidNetworkConfig, append(tc.says, "pod default/web", "default/a")...)
		})
	}
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	// Each returns what is on stdin.
	tests := map[string]struct {
		stdin func(*world) string
		code  uint
		says  []string
	}{
		"nothing":          {func(*world) string { return "" }, types.ErrDecodingFailure, nil},
		"truncated":        {func(w *world) string { s := asJSON(w.t, w.conf); return s[:len(s)/2] }, types.ErrDecodingFailure, nil},
		"binary":           {func(*world) string { return "\x00\xff\xfe" }, types.ErrDecodingFailure, nil},
		"null":             {func(*world) string { return "null" }, types.ErrInvalidNetworkConfig, []string{"name"}},
		"two documents":    {func(w *world) string { return asJSON(w.t, w.conf) + asJSON(w.t, w.conf) }, types.ErrDecodingFailure, nil},
		"megabytes":        {func(w *world) string { return asJSON(w.t, w.conf) + strings.Repeat(" ", 5<<20) }, types.ErrInvalidNetworkConfig, []string{"stdin", "4194304 bytes"}},
		"a version to be":  {with("cniVersion", "9.9.9"), types.ErrIncompatibleCNIVersion, nil},
		"a name as a path": {with("name", "../x"), types.ErrInvalidNetworkConfig, []string{"name"}},

		"delegates as a string":          {with("delegates", "recorder"), types.ErrInvalidNetworkConfig, []string{"delegates"}},
		"a delegate as a number":         {with("delegates", []any{1}), types.ErrInvalidNetworkConfig, []string{"delegates[0]", "not a JSON object"}},
		"a delegate without type":        {with("delegates", []any{object{"name": "x"}}), types.ErrInvalidNetworkConfig, []string{"delegates[0]", `"type"`}},
		"a delegate with a path as type": {with("delegates", []any{object{"name": "x", "type": "../../bin/sh"}}), types.ErrInvalidNetworkConfig, []string{"delegates[0]", `"../../bin/sh"`}},
		"defaultNetworks as a string":    {with("defaultNetworks", "x"), types.ErrInvalidNetworkConfig, []string{"defaultNetworks"}},
		"namespaceIsolation as a string": {with("namespaceIsolation", "true"), types.ErrInvalidNetworkConfig, []string{"namespaceIsolation"}},
		"a relative cniDir":              {with("cniDir", "state"), types.ErrInvalidNetworkConfig, []string{"cniDir", `"state"`, "absolute path"}},
		"a relative binDir":              {with("binDir", "../bin"), types.ErrInvalidNetworkConfig, []string{"binDir", `"../bin"`, "absolute path"}},
		"a relative clusterNetwork":      {with("clusterNetwork", "net.d/x.conf"), types.ErrInvalidNetworkConfig, []string{"clusterNetwork", `"net.d/x.conf"`, "absolute path"}},
		"NUL in a path":                  {with("confDir", "/x\x00y"), types.ErrInvalidNetworkConfig, []string{"confDir", "absolute path"}},
		"an auxiliary chain as a path": {func(w *world) string {
			w.byReference(w.write("net.d/x.conf", w.recorder(object{"name": "x"})))
			w.conf["auxiliaryCNIChainName"] = "../x"
			return asJSON(w.t, w.conf)
		}, types.ErrInvalidNetworkConfig, []string{"auxiliaryCNIChainName", `"../x"`}},
		"a logLevel that does not exist":     {with("logLevel", "loud"), types.ErrInvalidNetworkConfig, []string{"logLevel", `"loud"`, `"debug"`}},
		"a timeout of nothing":               {with("delegateTimeoutSeconds", 0), types.ErrInvalidNetworkConfig, []string{"delegateTimeoutSeconds", `"0"`, "1 to"}},
		"a timeout for ever":                 {with("delegateTimeoutSeconds", 1<<40), types.ErrInvalidNetworkConfig, []string{"delegateTimeoutSeconds", "1 to"}},
		"unsupportedRequests is not a bool":  {with("unsupportedRequests", "maybe"), types.ErrInvalidNetworkConfig, []string{"unsupportedRequests", `"maybe"`, `"ignore"`}},
		"a negative number of log backups":   {with("logOptions", object{"maxBackups": -1}), types.ErrInvalidNetworkConfig, []string{"logOptions"}},
		"runtimeConfig as a list":            {with("runtimeConfig", []any{}), types.ErrInvalidNetworkConfig, []string{"runtimeConfig"}},
		"the folder of manifests is missing": {with("manifestDir", "/nonexistent/manifests"), types.ErrInvalidNetworkConfig, []string{"manifestDir", "/nonexistent/manifests", "make the folder"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			stdin := tc.stdin(w)
			w.failed(w.start("ADD", stdin).wait(), tc.code, tc.says...)
			w.expectCalls()
			w.expectNothingLeft()
		})
	}
}

// with is the base configuration with another value.
func with(key string, value any) func(*world) string {
	return func(w *world) string {
		w.conf[key] = value
		return asJSON(w.t, w.conf)
	}
}

func TestBadEnvironment(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*world)
		code   uint
		says   []string
	}{
		"no container":                      {func(w *world) { w.containerID = "" }, types.ErrInvalidEnvironmentVariables, []string{"CNI_CONTAINERID"}},
		"a container as a path":             {func(w *world) { w.containerID = "../x" }, types.ErrInvalidEnvironmentVariables, []string{"containerID"}},
		"a container with an endless name":  {func(w *world) { w.containerID = strings.Repeat("c", 300) }, types.ErrInvalidEnvironmentVariables, []string{"container ID"}},
		"an interface as a path":            {func(w *world) { w.ifName = "../x" }, types.ErrInvalidEnvironmentVariables, []string{"interface name"}},
		"an interface that is too long":     {func(w *world) { w.ifName = "sixteen-bytes-ab" }, types.ErrInvalidEnvironmentVariables, []string{"interface name"}},
		"no sandbox":                        {func(w *world) { w.netns = "" }, types.ErrInvalidEnvironmentVariables, []string{"CNI_NETNS"}},
		"a sandbox that does not exist":     {func(w *world) { w.netns = w.path("gone") }, types.ErrInvalidNetNS, []string{"CNI_NETNS", "/gone"}},
		"a sandbox that is a file":          {func(w *world) { w.netns = w.write("file", "") }, types.ErrInvalidNetNS, []string{"CNI_NETNS", "/file"}},
		"the host as a sandbox":             {func(w *world) { w.netns = "/proc/self/ns/net" }, types.ErrInvalidNetNS, []string{"CNI_NETNS", "host's own"}},
		"CNI_ARGS that are no pairs":        {func(w *world) { w.args = "K8S_POD_NAME" }, types.ErrInvalidEnvironmentVariables, []string{"CNI_ARGS", `"K8S_POD_NAME"`, "KEY=VALUE"}},
		"CNI_ARGS without end":              {func(w *world) { w.args += ";X=" + strings.Repeat("x", 100<<10) }, types.ErrInvalidEnvironmentVariables, []string{"CNI_ARGS", "65536"}},
		"CNI_ARGS with a control character": {func(w *world) { w.args += ";X=a\nb" }, types.ErrInvalidEnvironmentVariables, []string{"CNI_ARGS", "control character"}},
		"a pod as a path":                   {func(w *world) { w.name = "../../x"; w.identify() }, types.ErrInvalidEnvironmentVariables, []string{"K8S_POD_NAME", `"../../x"`}},
		"a namespace as a path":             {func(w *world) { w.namespace = ".."; w.identify() }, types.ErrInvalidEnvironmentVariables, []string{"K8S_POD_NAMESPACE", `".."`}},
		"a namespace without pod":           {func(w *world) { w.args = "K8S_POD_NAMESPACE=default" }, types.ErrInvalidEnvironmentVariables, []string{"K8S_POD_NAME", "missing"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			sandbox := w.netns
			tc.change(w)
			w.mustFail("ADD", tc.code, tc.says...)
			w.expectCalls()
			w.netns = sandbox
			w.expectNothingLeft()
		})
	}
}

func TestBadManifests(t *testing.T) {
	t.Parallel()
	const pod = "kind: Pod\nmetadata: {name: web, annotations: {%s}}\n"
	tests := map[string]struct {
		text string
		says []string
	}{
		"truncated":                 {"kind: Pod\nmetadata: {name: web", []string{"document 1"}},
		"not YAML":                  {"\x00\x01\x02", []string{"document 1"}},
		"a second document":         {"kind: Service\n---\nkind: Pod\nmetadata: [\n", []string{"document 2"}},
		"an annotation as a number": {fmt.Sprintf(pod, "k8s.v1.cni.cncf.io/networks: 1"), []string{"Pod default/web", "k8s.v1.cni.cncf.io/networks"}},
		"metadata as a string":      {"kind: Pod\nmetadata: web\n", []string{"Pod", "metadata"}},
		"a config as an object":     {"kind: NetworkAttachmentDefinition\nmetadata: {name: a}\nspec: {config: {type: recorder}}\n", []string{"NetworkAttachmentDefinition", "config"}},
		"a pod as a path":           {"kind: Pod\nmetadata: {name: ../../x}\n", []string{"Pod", "metadata", "../../x"}},
		"a namespace as a path":     {"kind: NetworkAttachmentDefinition\nmetadata: {name: a, namespace: ..}\n", []string{"metadata", `".."`}},
		"the same pod twice":        {fmt.Sprintf(pod, ""), []string{"Pod default/web", "Pod-default-web.yaml", "remove one"}},
		"aliases that grow":         {"a: &a [x,x,x,x,x,x,x,x,x]\n" + laughs(), []string{"document 1"}},
		"megabytes":                 {"kind: Pod\n" + strings.Repeat("# nothing to see here\n", 500000), []string{"8388608", "split it"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			says := append(tc.says, filepath.Base(w.write("manifests/bad.yaml", tc.text)))
			if strings.HasPrefix(name, "an annotation") || strings.HasPrefix(name, "the same pod") { // it is about this pod
				w.expectRefused(types.ErrInvalidNetworkConfig, append(says, "pod default/web")...)
				w.remove("manifests/bad.yaml")
				w.must("ADD")
				return
			}
			w.conf["logFile"] = w.path("log")
			w.must("ADD")
			log := strings.ReplaceAll(w.read("log"), `\`, "")
			for _, text := range says {
				if !strings.Contains(log, text) {
					t.Errorf("the log does not say %q: %s", text, log)
				}
			}
			w.expectCalls("ADD cluster eth0")
		})
	}
}

// laughs makes YAML whose aliases stand for 9^9 strings.
func laughs() string {
	var b strings.Builder
	for c := 'b'; c < 'j'; c++ {
		alias := fmt.Sprintf("*%c", c-1)
		fmt.Fprintf(&b, "%c: &%c [%s]\n", c, c, strings.Join([]string{alias, alias, alias, alias, alias, alias, alias, alias, alias}, ","))
	}
	return b.String()
}

func TestBadRecord(t *testing.T) {
	t.Parallel()
	// Each breaks the record of a sandbox with two networks. Then libcni's cache has to tell what is to be undone.
	tests := map[string]func(w *world, file string){
		"empty":        func(w *world, file string) { w.write(file, "") },
		"truncated":    func(w *world, file string) { text := w.read(file); w.write(file, text[:len(text)/2]) },
		"null":         func(w *world, file string) { w.write(file, "null") },
		"a list":       func(w *world, file string) { w.write(file, "[]") },
		"an empty one": func(w *world, file string) { w.write(file, "{}") },
		"attachments as a string": func(w *world, file string) {
			record := decode(w.t, w.read(file))
			record["attachments"] = "a"
			w.write(file, record)
		},
		"an attachment that is null": func(w *world, file string) {
			record := decode(w.t, w.read(file))
			record["attachments"] = []any{nil}
			w.write(file, record)
		},
		"a plugin as a path": func(w *world, file string) {
			w.write(file, strings.ReplaceAll(w.read(file), `"type":"recorder"`, `"type":"../../bin/sh"`))
		},
		"of another container": func(w *world, file string) {
			w.write(file, strings.ReplaceAll(w.read(file), w.containerID, "another"))
		},
		"megabytes": func(w *world, file string) { w.write(file, strings.Repeat(" ", 9<<20)+w.read(file)) },
		"a folder": func(w *world, file string) {
			w.remove(file)
			w.mkdir(file)
			w.write(file+"/x", "")
		},
		"a link": func(w *world, file string) {
			target := w.write("target", w.read(file))
			w.remove(file)
			if err := os.Symlink(target, w.path(file)); err != nil {
				w.t.Fatal(err)
			}
		},
		"a pipe": func(w *world, file string) {
			w.remove(file)
			if err := syscall.Mkfifo(w.path(file), 0o600); err != nil {
				w.t.Fatal(err)
			}
		},
	}
	for name, damage := range tests {
		damaged := func(t *testing.T) *world {
			t.Helper()
			w := newWorld(t)
			w.annotate(networks, "a")
			w.must("ADD")
			w.calls()
			damage(w, w.recordFile())
			return w
		}
		clean := func(w *world) {
			w.t.Helper()
			w.expectCalls("DEL a net1", "DEL cluster eth0")
			w.remove(w.recordFile() + ".corrupt") // which is for a person to look at
			w.expectNothingLeft()
			if _, err := os.Stat(w.path("target")); name == "a link" && err != nil {
				w.t.Error(err)
			}
		}
		t.Run(name+", then DEL", func(t *testing.T) {
			t.Parallel()
			w := damaged(t)
			w.must("DEL")
			clean(w)
		})
		t.Run(name+", then GC", func(t *testing.T) {
			t.Parallel()
			w := damaged(t)
			sandbox := *w
			w.gc()
			w.must("GC")
			w.expectCalls() // whose it is can not be told, so that it may be alive
			sandbox.must("DEL")
			clean(&sandbox)
		})
	}
	scenarios(t, map[string]func(*world){
		"of a newer version, nothing is thrown away": func(w *world) {
			w.must("ADD")
			w.calls()
			record := decode(w.t, w.read(w.recordFile()))
			record["version"] = 99
			w.write(w.recordFile(), record)
			before := w.left()
			for _, verb := range []string{"DEL", "CHECK", "ADD"} {
				w.mustFail(verb, types.ErrDecodingFailure, "pod default/web", w.containerID, "version 99", "newer")
			}
			w.expectCalls()
			w.expect("state", before, w.left())
		},
		"the state folder is a file": func(w *world) {
			w.write("state", "")
			w.mustFail("ADD", types.ErrIOFailure, "pod default/web", w.path("state"))
			w.expectCalls()
		},
	})
}

func TestBadDelegate(t *testing.T) {
	t.Parallel()
	cniError := func(msg string) string { return asJSON(t, object{"code": 123, "msg": msg}) }
	// Each is what the second of three networks does on ADD.
	tests := map[string]struct {
		does object
		code uint
		says []string
	}{
		"prints garbage":              {object{"print": "garbage"}, types.ErrDecodingFailure, []string{"recorder"}},
		"prints garbage and fails":    {object{"print": "garbage", "exit": 1}, types.ErrInternal, []string{"recorder", "no CNI error", "garbage"}},
		"prints a list":               {object{"print": "[]"}, types.ErrDecodingFailure, []string{"recorder"}},
		"prints half a result":        {object{"print": `{"cniVersion":"1.0.0","ips":[`}, types.ErrDecodingFailure, []string{"recorder"}},
		"prints a version to be":      {object{"print": `{"cniVersion":"9.9.9"}`}, types.ErrDecodingFailure, []string{"recorder", "9.9.9"}},
		"prints nothing":              {object{"silent": true}, types.ErrDecodingFailure, []string{"recorder"}},
		"prints an interface of null": {object{"print": `{"cniVersion":"1.0.0","interfaces":[null]}`}, types.ErrDecodingFailure, nil},
		"prints an address of null":   {object{"print": `{"cniVersion":"1.0.0","ips":[null]}`}, types.ErrDecodingFailure, nil},
		"prints an address without":   {object{"print": `{"cniVersion":"1.0.0","ips":[{}]}`}, types.ErrDecodingFailure, nil},
		"prints a route of null":      {object{"print": `{"cniVersion":"1.0.0","routes":[null]}`}, types.ErrDecodingFailure, nil},
		"prints old null, 0.4.0":      {object{"print": `{"cniVersion":"0.4.0","interfaces":[null],"ips":[null]}`}, types.ErrDecodingFailure, nil},
		"prints megabytes":            {object{"printBytes": 64 << 20}, types.ErrDecodingFailure, []string{"recorder", "4194304 bytes"}},
		"fails and says nothing":      {object{"exit": 3}, types.ErrInternal, []string{"recorder", "exit status 3", "said nothing"}},
		"fails on stderr":             {object{"exit": 3, "stderr": "out of\nluck"}, types.ErrInternal, []string{"recorder", "exit status 3", "luck"}},
		"fails with megabytes":        {object{"exit": 3, "stderr": strings.Repeat("x", 900<<10)}, types.ErrInternal, []string{"recorder", "exit status 3"}},
		"fails with an endless error": {object{"exit": 1, "print": cniError(strings.Repeat("x", 900<<10))}, 123, []string{"xxx"}},
		"fails with a text of lines":  {object{"exit": 1, "print": cniError("one\ntwo")}, 123, []string{"one; two"}},
		"fails with a code of 0":      {object{"exit": 1, "print": `{"msg":"oops"}`}, types.ErrInternal, []string{"oops"}},
		"dies by a signal":            {object{"signal": int(syscall.SIGTERM)}, types.ErrInternal, []string{"recorder", "terminated"}},
		"is killed":                   {object{"signal": int(syscall.SIGKILL)}, types.ErrInternal, []string{"recorder", "killed"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{"ADD": tc.does}}))
			w.annotate(networks, "a,b")
			w.mustFail("ADD", tc.code, append(tc.says, "pod default/web", "default/a")...)
			w.expectCalls("ADD cluster eth0", "ADD a net1", "DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
			w.expect("network status", "", w.statusText())
		})
	}
	for _, inChild := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs, in a child: %v", inChild), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate(t)
			w.conf["delegateTimeoutSeconds"] = 1
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{"ADD": object{"wait": g.path, "inChild": inChild}}}))
			w.annotate(networks, "a,b")
			add := w.start("ADD", w.conf)
			delegate := g.await()
			w.failed(add.wait(), types.ErrTryAgainLater, "pod default/web", "default/a", "recorder", "1s", "delegateTimeoutSeconds")
			delegate.awaitEnd()
			w.expectCalls("ADD cluster eth0", "ADD a net1", "DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
		})
	}
	scenarios(t, map[string]func(*world){
		"hangs on DEL": func(w *world) {
			g := newGate(w.t)
			w.write("broken", "")
			w.conf["delegateTimeoutSeconds"] = 1
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{"DEL": object{"while": w.path("broken"), "wait": g.path}}}))
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			del := w.start("DEL", w.conf)
			g.await()
			w.failed(del.wait(), types.ErrTryAgainLater, "pod default/web", "default/a", "delegateTimeoutSeconds")
			w.expectCalls("DEL b net2", "DEL a net1", "DEL cluster eth0")
			w.remove("broken")
			w.must("DEL")
			w.expectCalls("DEL a net1")
			w.expectNothingLeft()
		},
		"hangs on STATUS": func(w *world) {
			g := newGate(w.t)
			w.conf["delegateTimeoutSeconds"] = 1
			w.cluster(object{"cniVersion": "1.1.0", "on": object{"STATUS": object{"wait": g.path}}})
			w.version11()
			status := w.start("STATUS", w.conf)
			g.await().awaitEnd()
			w.failed(status.wait(), notAvailable, "cluster", "delegateTimeoutSeconds")
		},
		"prints garbage where nothing is due": func(w *world) {
			garbage := object{"print": "garbage"}
			w.cluster(object{"on": object{"DEL": garbage, "CHECK": garbage}})
			w.must("ADD")
			w.must("CHECK")
			w.must("DEL")
			w.expectNothingLeft()
		},
		"writes device info that is none": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": object{"CNIDeviceInfoFile": true}, "deviceInfo": object{"type": "../x"}}))
			w.annotate(networks, "a")
			w.must("ADD") // it informs, no more
			w.expectStatus(`{"name":"cluster","interface":"eth0","ips":["10.1.0.2"],"default":true,"dns":{}}`, `{"name":"default/a","interface":"net1","dns":{}}`)
			w.must("DEL")
			w.expectCalls("ADD cluster eth0", "ADD a net1", "DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"names an interface that its result does not have": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "result": object{
				"interfaces": []any{object{"sandbox": "self"}, object{"sandbox": "self", "name": "x"}},
				"ips":        []any{object{"address": "10.2.0.2/24", "interface": 99}, object{"address": "10.2.0.3/24", "interface": -1}},
			}}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectInterfaces("eth0 cluster default", "net1 default/a", "x default/a")
		},
	})
}
