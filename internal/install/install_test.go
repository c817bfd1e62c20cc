// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/dirwatch"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// limit bounds what is expected to happen; it is long only on a machine that is very busy.
const limit = 30 * time.Second

const flannel = `{"cniVersion":"1.0.0","name":"cbr0","plugins":[{"type":"flannel","capabilities":{"io.kubernetes.cri.pod-annotations":true,"bandwidth":false}},{"type":"portmap","capabilities":{"portMappings":true}}]}`

func TestGenerated(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		conf  Conf
	}{
		"T1 T2 of a list, for the daemon": {
			files: map[string]string{"10-flannel.conflist": flannel, "20-other.conf": `{"type":"x"}`},
			conf:  Conf{SocketDir: "/run/plexus"},
		},
		"T13 of a bare plugin": {
			files: map[string]string{"10-bridge.conf": `{"cniVersion":"0.4.0","name":"mynet","type":"bridge"}`},
			conf:  Conf{SocketDir: "/run/plexus"},
		},
		"of the one that is named, for lookups without a daemon": {
			files: map[string]string{"10-a.conf": `{"type":"x"}`, "20-flannel.conflist": flannel},
			conf:  Conf{Primary: "20-flannel.conflist", Kubeconfig: "/etc/cni/net.d/plexus.d/kubeconfig"},
		},
		"T6 of no meta-plugin's": {
			files: map[string]string{
				ConfName:         `{"cniVersion":"1.0.0","name":"plexus","plugins":[{"type":"plexus","clusterNetwork":"/x"}]}`,
				"01-multus.conf": `{"cniVersion":"1.0.0","name":"m","type":"multus-shim","clusterNetwork":"/x"}`,
				"00-old.conf":    `{"cniVersion":"1.0.0","name":"m","type":"plexus","clusterNetwork":"/x"}`, "02-broken.conf": `{`, "10-flannel.conflist": flannel,
			},
			conf: Conf{SocketDir: "/run/plexus"},
		},
		"of the one that the keys name": {
			files: map[string]string{"10-a.conf": `{"cniVersion":"0.3.1","name":"a","type":"x"}`, "20-flannel.conflist": flannel},
			conf: Conf{SocketDir: "/run/plexus", Extra: map[string]json.RawMessage{
				"clusterNetwork": json.RawMessage(`"DIR/20-flannel.conflist"`),
			}},
		},
		"of the one that stands in the keys": {
			conf: Conf{SocketDir: "/run/plexus", Extra: map[string]json.RawMessage{
				"delegates": json.RawMessage(`[{"cniVersion":"1.1.0","type":"bridge","capabilities":{"mac":true}}]`),
			}},
		},
		"with further keys": {
			files: map[string]string{"10-flannel.conflist": flannel},
			conf: Conf{SocketDir: "/run/plexus", Extra: map[string]json.RawMessage{
				"namespaceIsolation": json.RawMessage("true"), "capabilities": json.RawMessage(`{"mac":true}`),
			}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, tc.files)
			tc.conf.Dir = dir
			for key, value := range tc.conf.Extra {
				tc.conf.Extra[key] = json.RawMessage(strings.ReplaceAll(string(value), "DIR", dir))
			}
			if o, err := tc.conf.Write(); err != nil || !o.Wrote {
				t.Fatalf("Write = %+v, %v", o, err)
			}
			got := strings.ReplaceAll(read(t, filepath.Join(dir, ConfName)), dir, "/etc/cni/net.d")
			golden.Compare(t, strings.SplitAfter(t.Name(), "/")[1], got)
			if o, err := tc.conf.Write(); err != nil || o.Wrote {
				t.Errorf("a second Write = %+v, %v; want nothing written", o, err)
			}
			if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestWhatWasThereStays(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		conf  Conf
		kind  error
		says  string
	}{
		"no primary":             {kind: ErrNoPrimary, says: "install the cluster's network plugin"},
		"only meta-plugins":      {files: map[string]string{"00-multus.conf": `{"name":"m","type":"multus"}`}, kind: ErrNoPrimary, says: "take that plugin off the node"},
		"a primary half written": {files: map[string]string{"10-a.conflist": flannel[:50]}, kind: ErrNoPrimary},
		"a primary without a name, which the plugin would refuse": {files: map[string]string{"10-a.conf": `{"type":"x"}`}, kind: ErrNoPrimary, says: `add "name"`},
		"keys that name a meta-plugin": {
			files: map[string]string{"10-a.conflist": flannel, "20-m.conf": `{"name":"m","type":"multus"}`},
			conf:  Conf{Extra: map[string]json.RawMessage{"clusterNetwork": json.RawMessage(`"DIR/20-m.conf"`)}}, kind: ErrNoPrimary, says: "meta-plugin",
		},
		"a default network in the keys that is none": {conf: Conf{Extra: map[string]json.RawMessage{"delegates": json.RawMessage(`[]`)}}, says: "put the default network's into it"},
		"a named one that is not":                    {files: map[string]string{"10-a.conflist": flannel}, conf: Conf{Primary: "b"}, kind: ErrNoPrimary, says: "b"},
		"keys that are not usable":                   {files: map[string]string{"10-a.conflist": flannel}, conf: Conf{Extra: map[string]json.RawMessage{"logLevel": json.RawMessage(`"loud"`)}}, says: "logLevel"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, tc.files)
			const before = `{"name":"plexus","plugins":[{"type":"plexus","clusterNetwork":"/x"}]}`
			write(t, filepath.Join(dir, ConfName), before)
			tc.conf.Dir, tc.conf.SocketDir = dir, "/run/plexus"
			for key, value := range tc.conf.Extra {
				tc.conf.Extra[key] = json.RawMessage(strings.ReplaceAll(string(value), "DIR", dir))
			}
			o, err := tc.conf.Write()
			if err == nil || o.Wrote || (tc.kind != nil && !errors.Is(err, tc.kind)) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Write = %+v, %v; want an error of kind %v saying %q", o, err, tc.kind, tc.says)
			}
			if got := read(t, filepath.Join(dir, ConfName)); got != before {
				t.Errorf("%s is now %s", ConfName, got)
			}
		})
	}
}

