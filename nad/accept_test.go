// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeysOfTheRuntimeAreRefusedInNewConfigurationsAndReadInRecords(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"runtimeConfig", "RuntimeConfig", "prevResult", "PREVRESULT", "cni.dev/valid-attachments", "CNI.dev/attachments"} {
		value := "{}"
		if strings.Contains(key, "/") {
			value = "[]"
		}
		plugin := `{"type":"x","` + key + `":` + value + `}`
		for _, config := range []string{plugin, `{"plugins":[{"type":"y"},` + plugin + `]}`} {
			_, err := Normalize([]byte(config), testDefaults)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "remove it") {
				t.Errorf("Normalize(%s) = %v, want an error that names %s", config, err, key)
			}
		}
		file := filepath.Join(t.TempDir(), "a.conf")
		if err := os.WriteFile(file, []byte(plugin), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := LoadPath(file, "plexus", testDefaults); !errors.Is(err, ErrInvalid) {
			t.Errorf("LoadPath of %s = %v, want an error", plugin, err)
		}
		list, err := Recorded([]byte(plugin), testDefaults)
		if err != nil {
			t.Fatalf("Recorded(%s) = %v", plugin, err)
		}
		var again List
		if err := json.Unmarshal(list.Bytes(), &again); err != nil {
			t.Errorf("a record with %s cannot be read: %v", key, err)
		}
	}
}

func TestNestedTypes(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"type":"x"}`: nil,
		`{"type":"x","ipam":{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/8"}]]}}`:           {"host-local"},
		`{"type":"flannel","delegate":{"type":"bridge","ipam":{"type":"dhcp"}}}`:                   {"bridge", "dhcp"},
		`{"type":"x","Delegates":[{"plugins":[{"type":"a"},{"TYPE":"plexus"}]},7,null,[{}]]}`:      {"a", "plexus"},
		`{"plugins":[{"type":"x","ipam":{"type":"a"}},{"type":"y","delegate":{"type":"plexus"}}]}`: {"a", "plexus"},
		`{"type":"x","qos":{"type":"plexus"}}`:                                                     nil,
	} {
		list, err := Normalize([]byte(config), testDefaults)
		if err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		if diff := cmp.Diff(want, list.NestedTypes()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", config, diff)
		}
		if got, want := list.Calls("plexus"), strings.Contains(strings.Join(want, " "), "plexus"); got != want {
			t.Errorf("%s: Calls = %v", config, got)
		}
	}
}

// TestNestedKeysAreThereOnce: readers differ in which of two they take.
func TestNestedKeysAreThereOnce(t *testing.T) {
	t.Parallel()
	for _, config := range []string{
		`{"type":"x","ipam":{"type":"host-local","Type":"plexus"}}`,
		`{"type":"x","ipam":{"type":"evil","type":null}}`,
		`{"type":"x","delegate":{"type":"b","ipam":{"type":"evil"},"ipam":{}}}`,
		`{"type":"x","delegates":[{"type":"a","args":{"k":1,"K":2}}]}`,
	} {
		if _, err := Normalize([]byte(config), testDefaults); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", config, err)
		}
		if _, err := Recorded([]byte(config), testDefaults); err != nil {
			t.Errorf("a record of %s cannot be read: %v", config, err)
		}
	}
}

func TestTakesDevice(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]bool{
		`{"type":"cnv-bridge"}`: false, `{"type":"ovs"}`: false, `{"type":"sriov"}`: true, `{"type":"host-device"}`: true,
		`{"plugins":[{"type":"mine","capabilities":{"deviceID":true}}]}`: true, `{"type":"mine","capabilities":{"deviceID":false}}`: false,
	} {
		if list, err := Normalize([]byte(config), testDefaults); err != nil || list.TakesDevice() != want {
			t.Errorf("%s: TakesDevice = %v, %v; want %v", config, list.TakesDevice(), err, want)
		}
	}
}

func TestALoopbackIsNobodysNetwork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("00-lo.conf", `{"cniVersion":"0.4.0","name":"lo","type":"loopback"}`)
	if list, _, err := LoadPath(dir, "plexus", testDefaults); !errors.Is(err, ErrNotFound) {
		t.Errorf("LoadPath of a folder that has loopback alone = %v, %v; want ErrNotFound", list, err)
	}
	write("10-net.conf", `{"cniVersion":"0.4.0","name":"net","type":"bridge"}`)
	if list, _, err := LoadPath(dir, "plexus", testDefaults); err != nil || list.Name() != "net" {
		t.Errorf("LoadPath = %v, %v; want the network behind it", list, err)
	}
}
