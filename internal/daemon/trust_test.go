// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/source"
)

func TestAStatusThatAPodCameWithIsReplaced(t *testing.T) {
	t.Parallel()
	const forged = `[{"name":"kube-system/x","interface":"net1","ips":["10.0.0.1"],"dns":{}}]`
	status := []annotations.Status{{Name: "cluster", Interface: "eth0"}}
	for name, tc := range map[string]struct {
		key    string
		report source.Report
		want   string // in the patch; "" for none
	}{
		"a pod that selects nothing":             {annotations.NetworkStatusKey, source.Report{Pod: web, Status: status}, `"cluster"`},
		"a pod of a system namespace":            {annotations.NetworkStatusKey, source.Report{Pod: web}, "[]"},
		"by the name of NPWG v1.0":               {annotations.LegacyNetworkStatusKey, source.Report{Pod: web}, "[]"},
		"a pod of a system namespace, with none": {"example.com/x", source.Report{Pod: web}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(map[string]string{tc.key: forged})
			s := c.source()
			s.StatusForAll = false
			if err := s.Report(t.Context(), tc.report); err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, p := range c.patches {
				got += p.Values[tc.key]
			}
			if tc.want == "" && len(c.patches) > 0 || !strings.Contains(got, tc.want) || strings.Contains(got, "kube-system/x") {
				t.Errorf("patched %v, want %q", c.patches, tc.want)
			}
		})
	}
}

func TestWhatNobodyHeardIsAnEvent(t *testing.T) {
	t.Parallel()
	c := newCluster(map[string]string{"k8s.v1.cni.cncf.io/network": ""})
	if _, err := c.source().Lookup(t.Context(), source.Query{Pod: web}); err != nil {
		t.Fatal(err)
	}
	if len(c.events) != 1 || !c.events[0].Event.Warning || !strings.Contains(c.events[0].Event.Text, "did you mean k8s.v1.cni.cncf.io/networks?") {
		t.Errorf("events %+v", c.events)
	}
}
