// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func TestRenderShowsWhatPluginsGet(t *testing.T) {
	t.Parallel()
	examples := filepath.Join("..", "..", "examples")
	for name, args := range map[string][]string{
		"text":   {"-f", filepath.Join(examples, "business-and-mgmt"), "default/client"},
		"json":   {"-f", filepath.Join(examples, "static-ips"), "printer", "-o", "json"},
		"device": {"-f", filepath.Join(examples, "sriov"), "packet-gateway", "--device", "example.com/sriov_dpdk=0000:03:02.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := nadRun(t, "", append([]string{"render"}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, "nad-render-"+name, []byte(out))
		})
	}
}

func TestRenderRefusesWhatPlexusRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pods := filepath.Join(dir, "pods.yaml")
	write(t, pods, "kind: Pod\nmetadata:\n  name: web\n  annotations: {k8s.v1.cni.cncf.io/networks: '[{\"name\":\"net\",\"infiniband-guid\":\"02:00:00:00:00:00:00:01\"}]'}\n---\n"+definition("net", `{"type":"macvlan"}`))
	conf := filepath.Join(dir, "other.conflist")
	write(t, conf, `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"}]}`)
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"a request that no plugin honours": {[]string{"-f", pods, "web"}, `none of its plugins (macvlan) declares the capability "infinibandGUID"`},
		"a pod that is not there":          {[]string{"-f", pods, "api"}, "no Pod api"},
		"no manifests":                     {[]string{"web"}, "-f"},
		"a conf without Plexus":            {[]string{"-f", pods, "web", "--conf", conf}, `no plugin of type "plexus"`},
		"a conf that is not there":         {[]string{"-f", pods, "web", "--conf", conf + "x"}, "no such file"},
		"a device without a resource":      {[]string{"-f", pods, "web", "--device", "0000:03:02.1"}, "RESOURCE=ID"},
		"no device":                        {[]string{"-f", filepath.Join("..", "..", "examples", "sriov"), "trading"}, "the node gave the pod 0: name the devices that the node would give the pod with --device RESOURCE=ID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := nadRun(t, "", append([]string{"render"}, tc.args...)...); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v; want one with %q", err, tc.want)
			}
		})
	}
}
