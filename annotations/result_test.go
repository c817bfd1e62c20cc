// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPodInterfaces has the results of real plugins; the sandbox is /run/netns/pod, asked for is eth0.
func TestPodInterfaces(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		result string
		want   []string
	}{
		"bridge: host's ends, and the pod's": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},{"name":"veth1"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/run/netns/pod"}],"ips":[{"interface":2,"address":"10.1.0.2/24"}]}`,
			[]string{"eth0 02:00:00:00:00:01 [10.1.0.2/24]"},
		},
		"AWS VPC CNI: a sandbox 0 is none": {
			`{"cniVersion":"0.4.0","interfaces":[{"name":"eni1"},{"name":"eth0","sandbox":"/run/netns/pod"},{"name":"dummy1","mac":"0","sandbox":"0"}],"ips":[{"version":"4","interface":1,"address":"10.24.136.194/32"}]}`,
			[]string{"eth0  [10.24.136.194/32]"},
		},
		"Calico: the host's end alone, addresses are the pod's": {
			`{"cniVersion":"0.3.1","interfaces":[{"name":"cali1","mac":"ee:ee:ee:ee:ee:ee"}],"ips":[{"version":"4","address":"192.168.1.5/32"}]}`,
			[]string{"eth0  [192.168.1.5/32]"},
		},
		"Azure: addresses of an interface outside": {
			`{"cniVersion":"0.3.0","interfaces":[{"name":"eth0"}],"ips":[{"version":"4","interface":0,"address":"10.240.0.7/16"}]}`,
			[]string{"eth0  [10.240.0.7/16]"},
		},
		"CNI 0.2.0": {`{"cniVersion":"0.2.0","ip4":{"ip":"10.9.0.2/24"}}`, []string{"eth0  [10.9.0.2/24]"}},
		"nothing":   {`{"cniVersion":"1.0.0"}`, []string{"eth0  []"}},
		"bond: renamed": {
			`{"cniVersion":"0.3.1","interfaces":[{"name":"bond0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/pod"}],"ips":[{"version":"4","interface":0,"address":"10.56.217.3/24"}]}`,
			[]string{"bond0 02:00:00:00:00:02 [10.56.217.3/24]"},
		},
		"the same namespace by another path": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"a","sandbox":"/var/run/netns/pod"},{"name":"b","sandbox":"/run/netns/other"}]}`,
			[]string{"a  []"},
		},
		"paths that lead nowhere any more: by its name": {
			`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/proc/1/ns/net"},{"name":"lo","sandbox":"/proc/1/ns/net"}],"ips":[{"interface":0,"address":"10.1.0.2/24"},{"interface":1,"address":"127.0.0.1/8"}]}`,
			[]string{"eth0  [10.1.0.2/24]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := PodInterfaces(parseResult(t, tc.result), "eth0", func(s string) bool { return s == "/run/netns/pod" || s == "/var/run/netns/pod" })
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, i := range list {
				got = append(got, fmt.Sprint(i.Name, " ", i.MAC, " ", i.Addresses()))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("PodInterfaces (-want +got):\n%s", diff)
			}
		})
	}
}
