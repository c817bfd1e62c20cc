// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

const (
	networks       = "k8s.v1.cni.cncf.io/networks"
	defaultNetwork = "v1.multus-cni.io/default-network"

	// callTimeout is far more than any call of a test may take: whatever waits that long waits for ever.
	callTimeout = 60 * time.Second
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

// object is a JSON object.
type object = map[string]any

// world is a host as the plugin sees it: folders, manifests of one pod and some networks, and a fresh sandbox. The base has an
// inline default network "cluster" (10.1.0.2/24) and the NADs default/a, default/b and other/c.
type world struct {
	t   *testing.T
	dir string
	// conf is the plugin's configuration.
	conf object
	// namespace, name, uid and annotations are the pod's, as its manifest has them.
	namespace, name, uid string
	annotations          map[string]string
	// containerID, ifName, netns, args and cniPath are what the runtime sends. The first two make the key of the sandbox.
	containerID, ifName, netns, args, cniPath string
	// host is the network namespace that the plugin runs in, "" for the test's own.
	host string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testenv.RequireRoot(t)
	bin := testenv.Build(t, "./cmd/plexus", "./conformance/recorder")
	w := &world{
		t: t, dir: t.TempDir(), netns: testenv.NetNS(t), ifName: "eth0", cniPath: bin,
		containerID: strings.ToLower(rand.Text()), namespace: "default", name: "web", uid: "uid-of-web", annotations: map[string]string{},
	}
	w.conf = object{
		"cniVersion": "1.0.0", "name": "plexus", "type": "plexus",
		"binDir": w.path("bin"), "confDir": w.path("conf"), "cniDir": w.path("state"), "legacyCNIDir": w.path("legacy"),
		"manifestDir": w.path("manifests"),
		"delegates":   []any{w.recorder(object{"name": "cluster", "cniVersion": "1.0.0", "result": addresses("10.1.0.2/24", "10.1.0.1")})},
	}
	for _, dir := range []string{"bin", "conf", "manifests"} {
		w.mkdir(dir)
	}
	w.nad("default/a", w.recorder(object{"name": "a", "cniVersion": "1.0.0", "result": addresses("10.2.0.2/24", "")}))
	w.nad("default/b", w.recorder(object{"name": "b", "cniVersion": "1.0.0", "result": addresses("10.3.0.2/24", "")}))
	w.nad("other/c", w.recorder(object{"name": "c", "cniVersion": "1.0.0", "result": addresses("10.4.0.2/24", "")}))
	w.identify()
	w.writePod()
	return w
}

// scenarios runs each function in a world of its own, at the same time as others.
func scenarios(t *testing.T, table map[string]func(*world)) {
	t.Helper()
	for name, f := range table {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(newWorld(t))
		})
	}
}

// addresses is a result with one address.
func addresses(cidr, gateway string) object {
	ip := object{"address": cidr}
	if gateway != "" {
		ip["gateway"] = gateway
	}
	return object{"ips": []any{ip}}
}

// recorder is the configuration of a recording delegate, with more keys.
func (w *world) recorder(more object) object {
	conf := object{"type": "recorder", "record": w.path("calls")}
	maps.Copy(conf, more)
	return conf
}

// identify sets CNI_ARGS to what kubelet's runtimes send.
func (w *world) identify() {
	w.args = fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s",
		w.namespace, w.name, w.containerID, w.uid)
}

