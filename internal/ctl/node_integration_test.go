// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// livePod is the pod default/web of the example dual-stack, attached to real networks, with a log.
type livePod struct {
	*node

	netns, log string
}

// gateway is the node's address in the pod's default network.
const gateway = "10.201.0.1"

func newLivePod(t *testing.T) *livePod {
	t.Helper()
	p := &livePod{node: newNode(t, "dual-stack"), netns: testenv.NetNS(t)}
	p.log = filepath.Join(p.dir, "plexus.log")
	conf, err := os.ReadFile(p.conf())
	if err != nil {
		t.Fatal(err)
	}
	logging := fmt.Sprintf(`"type":"plexus","logFile":%q,"logLevel":"debug","cniDir":%q,`, p.log, p.state())
	write(t, p.conf(), strings.Replace(string(conf), `"type":"plexus",`, logging, 1))
	if _, stderr, code := p.run(t, "attach", "web", "--netns", p.netns); code != 0 {
		t.Fatalf("attach: %s", stderr)
	}
	return p // what it holds goes with its namespaces and folder
}

func (p *livePod) conf() string { return filepath.Join(p.manifests(), confName) }

// start starts plexusctl on the node, to look at the pod.
func (p *livePod) start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(p.binDirs[0], "plexusctl"), append(args, "--conf", p.conf())...)
	cmd.Stdout, cmd.Stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return cmd
}

// look runs plexusctl on the node to its end.
func (p *livePod) look(t *testing.T, args ...string) (string, string, int) {
	t.Helper()
	cmd := p.start(t, args...)
	testenv.Do(t, p.node.netns, cmd.Start)
	return p.wait(t, cmd)
}

func (p *livePod) wait(t *testing.T, cmd *exec.Cmd) (string, string, int) {
	t.Helper()
	code := 0
	if err := cmd.Wait(); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	return fmt.Sprint(cmd.Stdout), fmt.Sprint(cmd.Stderr), code
}

// ping sends ICMP echo requests (RFC 792) from the pod to its gateway until stopped.
func (p *livePod) ping(t *testing.T) {
	t.Helper()
	var conn *net.IPConn
	testenv.Do(t, p.netns, func() error {
		var err error
		conn, err = net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: net.ParseIP(gateway)})
		return err
	})
	request := []byte{8, 0, 0, 0, 0x70, 0x6c, 0, 1}
	binary.BigEndian.PutUint16(request[2:], ^uint16(0x0800+0x706c+1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for range pace.C {
			if _, err := conn.Write(request); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
}

// icmp counts the packets of a pcap file, and the echo requests and replies among them.
func icmp(t *testing.T, file []byte) (int, int, int) {
	t.Helper()
	if len(file) < 24 || binary.LittleEndian.Uint32(file) != 0xa1b23c4d || binary.LittleEndian.Uint32(file[20:]) != 1 {
		t.Fatalf("no header of a pcap file with nanoseconds and Ethernet in %d bytes", len(file))
	}
	packets, requests, replies := 0, 0, 0
	for rest := file[24:]; len(rest) > 0; packets++ {
		if len(rest) < 16 {
			t.Fatalf("%d bytes are left after packet %d", len(rest), packets)
		}
		kept := binary.LittleEndian.Uint32(rest[8:])
		frame := rest[16 : 16+kept]
		rest = rest[16+kept:]
		if len(frame) < 35 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[23] != 1 {
			continue
		}
		switch frame[34] {
		case 8:
			requests++
		case 0:
			replies++
		}
	}
	return packets, requests, replies
}

func TestProgramShowsAPodAndWhatBreaksIt(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	stdout, stderr, code := p.look(t, "status", "web", "-o", "json", "--state-dir", p.state())
	var pods []inspect.Pod
	if err := json.Unmarshal([]byte(stdout), &pods); err != nil || code != 0 || stderr != "" {
		t.Fatalf("status: code %d, %v, stdout %s, stderr %s", code, err, stdout, stderr)
	}
	if len(pods) != 1 || pods[0].State != inspect.Attached || !pods[0].Seen || pods[0].NetNS != p.netns || len(pods[0].Interfaces) != 2 {
		t.Fatalf("status = %+v; want pod web, attached, with two interfaces", pods)
	}
	for i, want := range []struct{ name, link, routes string }{{"eth0", "plexus-default", "[{4 10.201.0.1} {6 fd00:201::1}]"}, {"net1", "plexus-sites", "[]"}} {
		got := pods[0].Interfaces[i]
		if got.Name != want.name || got.HostLink != want.link || got.Live == nil || !got.Live.Up || !got.Live.Carrier || len(got.Addresses()) != 2 ||
			fmt.Sprint(got.Live.DefaultRoutes) != want.routes || got.Live.MAC != got.Recorded.MAC {
			t.Errorf("interface %+v, live %+v; want %+v", got, got.Live, want)
		}
	}
	for _, format := range []string{"table", "wide", "yaml", "dot", "svg"} {
		// The state folder is in the configuration.
		if stdout, stderr, code := p.look(t, "status", "-n", "default", "-o", format); code != 0 || stderr != "" || !strings.Contains(stdout, "default/sites") {
			t.Errorf("status -o %s: code %d, stdout %s, stderr %s", format, code, stdout, stderr)
		}
	}
	h := testenv.Handle(t, p.netns)
	link, err := h.LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what  string
		do    func(netlink.Link) error
		wants []string
	}{
		{"is set down", h.LinkSetDown, []string{"net1 (network default/sites) is down"}},
		{"is removed", h.LinkDel, []string{"net1 (network default/sites) is no longer there", "missing"}},
	} {
		if err := tc.do(link); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := p.look(t, "status", "default/web")
		if code != 1 || stderr != "plexusctl: something is wrong with pod default/web\n" {
			t.Errorf("status after net1 %s: code %d, stderr %q", tc.what, code, stderr)
		}
		for _, want := range tc.wants {
			if !strings.Contains(stdout, want) {
				t.Errorf("status after net1 %s:\n%s\nwant %q", tc.what, stdout, want)
			}
		}
	}
	if stdout, _, code := p.look(t, "status", "--recorded"); code != 0 || strings.Contains(stdout, "missing") {
		t.Errorf("status --recorded: code %d, %s; want what is on record", code, stdout)
	}
}

func TestProgramLooksAtANodeBelowAnotherRoot(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "plexus"), os.DirFS(p.state())); err != nil {
		t.Fatal(err)
	}
	cmd := p.start(t, "status", "--recorded", "--root", root, "--state-dir", "/plexus")
	cmd.Args = cmd.Args[:len(cmd.Args)-2] // without the configuration, which is elsewhere
	testenv.Do(t, p.node.netns, cmd.Start)
	if stdout, stderr, code := p.wait(t, cmd); code != 0 || !strings.Contains(stdout, "pod default/web") {
		t.Errorf("status: code %d, stdout %s, stderr %s", code, stdout, stderr)
	}
}

