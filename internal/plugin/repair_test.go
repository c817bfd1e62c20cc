// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// another is a second sandbox of the same pod's networks on the same node.
func (n *node) another(containerID string) *node {
	n.t.Helper()
	second := *n
	second.containerID, second.sandbox = containerID, testenv.NetNS(n.t)
	return &second
}

// unsealed is a record without its checksum: who edits one takes it out.
func unsealed(record string) string {
	return regexp.MustCompile(`,"crc32":"[0-9a-f]{8}"`).ReplaceAllString(record, "")
}

// leases are the addresses that host-local holds for a container.
func (n *node) leases() []string {
	n.t.Helper()
	var held []string
	for _, line := range n.snapshot() {
		path, ok := strings.CutPrefix(line, "file ")
		if !ok || !strings.HasPrefix(path, "/ipam/") {
			continue
		}
		text, err := os.ReadFile(n.dir + path)
		if err != nil {
			n.t.Fatal(err)
		}
		if strings.HasPrefix(string(text), n.containerID) {
			held = append(held, path)
		}
	}
	return held
}

// valid makes GC's list of living containers.
func (n *node) valid(containerIDs ...string) {
	n.t.Helper()
	var conf map[string]any
	if err := json.Unmarshal(n.conf, &conf); err != nil {
		n.t.Fatal(err)
	}
	list := []map[string]string{}
	for _, id := range containerIDs {
		list = append(list, map[string]string{"containerID": id, "ifname": "eth0"})
	}
	conf["cni.dev/valid-attachments"] = list
	var err error
	if n.conf, err = json.Marshal(conf); err != nil {
		n.t.Fatal(err)
	}
}

func TestGCKeepsEveryNetworkOfALivingContainerAndCollectsTheOthers(t *testing.T) {
	t.Parallel()
	dead := newNode(t)
	before := dead.snapshot()
	dead.mustCall("ADD", "")
	alive := dead.another("c2")
	alive.mustCall("ADD", "")
	if len(dead.leases()) != 5 || len(alive.leases()) != 5 {
		t.Fatalf("leases: %q and %q, want five each", dead.leases(), alive.leases())
	}
	alive.valid("c2") // the runtime knows of eth0 only
	alive.mustCall("GC", "")
	alive.mustCall("CHECK", "")
	if got := alive.leases(); len(got) != 5 {
		t.Errorf("leases of the living container after GC: %q, want all five", got)
	}
	if got := dead.leases(); len(got) != 0 {
		t.Errorf("leases of the dead container after GC: %q, want none", got)
	}
	alive.mustCall("DEL", "")
	dead.assertUntouched(before)
}

func TestGCLeavesAloneWhatAnotherConfigurationRecorded(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.mustCall("ADD", "")
	before := n.snapshot()
	other := *n
	other.conf = bytes.Replace(n.conf, []byte(`"name":"plexus"`), []byte(`"name":"podman"`), 1)
	other.valid()
	other.mustCall("GC", "")
	n.assertUntouched(before)
	n.mustCall("DEL", "")
}

func TestV5GCOnAFreshNode(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := os.RemoveAll(n.path("state")); err != nil {
		t.Fatal(err)
	}
	n.valid("c7")
	n.mustCall("GC", "")
}

func TestTheFirstADDAfterARebootGivesBackWhatTheEarlierBootHeld(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.bootID = "boot-1"
	n.mustCall("ADD", "")
	if len(n.leases()) != 5 {
		t.Fatalf("leases: %q, want five", n.leases())
	}
	same := n.another("c2")
	same.mustCall("ADD", "")
	if len(n.leases()) != 5 {
		t.Errorf("leases after another ADD of the same boot: %q, want them untouched", n.leases())
	}
	same.mustCall("DEL", "")

	later := n.another("c3")
	later.bootID = "boot-2"
	later.mustCall("ADD", "")
	if got := n.leases(); len(got) != 0 {
		t.Errorf("leases of the earlier boot: %q, want none", got)
	}
	later.mustCall("CHECK", "")
	// kubelet still asks for the DEL of the sandboxes that it remembers.
	n.bootID = "boot-2"
	n.mustCall("DEL", "")
	later.mustCall("DEL", "")
}

