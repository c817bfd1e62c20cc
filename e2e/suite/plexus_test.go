// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"strings"
	"testing"
)

// TestPlexus installs Plexus by its own manifests, and shows what it promises to the users of a cluster.
func TestPlexus(t *testing.T) {
	prepareNodes(t)
	current(t).build(t)
	former := attachFormer(t)
	applyPlexus(t)
	awaitConf(t, "is there", func(conf string) bool { return conf != "" })

	for _, test := range []struct {
		name  string
		check func(*testing.T)
	}{
		{"a pod of the meta-plugin that was here before", checkFormer(former)},
		{"a pod that selects nothing has a status of its default network", checkUnselected},
		{"the seed scenario", checkSeed},
		{"the short form, and networks of another namespace", checkShortForm},
		{"another default network", checkDefaultOverride},
		{"a default route over another network", checkDefaultRoute},
		{"a static pod", checkStatic},
		{"a pod of kube-system", checkSystemNamespace},
		{"keys that mean nothing", checkUnheard},
		{"a MAC and addresses that no capability is declared for", checkUndeclared},
		{"a resource that is no device", checkMarker},
		{"a network that is not there yet", checkMissing},
		{"networks and pods that are not there any more", checkForgotten},
		{"pods that cannot start", checkFailing},
		{"what an ADD and a DEL cost the API server", checkRequests},
		{"the daemon has no privileges", checkPrivileges},
		{"the daemon has few rights", checkRights},
		{"folders of another owner", checkOwners},
		{"devices", checkDevices}, // Applies the manifests anew, without the component of that.
		{"isolation of namespaces", checkIsolation},
		{"doctor", checkDoctor},
		{"examples", checkExamples},
		{"a Deployment of twenty pods", checkDeployment},
		{"the daemon deleted, rolled and killed", checkDaemonChurn},
		{"the daemon stopped", checkStopped},
		{"the API server stopped", checkAPIChurn},
		{"the daemon killed while the API server is stopped", checkOutage},
		{"restarts", checkRestarts},
		{"a reboot", checkReboot},
		{"without a daemon", checkOneShot},
		{"as a drop-in", checkDropIn}, // Takes what is there without a daemon.
		{"metrics", checkMetrics},
		{"uninstalled", checkUninstalled},
	} {
		t.Run(test.name, test.check)
	}
}

// checkOneShot takes the daemon away, and shows that Plexus does the same without.
func checkOneShot(t *testing.T) {
	t.Helper()
	applyPlexus(t, "one-shot")
	awaitConf(t, "has a kubeconfig", func(conf string) bool {
		return strings.Contains(conf, `"kubeconfig"`) && !strings.Contains(conf, "daemonSocketDir")
	})
	for _, test := range []struct {
		name  string
		check func(*testing.T)
	}{
		{"a pod that selects nothing", checkUnselected},
		{"the seed scenario", checkSeed},
		{"a network that is not there yet", checkMissing},
		{"networks and pods that are not there any more", checkForgotten},
	} {
		t.Run(test.name, test.check)
	}
}