func TestProgramTraces(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	// The log is rotated, and goes on as JSON.
	if err := os.Rename(p.log, filepath.Join(p.dir, "plexus-20260101T000000Z.log")); err != nil {
		t.Fatal(err)
	}
	write(t, p.log, `{"time":"2040-01-02T03:04:05Z","level":"ERROR","msg":"CHECK failed","verb":"CHECK","pod":"default/web","took":2000000,"error":"no carrier"}`+"\n")
	stdout, stderr, code := p.look(t, "trace", "web")
	for _, want := range []string{"pod default/web  log " + p.log, "ADD", "done", "CHECK", "2ms", "failed: no carrier", "on record since", "default/sites"} {
		if !strings.Contains(stdout, want) || code != 0 {
			t.Errorf("trace: code %d, stderr %s, want %q in\n%s", code, stderr, want, stdout)
		}
	}
	if _, stderr, code = p.run(t, "detach"); code != 0 {
		t.Fatal(stderr)
	}
	// The record is gone, the log is not.
	stdout, stderr, code = p.look(t, "trace", "web", "-o", "json")
	var got traced
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 {
		t.Fatalf("trace: code %d, stderr %s, %v", code, stderr, err)
	}
	var verbs []string
	for _, e := range got.Events {
		if e.Verb != "" {
			verbs = append(verbs, e.Verb)
		}
	}
	if got.Pod != "default/web" || !slices.Equal(verbs, []string{"ADD", "DEL", "CHECK"}) || got.Events[0].Took <= 0 || len(got.Records) != 0 {
		t.Errorf("trace = %+v; want an ADD that took a while, a DEL and a CHECK, and no record", got)
	}
	if _, stderr, code = p.look(t, "trace", "nobody"); code != 1 || !strings.Contains(stderr, "no pod nobody is on record on this node, nor in the log") {
		t.Errorf("trace of nobody: code %d, stderr %s", code, stderr)
	}
}