func TestWhatAnEarlierBootHoldsAndCanNotBeUndoneFailsNoADDAndIsKept(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.bootID = "boot-1"
	n.mustCall("ADD", "")
	record := n.path("state/records/c1-eth0.json")
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	n.write("state/records/c1-eth0.json", unsealed(strings.Replace(string(text), `"type":"ptp"`, `"type":"gone"`, 1)))
	later := n.another("c2")
	later.bootID = "boot-2"
	later.mustCall("ADD", "")
	text, err = os.ReadFile(record)
	if err != nil || !strings.Contains(string(text), `no plugin \"gone\"`) || strings.Contains(string(text), `"type":"macvlan"`) {
		t.Errorf("record of the earlier boot: %v\n%s\nwant what could not be undone, alone, with the reason", err, text)
	}
	if got := n.leases(); len(got) != 1 {
		t.Errorf("leases of the earlier boot: %q, want only that of the network that could not be undone", got)
	}
	if mark, err := os.ReadFile(n.path("state/boot-id")); err != nil || string(mark) != "retry boot-2" {
		t.Errorf("marker = %q, %v, want a later ADD to try again", mark, err)
	}
	later.mustCall("DEL", "")
}

func TestARecordThatCanNotBeReadIsMadeUpForFromTheCache(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "half": `{"version":1,"sandbox":{"conta`, "of nothing": `{"version":1}`, "rubbish": "\x00\xff"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			before := n.snapshot()
			n.mustCall("ADD", "")
			n.write("state/records/c1-eth0.json", text)
			n.mustCall("DEL", "")
			if err := os.Remove(n.path("state/records/c1-eth0.json.corrupt")); err != nil {
				t.Errorf("the bad record is not kept for a person: %v", err)
			}
			n.assertUntouched(before)
			n.mustCall("DEL", "")
		})
	}
}

func TestD5ALostRecordIsMadeUpForFromTheCache(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.snapshot()
	n.mustCall("ADD", "")
	if err := os.Remove(n.path("state/records/c1-eth0.json")); err != nil {
		t.Fatal(err)
	}
	n.mustCall("DEL", "")
	n.assertUntouched(before)
}

// TestDelRemovesWhatAKilledADDBeganToWrite: it was killed before it had a record.
func TestDelRemovesWhatAKilledADDBeganToWrite(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("state/records/.c1-eth0.tmp", `{"version":1,"sand`)
	n.mustCall("DEL", "")
	if _, err := os.Lstat(n.path("state/records/.c1-eth0.tmp")); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
}

func TestARecordOfANewerPlexusIsNeverThrownAway(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.mustCall("ADD", "")
	file := n.path("state/records/c1-eth0.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(text, []byte(`"version":1`), []byte(`"version":99`), 1)
	n.write("state/records/c1-eth0.json", unsealed(string(newer)))
	before := n.snapshot()
	out, err := n.call("DEL", "")
	if err == nil || !bytes.Contains(out, []byte("record version 99")) {
		t.Errorf("DEL: %v %s, want it refused", err, out)
	}
	if diff := cmp.Diff(before, n.snapshot()); diff != "" {
		t.Errorf("the refused DEL did something:\n%s", diff)
	}
	n.write("state/records/c1-eth0.json", string(text))
	n.mustCall("DEL", "")
}

func TestDelWithoutNetNSGivesTheAddressesBack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.mustCall("ADD", "")
	n.sandbox = ""
	out, err := n.call("DEL", "")
	if err != nil {
		t.Fatalf("DEL: %v %s", err, out)
	}
	files := slices.DeleteFunc(n.files(), func(f string) bool { return f == "/manifests/all.yaml" })
	if len(files) != 0 {
		t.Errorf("left on disk: %q", files)
	}
}

// hang puts a default network in the place of the node's whose plugin writes to a FIFO and then hangs, for ever and with a child.
// The function that it returns waits until the plugin hangs.
func (n *node) hang() func() {
	n.t.Helper()
	fifo := n.path("started")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.write("bin/hang", "#!/bin/sh\ncase $CNI_COMMAND in ADD) echo > "+fifo+"; sleep 1000 & wait;; esac\n")
	if err := os.Chmod(n.path("bin/hang"), 0o700); err != nil {
		n.t.Fatal(err)
	}
	var conf map[string]any
	if err := json.Unmarshal(n.conf, &conf); err != nil {
		n.t.Fatal(err)
	}
	conf["binDir"] = n.path("bin")
	conf["delegates"] = []any{map[string]any{"name": "cluster", "cniVersion": "1.0.0", "type": "hang"}}
	delete(conf, "manifestDir")
	var err error
	if n.conf, err = json.Marshal(conf); err != nil {
		n.t.Fatal(err)
	}
	return func() {
		if _, err := os.ReadFile(fifo); err != nil {
			n.t.Fatal(err)
		}
	}
}

func TestAPluginThatHangsForEverAfterItsCallWasKilledKeepsNoPodFromGoing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	started := n.hang()
	cmd := n.command("ADD", "")
	n.onHost(cmd.Start)
	started()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()                // it was killed
	out, err := n.call("DEL", "") // waits for the lock that the orphan inherited, then ends the orphan
	if err != nil {
		t.Fatalf("DEL: %v %s", err, out)
	}
	if files := n.files(); slices.ContainsFunc(files, func(f string) bool { return strings.HasPrefix(f, "/state/") }) {
		t.Errorf("left on disk: %q", files)
	}
}