// cniArgs is what delegates get as CNI_ARGS, with more at the end.
func (w *world) cniArgs(more ...string) string {
	return strings.Join(append([]string{
		"IgnoreUnknown=true", "K8S_POD_NAMESPACE=" + w.namespace, "K8S_POD_NAME=" + w.name,
		"K8S_POD_INFRA_CONTAINER_ID=" + w.containerID, "K8S_POD_UID=" + w.uid,
	}, more...), ";")
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) mkdir(name string) {
	w.t.Helper()
	if err := os.MkdirAll(w.path(name), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// write writes a file: text as it is, anything else as JSON.
func (w *world) write(name string, content any) string {
	w.t.Helper()
	text, ok := content.(string)
	if !ok {
		text = asJSON(w.t, content)
	}
	w.mkdir(filepath.Dir(name))
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.path(name)
}

func (w *world) read(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(w.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	return string(text)
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.RemoveAll(w.path(name)); err != nil {
		w.t.Fatal(err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writeManifest writes a Kubernetes object as YAML.
func (w *world) writeManifest(kind, namespace, name string, annotations map[string]string, uid string, spec object) {
	w.t.Helper()
	metadata := object{"namespace": namespace, "name": name, "annotations": annotations}
	if uid != "" {
		metadata["uid"] = uid
	}
	text, err := yaml.Marshal(object{"kind": kind, "metadata": metadata, "spec": spec})
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("manifests/"+kind+"-"+namespace+"-"+name+".yaml", string(text))
}

func (w *world) writePod() {
	w.t.Helper()
	w.writeManifest("Pod", w.namespace, w.name, w.annotations, w.uid, nil)
}

// annotate writes the pod anew with one more annotation.
func (w *world) annotate(key, value string) {
	w.t.Helper()
	w.annotations[key] = value
	w.writePod()
}

// become makes the pod another one.
func (w *world) become(namespace, name string) {
	w.t.Helper()
	w.remove("manifests/Pod-" + w.namespace + "-" + w.name + ".yaml")
	w.namespace, w.name = namespace, name
	w.identify()
	w.writePod()
}

// nad writes the NAD "namespace/name"; its config is text, or an object that becomes JSON.
func (w *world) nad(ref string, config any) {
	w.t.Helper()
	namespace, name, _ := strings.Cut(ref, "/")
	text, ok := config.(string)
	if !ok {
		text = asJSON(w.t, config)
	}
	spec := object{}
	if text != "" {
		spec["config"] = text
	}
	w.writeManifest("NetworkAttachmentDefinition", namespace, name, nil, "", spec)
}

// cluster replaces the inline default network.
func (w *world) cluster(more object) {
	conf := w.recorder(object{"name": "cluster", "cniVersion": "1.0.0", "result": addresses("10.1.0.2/24", "10.1.0.1")})
	maps.Copy(conf, more)
	w.conf["delegates"] = []any{conf}
}

// outcome is how a call of the plugin ended.
type outcome struct {
	verb           string
	stdout, stderr string
	code           int
	signal         syscall.Signal
}

// process is a call of the plugin that is under way.
type process struct {
	*world
	cmd            *exec.Cmd
	verb           string
	stdout, stderr bytes.Buffer
	cancel         context.CancelFunc
}

// start runs the plugin as a runtime does. stdin is text, or an object that becomes JSON.
func (w *world) start(verb string, stdin any) *process {
	w.t.Helper()
	text, ok := stdin.(string)
	if !ok {
		text = asJSON(w.t, stdin)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), callTimeout)
	p := &process{world: w, verb: verb, cancel: cancel}
	p.cmd = exec.CommandContext(ctx, filepath.Join(testenv.Build(w.t, "./cmd/plexus", "./conformance/recorder"), "plexus"))
	p.cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + w.containerID, "CNI_IFNAME=" + w.ifName,
		"CNI_NETNS=" + w.netns, "CNI_PATH=" + w.cniPath, "CNI_ARGS=" + w.args,
	}
	p.cmd.Stdin = strings.NewReader(text)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	// What a killed plugin leaves behind has its output still open.
	p.cmd.WaitDelay = time.Second
	start := p.cmd.Start
	if w.host != "" {
		start = func() error { testenv.Do(w.t, w.host, p.cmd.Start); return nil }
	}
	if err := start(); err != nil {
		w.t.Fatalf("start the plugin: %v", err)
	}
	return p
}

// wait returns how the call ended.
func (p *process) wait() outcome {
	p.t.Helper()
	defer p.cancel()
	err := p.cmd.Wait()
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit && !errors.Is(err, exec.ErrWaitDelay) {
		p.t.Fatalf("%s: %v", p.verb, err)
	}
	o := outcome{verb: p.verb, stdout: p.stdout.String(), stderr: p.stderr.String(), code: p.cmd.ProcessState.ExitCode()}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		o.signal = status.Signal()
	}
	if strings.Contains(o.stderr, "goroutine ") {
		p.t.Fatalf("%s: a panic:\n%s", p.verb, o.stderr)
	}
	return o
}

// kill is the kernel's out-of-memory killer, or an impatient runtime.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	if o := p.wait(); o.signal != syscall.SIGKILL {
		p.t.Fatalf("%s was not killed: %+v", p.verb, o)
	}
}

func (w *world) call(verb string) outcome {
	w.t.Helper()
	return w.start(verb, w.conf).wait()
}

// must makes a call that has to succeed, and returns what it printed.
func (w *world) must(verb string) string {
	w.t.Helper()
	return w.succeeded(w.call(verb))
}

func (w *world) succeeded(o outcome) string {
	w.t.Helper()
	if o.code != 0 {
		w.t.Fatalf("%s: exit code %d\n%s%s", o.verb, o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// mustFail makes a call that has to fail with a code, and with a text that has all the words. It returns the error's details.
func (w *world) mustFail(verb string, code uint, words ...string) string {
	w.t.Helper()
	return w.failed(w.call(verb), code, words...)
}

// failed checks that a call failed as the CNI specification has it: exit code 1, and one error as JSON on stdout. Its text is one line
// of bounded length, for people to read. It returns the error's details.
func (w *world) failed(o outcome, code uint, words ...string) string {
	w.t.Helper()
	if o.code != 1 {
		w.t.Fatalf("%s: exit code %d (%v), want 1\n%s%s", o.verb, o.code, o.signal, o.stdout, o.stderr)
	}
	dec := json.NewDecoder(strings.NewReader(o.stdout))
	var e types.Error
	if err := dec.Decode(&e); err != nil {
		w.t.Fatalf("%s: stdout is no CNI error: %v\n%s", o.verb, err, o.stdout)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		w.t.Errorf("%s: stdout has more than the error:\n%s", o.verb, o.stdout)
	}
	if e.Code != code {
		w.t.Errorf("%s: code %d, want %d: %s", o.verb, e.Code, code, e.Msg)
	}
	for _, word := range words {
		if !strings.Contains(e.Msg, word) {
			w.t.Errorf("%s: the error does not say %q: %s", o.verb, word, e.Msg)
		}
	}
	if strings.ContainsAny(e.Msg, "\n\x00") || len(e.Msg) > 4096 {
		w.t.Errorf("%s: the error is no line that a person reads (%d bytes): %.1000q", o.verb, len(e.Msg), e.Msg)
	}
	return e.Details
}

// recorded is a call of the recording delegate.
type recorded struct {
	Command     string `json:"command"`
	ContainerID string `json:"containerID"`
	NetNS       string `json:"netns"`
	IfName      string `json:"ifname"`
	Args        string `json:"args"`
	Path        string `json:"path"`
	Config      object `json:"config"`
}

// String is "ADD network interface", or "ADD network/tag interface" for a plugin that has a tag.
func (r recorded) String() string {
	network := fmt.Sprint(r.Config["name"])
	if tag, ok := r.Config["tag"]; ok {
		network += fmt.Sprint("/", tag)
	}
	return strings.TrimSpace(r.Command + " " + network + " " + r.IfName)
}

// calls returns the delegates' calls since the last time, in order.
func (w *world) calls() []recorded {
	w.t.Helper()
	var calls []recorded
	for line := range strings.Lines(w.read("calls")) {
		var r recorded
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			w.t.Fatalf("record of calls: %v", err)
		}
		calls = append(calls, r)
	}
	w.remove("calls")
	return calls
}

// expectCalls checks the delegates' calls since the last time, and returns them.
func (w *world) expectCalls(want ...string) []recorded {
	w.t.Helper()
	calls := w.calls()
	var got []string
	for _, c := range calls {
		got = append(got, c.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Fatalf("calls of delegates (-want +got):\n%s", diff)
	}
	return calls
}

// expect compares values.
func (w *world) expect(what string, want, got any) {
	w.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// expectJSON compares JSON texts by value.
func (w *world) expectJSON(what, want string, got any) {
	w.t.Helper()
	text, ok := got.(string)
	if !ok {
		text = asJSON(w.t, got)
	}
	var a, b any
	if err := json.Unmarshal([]byte(want), &a); err != nil {
		w.t.Fatalf("%s: %v: %s", what, err, want)
	}
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		w.t.Fatalf("%s: %v: %s", what, err, text)
	}
	w.expect(what, a, b)
}

// statusText is the network status as the plugin wrote it, "" for none.
func (w *world) statusText() string {
	w.t.Helper()
	return w.read("manifests/network-status/" + w.namespace + "_" + w.name + ".json")
}

// expectStatus checks the network status, objects and keys in their order, white space aside.
func (w *world) expectStatus(want ...string) {
	w.t.Helper()
	var got bytes.Buffer
	if err := json.Compact(&got, []byte(w.statusText())); err != nil {
		w.t.Fatalf("network status: %v: %s", err, w.statusText())
	}
	w.expect("network status", "["+strings.Join(want, ",")+"]", got.String())
}

// expectInterfaces checks name and network of each object of the status, as "eth0 cluster default".
func (w *world) expectInterfaces(want ...string) {
	w.t.Helper()
	var status []struct {
		Name, Interface string
		Default         bool
	}
	if err := json.Unmarshal([]byte(w.statusText()), &status); err != nil {
		w.t.Fatalf("network status: %v: %s", err, w.statusText())
	}
	var got []string
	for _, s := range status {
		text := s.Interface + " " + s.Name
		if s.Default {
			text += " default"
		}
		got = append(got, text)
	}
	w.expect("interfaces in the network status", want, got)
}

// left lists the files of the plugin's state, but for those that belong to no sandbox.
func (w *world) left() []string {
	w.t.Helper()
	var left []string
	for _, dir := range []string{"state", "legacy"} {
		err := filepath.WalkDir(w.path(dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || (err == nil && (d.IsDir() || d.Name() == ".lock" || d.Name() == "boot-id" || d.Name() == "source-seen" || d.Name() == "slots")) {
				return nil
			}
			left = append(left, strings.TrimPrefix(path, w.dir+"/"))
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return left
}

// expectNothingLeft checks that neither the disk nor the sandbox knows of an ADD any more.
func (w *world) expectNothingLeft() {
	w.t.Helper()
	w.expect("files that are left", []string(nil), w.left())
	w.expectLinks("lo")
}

// expectLinks checks the interfaces in the sandbox.
func (w *world) expectLinks(want ...string) {
	w.t.Helper()
	links, err := netdev.NewLinux().Links(w.netns)
	if err != nil {
		w.t.Fatal(err)
	}
	var got []string
	for _, l := range links {
		got = append(got, l.Name)
	}
	w.expect("interfaces in the sandbox", want, got)
}

// expectRefused makes an ADD that has to fail before any delegate runs, and to leave nothing.
func (w *world) expectRefused(code uint, words ...string) {
	w.t.Helper()
	w.mustFail("ADD", code, words...)
	w.expectCalls()
	w.expectNothingLeft()
	w.expect("network status", "", w.statusText())
}

// gate stops a delegate in the middle of a call.
type gate struct {
	t        *testing.T
	listener *net.UnixListener
	path     string
}

// newGate makes a gate. A delegate that has its path under "wait" comes to it.
func newGate(t *testing.T) *gate {
	t.Helper()
	l := testenv.Socket(t)
	return &gate{t: t, listener: l, path: l.Addr().String()}
}

// visitor is a delegate that waits at a gate.
type visitor struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	pid  int
}

// await waits until a delegate has come. It is let go at the end of the test at the latest.
func (g *gate) await() *visitor {
	g.t.Helper()
	if err := g.listener.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		g.t.Fatal(err)
	}
	conn, err := g.listener.Accept()
	if err != nil {
		g.t.Fatalf("no delegate came: %v", err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	v := &visitor{t: g.t, conn: conn, in: bufio.NewReader(conn)}
	line, err := v.in.ReadString('\n')
	if err != nil {
		g.t.Fatalf("the delegate did not say who it is: %v", err)
	}
	if v.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		g.t.Fatal(err)
	}
	return v
}

// release lets the delegate go on.
func (v *visitor) release() {
	v.t.Helper()
	if err := v.conn.Close(); err != nil {
		v.t.Fatal(err)
	}
}

// kill ends the delegate.
func (v *visitor) kill() {
	v.t.Helper()
	if err := syscall.Kill(v.pid, syscall.SIGKILL); err != nil {
		v.t.Fatal(err)
	}
	v.awaitEnd()
}

// awaitEnd waits until the delegate has ended: the kernel then closes its end of the connection.
func (v *visitor) awaitEnd() {
	v.t.Helper()
	if err := v.conn.SetReadDeadline(time.Now().Add(callTimeout)); err != nil {
		v.t.Fatal(err)
	}
	if _, err := v.in.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		v.t.Fatalf("the delegate lives on: %v", err)
	}
}

// eventually waits for what the kernel does not announce.
func eventually(t *testing.T, what string, isTrue func() bool) {
	t.Helper()
	testenv.Eventually(t, callTimeout, isTrue, func() string { return what })
}

// awaitFlock waits until a call waits for a lock of a file, as /proc/locks shows it: a line with "->" (Linux 2.6).
func (w *world) awaitFlock(p *process) {
	w.t.Helper()
	pid := strconv.Itoa(p.cmd.Process.Pid)
	eventually(w.t, "the call does not wait for the lock", func() bool {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			w.t.Fatal(err)
		}
		for line := range strings.Lines(string(locks)) {
			f := strings.Fields(line)
			if len(f) > 5 && f[1] == "->" && f[2] == "FLOCK" && f[5] == pid {
				return true
			}
		}
		return false
	})
}
