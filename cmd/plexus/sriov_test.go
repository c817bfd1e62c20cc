// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnderTheNameSRIOV runs the program as it is installed for another meta-plugin: by a link, as the plugin sriov.
func TestUnderTheNameSRIOV(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "sriov")
	if err := os.Symlink(buildPlugin(t), program); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		Code              uint     `json:"code"`
		Msg               string   `json:"msg"`
		SupportedVersions []string `json:"supportedVersions"`
	}
	for name, tc := range map[string]struct {
		verb, conf string
		code       uint
		want       string
	}{
		"its versions":           {verb: "VERSION", conf: ""},
		"a VF that is not there": {verb: "STATUS", conf: `{"cniVersion":"1.1.0","name":"n","type":"sriov","deviceID":"ffff:ff:1f.7"}`, code: 50, want: "ffff:ff:1f.7"},
		"a bad configuration":    {verb: "ADD", conf: `{"cniVersion":"1.1.0","name":"n","type":"sriov","deviceID":"ffff:ff:1f.7","vlan":4095}`, code: 7, want: `"vlan" is 4095`},
		"no device":              {verb: "ADD", conf: `{"cniVersion":"0.3.1","name":"n","type":"sriov"}`, code: 7, want: "k8s.v1.cni.cncf.io/resourceName"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), program)
			cmd.Env = []string{"CNI_COMMAND=" + tc.verb, "CNI_CONTAINERID=c", "CNI_NETNS=/run/netns/of-a-test", "CNI_IFNAME=net1", "CNI_PATH=/nowhere"}
			cmd.Stdin = strings.NewReader(tc.conf)
			out, err := cmd.Output()
			if (err != nil) != (tc.code != 0) {
				t.Fatalf("it ended with %v: %s", err, out)
			}
			var got answer
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("it printed %s: %v", out, err)
			}
			if got.Code != tc.code || !strings.Contains(got.Msg, tc.want) || strings.Contains(got.Msg, "plexus: ") {
				t.Errorf("it printed %s, want code %d and %q", out, tc.code, tc.want)
			}
			if tc.verb == "VERSION" && (len(got.SupportedVersions) == 0 || got.SupportedVersions[len(got.SupportedVersions)-1] != "1.1.0") {
				t.Errorf("versions %v", got.SupportedVersions)
			}
		})
	}
}
