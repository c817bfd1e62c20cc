// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

const loopback = `{"cniVersion":"0.4.0","name":"lo","type":"loopback"}`

// TestLoopbackIsNobodysPodNetwork has the file that nodes have before their network is installed.
func TestLoopbackIsNobodysPodNetwork(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"99-loopback.conf": loopback})
	c := Conf{Dir: dir, SocketDir: "/run/plexus"}
	if o, err := c.Write(); !errors.Is(err, ErrNoPrimary) || o.Wrote || !strings.Contains(err.Error(), "loopback interface") {
		t.Errorf("Write = %+v, %v; want ErrNoPrimary", o, err)
	}
	c.Primary = "99-loopback.conf"
	if _, err := c.Write(); !errors.Is(err, ErrNoPrimary) {
		t.Errorf("Write of the one that is named = %v, want ErrNoPrimary", err)
	}
	c.Primary = ""
	write(t, filepath.Join(dir, "99-z.conflist"), flannel)
	if o, err := c.Write(); err != nil || filepath.Base(o.Primary) != "99-z.conflist" || len(o.Warnings) != 1 {
		t.Errorf("Write = %+v, %v; want the network that sorts after it", o, err)
	}
}

func TestProgramsThatAreElsewhereAreLookedForThere(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		binDir string
		extra  map[string]json.RawMessage
		want   any
	}{
		"the default is not written":   {"/opt/cni/bin/", nil, nil},
		"the runtime's folder is":      {"/home/kubernetes/bin", nil, "/home/kubernetes/bin"},
		"a key of the operator's wins": {"/home/kubernetes/bin", map[string]json.RawMessage{"binDir": json.RawMessage(`"/x"`)}, "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Conf{Dir: folder(t, map[string]string{"10-flannel.conflist": flannel}), SocketDir: "/run/plexus", BinDir: tc.binDir, Extra: tc.extra}
			if _, err := c.Write(); err != nil {
				t.Fatal(err)
			}
			var list struct{ Plugins []map[string]any }
			if err := json.Unmarshal([]byte(read(t, filepath.Join(c.Dir, ConfName))), &list); err != nil || list.Plugins[0]["binDir"] != tc.want {
				t.Errorf("binDir %v, %v; want %v", list.Plugins[0]["binDir"], err, tc.want)
			}
		})
	}
}

func TestKeysThatCanNotBeUsedLeaveWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"10-flannel.conflist": flannel})
	bad := errors.New("--plugin-conf plugin.json: write one JSON object")
	if o, err := (Conf{Dir: dir, SocketDir: "/run/plexus", ExtraErr: bad}).Write(); !errors.Is(err, bad) || o.Wrote {
		t.Errorf("Write = %+v, %v; want %v", o, err, bad)
	}
}

func TestANamedPrimaryOutsideOfTheFolder(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"10-flannel.conflist": flannel})
	name := func(path string) map[string]json.RawMessage {
		return map[string]json.RawMessage{"clusterNetwork": json.RawMessage(`"` + path + `"`)}
	}
	there := filepath.Join(folder(t, map[string]string{"10-ovn.conflist": flannel}), "10-ovn.conflist")
	if o, err := (Conf{Dir: dir, SocketDir: "/r", Extra: name(there)}).Write(); err != nil || o.Primary != there || len(o.Warnings) > 0 {
		t.Errorf("Write = %+v, %v; want %s", o, err, there)
	}
	o, err := (Conf{Dir: dir, SocketDir: "/r", Extra: name("/nowhere/10-ovn.conflist")}).Write()
	if err != nil || len(o.Warnings) != 1 || !strings.Contains(o.Warnings[0], "mount its folder") {
		t.Errorf("Write = %+v, %v; want a warning", o, err)
	}
	if _, err := (Conf{Dir: dir, SocketDir: "/r", Extra: name(filepath.Join(dir, "11-none.conflist"))}).Write(); !errors.Is(err, ErrNoPrimary) {
		t.Errorf("Write = %v, want ErrNoPrimary", err)
	}
}

// TestAPrimaryWhoseGarbageOthersCollect is about CRI-O, which has each file of the folder collect, with the attachments that it made itself.
func TestAPrimaryWhoseGarbageOthersCollect(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"bridge"}]}`:                            true,
		`{"cniVersion":"1.1.0","name":"n","disableGC":true,"plugins":[{"type":"bridge"}]}`:           false,
		`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"}]}`:                            false,
		`{"cniVersions":["1.0.0","1.1.0"],"cniVersion":"1.0.0","name":"n","plugins":[{"type":"b"}]}`: true,
	} {
		said := &logs{}
		dir := folder(t, map[string]string{"10-n.conflist": text})
		node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus"}, Log: slog.New(slog.NewTextHandler(said, nil))}
		node.act()
		node.act()
		if got := strings.Count(said.String(), "disableGC"); got != map[bool]int{true: 1, false: 0}[want] {
			t.Errorf("%s: said %d times; log: %s", text, got, said)
		}
	}
}