func TestT4KeepFollowsThePrimary(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "net.d") // made later, as on a new node
	node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Log: slog.New(slog.DiscardHandler)}
	stop := keep(t, node)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	conf, primary := filepath.Join(dir, ConfName), filepath.Join(dir, "10-p.conflist")
	write(t, primary, flannel)
	awaitFile(t, conf, `"portMappings": true`)
	write(t, primary, `{"cniVersion":"0.4.0","name":"n","plugins":[{"type":"bridge"}]}`)
	awaitFile(t, conf, `"cniVersion": "0.4.0"`)
	if got := read(t, conf); strings.Contains(got, "portMappings") {
		t.Errorf("a capability that was withdrawn is still there: %s", got)
	}
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, conf, "plexus")
	stop()
	if _, err := os.Stat(conf); err != nil {
		t.Errorf("T7 the configuration has to stay when the daemon stops: %v", err)
	}
}

func TestAnotherOneThatSortsBeforeOurs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		file, text string
		err        error
	}{
		"is what the runtime takes":   {"00-danm.conf", `{"name":"d","type":"danm"}`, ErrNotFirst},
		"may be a meta-plugin's":      {"00-multus.conf", `{"name":"m","type":"multus-shim"}`, ErrNotFirst},
		"may be the primary":          {"00-a.conf", `{"name":"a","type":"x"}`, ErrNotFirst},
		"may be Plexus too":           {"00-multus.conf", `{"name":"m","type":"plexus","delegates":[{"type":"x"}]}`, nil},
		"may be nothing for runtimes": {"00-README", `read me`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, map[string]string{"10-flannel.conflist": flannel, tc.file: tc.text})
			o, err := Conf{Dir: dir, SocketDir: "/run/plexus"}.Write()
			if !o.Wrote || !errors.Is(err, tc.err) || (tc.err != nil && !strings.Contains(err.Error(), tc.file)) {
				t.Errorf("Write = %+v, %v; want it written and %v", o, err, tc.err)
			}
		})
	}
}

func TestKeepFollowsWhatIsChainedToThePrimary(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"10-flannel.conflist": flannel})
	node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Log: slog.New(slog.DiscardHandler)}
	keep(t, node)
	conf, chain := filepath.Join(dir, ConfName), filepath.Join(dir, "cbr0")
	awaitFile(t, conf, "portMappings")
	if err := os.Mkdir(chain, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(chain, "10-tuning.conf"), `{"type":"tuning","capabilities":{"mac":true}}`)
	awaitFile(t, conf, `"mac": true`)
	write(t, filepath.Join(chain, "10-tuning.conf"), `{"type":"tuning","capabilities":{"bandwidth":true}}`)
	awaitFile(t, conf, `"bandwidth": true`)
}

func TestKeepSaysWhoTakesItsFileAway(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"10-flannel.conflist": flannel})
	said := &logs{}
	node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Log: slog.New(slog.NewTextHandler(said, nil))}
	stop := keep(t, node)
	conf := filepath.Join(dir, ConfName)
	awaitFile(t, conf, "plexus")
	if err := os.Rename(conf, conf+".cilium_bak"); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, conf, "plexus")
	stop()
	if err := node.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
	if !strings.Contains(said.String(), "cni.exclusive=false") {
		t.Errorf("log: %s", said)
	}
}