func TestProgramCapturesAsManyPacketsAsAskedFor(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	p.ping(t)
	file := filepath.Join(p.dir, "eth0.pcap")
	stdout, stderr, code := p.look(t, "capture", "web", "eth0", "-c", "40", "-w", file)
	if code != 0 || stdout != "" || !strings.Contains(stderr, "40 packets captured, 0 dropped by the kernel\n") {
		t.Fatalf("capture: code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if packets, requests, replies := icmp(t, data); packets != 40 || requests < 5 || replies < 5 {
		t.Errorf("%d packets, %d ICMP echo requests, %d replies; want 40, and some of either", packets, requests, replies)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	start := time.Now()
	if _, stderr, code = p.look(t, "capture", "web", "net1", "-d", "300ms", "-w", file); code != 0 || time.Since(start) > 30*time.Second {
		t.Errorf("capture for 300 ms: code %d after %v, stderr %s", code, time.Since(start), stderr)
	}
	if _, stderr, code = p.look(t, "capture", "web", "net7", "-w", file); code != 1 || !strings.Contains(stderr, "name one of eth0, net1, or lo") {
		t.Errorf("capture on net7: code %d, stderr %s", code, stderr)
	}
}

// TestProgramShowsWhatAFilterPasses: the kernel runs the filter, and packets are lines of text.
func TestProgramShowsWhatAFilterPasses(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	p.ping(t)
	stdout, stderr, code := p.look(t, "capture", "web", "eth0", "-c", "5", "icmp", "and", "src", "host", gateway)
	if code != 0 || strings.Count(stdout, " IP "+gateway+" > ") != 5 || strings.Count(stdout, ": echo reply id 28780 seq 1 length 8\n") != 5 || !strings.Contains(stderr, "5 packets captured") {
		t.Errorf("capture of replies: code %d, stderr %q, stdout\n%s", code, stderr, stdout)
	}
	if stdout, stderr, code = p.look(t, "capture", "web", "eth0", "-d", "300ms", "tcp port 1"); code != 0 || stdout != "" || !strings.Contains(stderr, "0 packets captured") {
		t.Errorf("capture of nothing: code %d, stderr %q, stdout\n%s", code, stderr, stdout)
	}
	if _, stderr, code = p.look(t, "capture", "web", "eth0", "port", "http"); code != 1 || !strings.Contains(stderr, `invalid filter: port "http": use 0 to 65535`) {
		t.Errorf("capture by a bad filter: code %d, stderr %q", code, stderr)
	}
}

func TestProgramEndsACaptureCleanly(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	p.ping(t)
	for name, end := range map[string]func(*exec.Cmd, io.Closer) error{
		"on ctrl-C":               func(cmd *exec.Cmd, _ io.Closer) error { return cmd.Process.Signal(syscall.SIGINT) },
		"at the end of its input": func(_ *exec.Cmd, stdin io.Closer) error { return stdin.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := p.start(t, "capture", "default/web", "eth0", "-c", "10000000", "-w", "-", "--until-eof")
			cmd.Stdout = nil
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			testenv.Do(t, p.node.netns, cmd.Start)
			// Packets come out while it runs.
			seen := make([]byte, 24+20*(16+42))
			if _, err = io.ReadFull(stdout, seen); err != nil {
				t.Fatalf("%v, stderr %s", err, cmd.Stderr)
			}
			if err = end(cmd, stdin); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(stdout)
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v, stderr %s", err, cmd.Stderr)
			}
			packets, requests, replies := icmp(t, append(seen, rest...))
			if want := fmt.Sprintf("%d packets captured", packets); requests == 0 || replies == 0 || !strings.Contains(fmt.Sprint(cmd.Stderr), want) {
				t.Errorf("%d requests, %d replies, stderr %q; want some of either, and %q", requests, replies, cmd.Stderr, want)
			}
		})
	}
}

func TestProgramShowsRates(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	p.ping(t)
	stdout, stderr, code := p.look(t, "stats", "web", "--interval", "200ms", "--count", "2")
	if code != 0 || stderr != "" || strings.Count(stdout, "pod default/web") != 2 || strings.Count(stdout, "default/sites") != 2 {
		t.Fatalf("stats: code %d, stderr %s, stdout\n%s", code, stderr, stdout)
	}
	for line := range strings.Lines(stdout) {
		if f := strings.Fields(line); len(f) == 10 && f[0] == "eth0" && (f[2] == "0" || f[3] == "0" || f[6] == "0" || f[7] == "0") {
			t.Errorf("no bits or packets on eth0, which pings go through: %s", line)
		}
	}
	read := func() counters {
		stdout, stderr, code := p.look(t, "stats", "web", "-o", "json")
		var c counters
		if err := json.Unmarshal([]byte(stdout), &c); err != nil || code != 0 || len(c.Interfaces) != 2 {
			t.Fatalf("stats -o json: code %d, %v, stderr %s, stdout %s", code, err, stderr, stdout)
		}
		return c
	}
	before := read()
	eventually(t, func() string {
		if now := read(); now.Interfaces[0].Rx.Packets <= before.Interfaces[0].Rx.Packets || now.Interfaces[0].Tx.Bytes <= before.Interfaces[0].Tx.Bytes {
			return fmt.Sprintf("counters of %s do not move", now.Interfaces[0].Name)
		}
		return ""
	})
}