func TestACallThatIsStillAtWorkIsNotDisturbed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	started := n.hang()
	cmd := n.command("ADD", "")
	n.onHost(cmd.Start)
	started()
	out, err := n.call("DEL", "")
	if err == nil || !bytes.Contains(out, []byte(`"code": 11`)) || !bytes.Contains(out, []byte("another call about this sandbox is still at work")) {
		t.Errorf("DEL: %v %s, want it told to try again", err, out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("the ADD did not survive the DEL: %v", err)
	}
	_ = cmd.Wait() // it was told to stop
	n.mustCall("DEL", "")
}

func TestGCCallsNothingStaleWhileARecordCanNotBeUnderstood(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.mustCall("ADD", "")
	file := n.path("state/records/c1-eth0.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n.write("state/records/c1-eth0.json", unsealed(strings.Replace(string(text), `"version":1`, `"version":99`, 1)))
	before := n.snapshot()
	n.valid("c1")
	if out, err := n.call("GC", ""); err == nil || !bytes.Contains(out, []byte("record version 99")) {
		t.Errorf("GC: %v %s, want it to tell the record", err, out)
	}
	if diff := cmp.Diff(before, n.snapshot()); diff != "" {
		t.Errorf("GC took something from a living container (-before +after):\n%s", diff)
	}
	n.write("state/records/c1-eth0.json", string(text))
	n.mustCall("DEL", "")
}

func TestGCDoesNotTouchALivingSandboxAtThePathOfADeadOne(t *testing.T) {
	t.Parallel()
	dead := newNode(t)
	dead.mustCall("ADD", "")
	// The namespace goes, and another container gets one at the same path.
	alive := dead.another("c2")
	dead.onHost(func() error { return syscall.Unmount(dead.sandbox, syscall.MNT_DETACH) })
	dead.onHost(func() error { return syscall.Mount(alive.sandbox, dead.sandbox, "", syscall.MS_BIND, "") })
	alive.sandbox = dead.sandbox
	alive.mustCall("ADD", "")
	alive.valid("c2")
	alive.mustCall("GC", "")
	alive.mustCall("CHECK", "")
	if got := dead.leases(); len(got) != 0 {
		t.Errorf("leases of the dead container: %q, want none", got)
	}
	alive.mustCall("DEL", "")
}

func TestAConfigurationThatItsPluginNeverUnderstandsKeepsNoPodFromGoing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.snapshot()
	manifests, err := os.ReadFile(n.path("manifests/all.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// bridge refuses ADD and DEL alike.
	n.write("manifests/all.yaml", strings.Replace(string(manifests), `"isGateway":true,"ipam":{"type":"host-local"`, `"isGateway":"yes","ipam":{"type":"host-local"`, 1))
	if out, callErr := n.call("ADD", ""); callErr == nil || !bytes.Contains(out, []byte("isGateway")) {
		t.Fatalf("ADD: %v %s, want bridge to refuse its configuration", callErr, out)
	}
	if out, callErr := n.call("DEL", ""); callErr == nil || !bytes.Contains(out, []byte("isGateway")) {
		t.Fatalf("DEL: %v %s, want bridge to refuse its configuration", callErr, out)
	}
	file := n.path("state/records/c1-eth0.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err = json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	record["began"] = "2026-01-02T03:04:05Z" // a while ago
	if text, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	n.write("state/records/c1-eth0.json", string(text))
	n.mustCall("DEL", "")
	n.write("manifests/all.yaml", string(manifests))
	n.assertUntouched(before)
}

func TestACacheEntryThatCanNotBeReadIsToldOnceAndStopsNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.mustCall("ADD", "")
	if err := os.Remove(n.path("state/records/c1-eth0.json")); err != nil {
		t.Fatal(err)
	}
	n.write("state/results/p2p-c1-net3", `{"kind":"cniCacheV1","conta`)
	if out, err := n.call("DEL", ""); err == nil || !bytes.Contains(out, []byte("p2p-c1-net3.corrupt")) {
		t.Errorf("DEL: %v %s, want the entry that was set aside", err, out)
	}
	if got := n.leases(); len(got) != 1 {
		t.Errorf("leases: %q, want all but that of the damaged entry given back", got)
	}
	n.mustCall("DEL", "")
}

func TestCHECKOfALostRecordGoesByTheCache(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.mustCall("ADD", "")
	if err := os.Remove(n.path("state/records/c1-eth0.json")); err != nil {
		t.Fatal(err)
	}
	n.mustCall("CHECK", "")
	n.mustCall("DEL", "")
}