func TestAContestIsGivenRest(t *testing.T) {
	t.Parallel()
	var c contest
	now := time.Now()
	for i, want := range []time.Duration{200, 400, 800, 1600, 3200, 5000, 5000} {
		now = now.Add(lastRest)
		if got := c.rest(now, true); got != want*time.Millisecond {
			t.Errorf("rest %d = %v, want %v ms", i, got, int64(want))
		}
	}
	if got := c.rest(now.Add(2*contestPast), true); got != firstRest {
		t.Errorf("rest = %v after a long peace, want %v", got, firstRest)
	}
	if got := c.rest(now, false); got != 0 {
		t.Errorf("rest = %v for what is new, want none", got)
	}
}

func TestKeepActsOnAFolderThatIsNeverLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Log: slog.New(slog.DiscardHandler)}
	keep(t, node)
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	busy.Go(func() {
		tick := time.NewTicker(settle / 5)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			if err := os.WriteFile(filepath.Join(dir, "log"), nil, 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	write(t, filepath.Join(dir, "10-flannel.conflist"), flannel)
	awaitFile(t, filepath.Join(dir, ConfName), "plexus")
}

func TestReadyTellsWhyPodsDoNotCome(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	said := &logs{}
	node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Log: slog.New(slog.NewTextHandler(said, nil))}
	if node.Ready() == nil {
		t.Error("ready before anything was tried")
	}
	for range 2 {
		if turn := node.writeConf(); turn.failed {
			t.Error("to try again without a change makes no primary")
		}
	}
	if err := node.Ready(); !errors.Is(err, ErrNoPrimary) {
		t.Errorf("Ready = %v, want ErrNoPrimary", err)
	}
	if n := strings.Count(said.String(), "waiting for the primary"); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, said)
	}
	write(t, filepath.Join(dir, "10-flannel.conflist"), flannel)
	node.Conf.Extra = map[string]json.RawMessage{"logLevel": json.RawMessage(`"loud"`)}
	if turn := node.writeConf(); !turn.failed || node.Ready() == nil {
		t.Errorf("turn %+v, Ready = %v; want another try, and the reason", turn, node.Ready())
	}
	node.Conf.Extra = nil
	if node.writeConf(); node.Ready() != nil {
		t.Errorf("Ready = %v", node.Ready())
	}
}

func TestWhatACrashLeftIsRemoved(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{".plexus.123.tmp": "half", ".plexus": "x", ".plexusctl.1.tmp": "x", "other.tmp": "x"})
	if _, err := replace(filepath.Join(dir, "plexus"), strings.NewReader("whole"), 0o755); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".plexus", ".plexusctl.1.tmp", "other.tmp", "plexus"}, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestT14RotatedToken(t *testing.T) {
	t.Parallel()
	account := folder(t, map[string]string{"token": "one", "ca.crt": "CA"})
	out := filepath.Join(t.TempDir(), "plexus.d", "kubeconfig")
	node := &Node{
		Conf:       Conf{Dir: t.TempDir(), Kubeconfig: out},
		Kubeconfig: Kubeconfig{Path: out, Server: "https://10.96.0.1:443", AccountDir: account},
		Log:        slog.New(slog.DiscardHandler),
	}
	keep(t, node)
	token := filepath.Join(filepath.Dir(out), "token")
	awaitFile(t, token, "one")
	awaitFile(t, out, token)
	write(t, filepath.Join(account, "token"), "two")
	awaitFile(t, token, "two")
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, token, "two") // who takes it away
	info, err := os.Stat(token)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token: %v, %v; want mode 0600", info.Mode(), err)
	}
}

func TestT12BinariesReplaceARunningOne(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "opt", "cni", "bin")
	programs := Programs{From: from, To: to, Names: []string{"plexus"}}
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(from, "plexus"), read(t, cat))
	if err = programs.Install(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(to, "plexus"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(from, "plexus"), "#!/bin/sh\n")
	if err = programs.Install(); err != nil {
		t.Errorf("over a running program: %v", err)
	}
	in.Close()
	if err = cmd.Wait(); err != nil {
		t.Errorf("the program that ran: %v", err)
	}
	before, err := os.Stat(filepath.Join(to, "plexus"))
	if err != nil || before.Mode() != 0o755 {
		t.Fatalf("installed with %v, %v", before.Mode(), err)
	}
	if err = programs.Install(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(filepath.Join(to, "plexus")); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same program was put there again: %v", err)
	}
}

func TestKeepPutsBackAPluginThatSomebodyTakesAway(t *testing.T) {
	t.Parallel()
	from, to := folder(t, map[string]string{"plexus": "ours", "plexusd": "ours"}), t.TempDir()
	node := &Node{
		Conf:     Conf{Dir: folder(t, map[string]string{"10-flannel.conflist": flannel}), SocketDir: "/run/plexus"},
		Programs: Programs{From: from, To: to, Names: []string{"plexus", "plexusd"}},
		Log:      slog.New(slog.DiscardHandler),
	}
	node.InstallPrograms()
	write(t, filepath.Join(to, "plexusd"), "another release's")
	keep(t, node)
	plugin := filepath.Join(to, "plexus")
	for range 2 {
		awaitFile(t, plugin, "ours")
		if err := os.Remove(plugin); err != nil {
			t.Fatal(err)
		}
	}
	awaitFile(t, plugin, "ours")
	if got := read(t, filepath.Join(to, "plexusd")); got != "another release's" {
		t.Errorf("what is there is replaced by %q", got)
	}
}

func TestAPluginThatCanNotBePutBackIsNoReadyNode(t *testing.T) {
	t.Parallel()
	node := &Node{
		Conf:     Conf{Dir: folder(t, map[string]string{"10-flannel.conflist": flannel}), SocketDir: "/run/plexus"},
		Programs: Programs{From: t.TempDir(), To: t.TempDir(), Names: []string{"plexus"}},
		Log:      slog.New(slog.DiscardHandler),
	}
	if next := node.act(); !next.failed || node.Ready() == nil {
		t.Errorf("turn %+v, ready: %v", next, node.Ready())
	}
	if left := names(t, node.Conf.Dir); len(left) != 1 {
		t.Errorf("files %v: a runtime would look for a plugin that is not there", left)
	}
	write(t, filepath.Join(node.Programs.From, "plexus"), "x")
	if next := node.act(); next.failed || node.Ready() != nil {
		t.Errorf("turn %+v, ready: %v", next, node.Ready())
	}
}

func TestUninstall(t *testing.T) {
	t.Parallel()
	t.Run("takes off what is ours", func(t *testing.T) {
		t.Parallel()
		dir, bin := folder(t, map[string]string{"10-flannel.conflist": flannel}), folder(t, map[string]string{"plexus": "x", "bridge": "x"})
		node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Programs: Programs{To: bin, Names: []string{"plexus"}}}
		if _, err := node.Conf.Write(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := node.Uninstall(); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([]string{"10-flannel.conflist", "bridge"}, append(names(t, dir), names(t, bin)...)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	})
	t.Run("leaves what is not", func(t *testing.T) {
		t.Parallel()
		dir := folder(t, map[string]string{ConfName: flannel})
		if err := (&Node{Conf: Conf{Dir: dir}}).Uninstall(); err == nil || len(names(t, dir)) != 1 {
			t.Errorf("Uninstall = %v, left %v", err, names(t, dir))
		}
	})
}

func TestReadersNeverSeeHalfAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ConfName)
	contents := []string{strings.Repeat("a", 100<<10), strings.Repeat("b", 10<<10)}
	write(t, path, contents[0])
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			if _, err := writeFile(path, []byte(contents[i%2])); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		if got := read(t, path); got != contents[0] && got != contents[1] {
			t.Fatalf("read %d bytes that nobody wrote", len(got))
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestParseExtra(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{`{"logLevel":"debug"}`: true, `{}`: true, `[]`: false, `{`: false, `{"type":"x"}`: false} {
		if _, err := ParseExtra([]byte(in)); (err == nil) != ok {
			t.Errorf("ParseExtra(%s) = %v", in, err)
		}
	}
	// As the other meta-plugin's daemon has it.
	extra, err := ParseExtra([]byte(`{"chrootDir": "/hostroot", "cniVersion": "0.3.1", "logLevel": "verbose", "multusConfigFile": "auto", "socketDir": "/host/run/multus/"}`))
	if _, has := extra["cniVersion"]; err != nil || has || len(extra) != 4 {
		t.Errorf("ParseExtra = %s, %v; want all keys but cniVersion", extra, err)
	}
}

func keep(t *testing.T, n *Node) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.Keep(ctx); err != nil {
			t.Errorf("Keep = %v", err)
		}
	})
	stop := func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// logs is a log to look into.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// awaitFile waits until the file has the text.
func awaitFile(t *testing.T, path, text string) {
	t.Helper()
	w, err := dirwatch.New(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		data, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(data), text) {
			return
		}
		if err := w.Wait(ctx); err != nil {
			t.Fatalf("%s never had %q; it has %q: %v", path, text, data, err)
		}
	}
}
