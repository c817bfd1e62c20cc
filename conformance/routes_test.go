// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// ptp is a network of the reference plugins ptp and host-local: 10.78.<n>.0/24 and fd00:78:<n>::/64, with the routes given.
func (w *world) ptp(name string, n int, routes ...object) object {
	ranges := []any{
		[]any{object{"subnet": fmt.Sprintf("10.78.%d.0/24", n)}},
		[]any{object{"subnet": fmt.Sprintf("fd00:78:%d::/64", n)}},
	}
	ipam := object{"type": "host-local", "dataDir": w.path("leases"), "ranges": ranges}
	if routes != nil {
		ipam["routes"] = routes
	}
	return object{"type": "ptp", "name": name, "cniVersion": "1.0.0", "ipam": ipam}
}

func v4(n int) string { return fmt.Sprintf("10.78.%d.1", n) }
func v6(n int) string { return fmt.Sprintf("fd00:78:%d::1", n) }

// defaults are both default routes via the gateways of network n.
func defaults(n int) []object {
	return []object{{"dst": "0.0.0.0/0", "gw": v4(n)}, {"dst": "::/0", "gw": v6(n)}}
}

// onRealNetworks makes the base real: a host of its own, and ptp networks. The default network has both default routes.
func (w *world) onRealNetworks() {
	w.t.Helper()
	w.host = testenv.NetNS(w.t)
	w.cniPath = testenv.Plugins(w.t)
	for _, netns := range []string{w.host, w.netns} {
		testenv.Do(w.t, netns, func() error { // Plugins wait for duplicate address detection, a second for each address.
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		})
	}
	w.conf["delegates"] = []any{w.ptp("cluster", 1, defaults(1)...)}
	w.nad("default/a", w.ptp("a", 2))
	w.nad("default/b", w.ptp("b", 3))
}

// expectDefaultRoutes checks the default routes in the sandbox, as "eth0 10.1.0.1".
func (w *world) expectDefaultRoutes(want ...string) {
	w.t.Helper()
	routes, err := netdev.NewLinux().DefaultRoutes(w.netns)
	if err != nil {
		w.t.Fatal(err)
	}
	var got []string
	for _, r := range routes {
		got = append(got, r.IfName+" "+r.Gateway.String())
	}
	slices.Sort(got)
	w.expect("default routes in the sandbox", want, got)
}

// routesOf returns the routes of a result, as "destination gateway".
func routesOf(result object) []string {
	var routes []string
	list, _ := result["routes"].([]any)
	for _, r := range list {
		route := r.(object)
		routes = append(routes, fmt.Sprint(route["dst"], " ", route["gw"]))
	}
	return routes
}

// cachedRoutes are the routes of a result in libcni's cache.
func (w *world) cachedRoutes(network, ifName string) []string {
	w.t.Helper()
	result, _ := decode(w.t, w.read("state/results/"+network+"-"+w.containerID+"-"+ifName))["result"].(object)
	return routesOf(result)
}

// gateways are the gateways of each object in the network status.
func (w *world) gateways() map[string]any {
	w.t.Helper()
	status, _ := decode(w.t, `{"status":`+w.statusText()+`}`)["status"].([]any)
	gateways := map[string]any{}
	for _, s := range status {
		gateways[s.(object)["interface"].(string)] = s.(object)["gateway"]
	}
	return gateways
}

func TestDefaultRoute(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"G2 gateways of both families on one element": func(w *world) {
			w.onRealNetworks()
			w.annotate(networks, fmt.Sprintf(`[{"name":"a","default-route":[%q,%q]},{"name":"b"}]`, v4(2), v6(2)))
			w.must("ADD")
			w.expectDefaultRoutes("net1 "+v4(2), "net1 "+v6(2))
			w.must("CHECK")
			w.must("DEL")
			w.expectNothingLeft()
		},
		"G2 a gateway of one family leaves the other alone": func(w *world) {
			w.onRealNetworks()
			w.annotate(networks, fmt.Sprintf(`[{"name":"a","default-route":[%q]}]`, v4(2)))
			w.must("ADD")
			w.expectDefaultRoutes("eth0 "+v6(1), "net1 "+v4(2))
			w.must("CHECK")
			w.must("DEL")
			w.expectNothingLeft()
		},
		"G2 each family on another element": func(w *world) {
			w.onRealNetworks()
			w.annotate(networks, fmt.Sprintf(`[{"name":"a","default-route":[%q]},{"name":"b","default-route":[%q]}]`, v4(2), v6(3)))
			w.must("ADD")
			w.expectDefaultRoutes("net1 "+v4(2), "net2 "+v6(3))
			w.must("CHECK")
		},
		"G3 two gateways of one family on one element": func(w *world) {
			w.annotate(networks, `[{"name":"a","default-route":["10.2.0.1","10.2.0.3"]}]`)
			w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", "element 1", "default-route", `"10.2.0.3"`, "ECMP", "keep one")
		},
		"G3 two elements with a gateway of one family": func(w *world) {
			w.annotate(networks, `[{"name":"a","default-route":["10.2.0.1"]},{"name":"b","default-route":["fd00::1","10.3.0.1"]}]`)
			w.expectRefused(types.ErrInvalidNetworkConfig, "element 1", "element 2", "IPv4", "ECMP", "one of them")
		},
		"G3 an element with the empty list and one with a gateway": func(w *world) {
			w.annotate(networks, `[{"name":"a","default-route":[]},{"name":"b","default-route":["10.3.0.1"]}]`)
			w.expectRefused(types.ErrInvalidNetworkConfig, "element 1", "element 2", "IPv4", "ECMP")
		},
		"G3 the default network and an element": func(w *world) {
			w.nad("kube-system/x", w.recorder(nil))
			w.annotate(defaultNetwork, `[{"name":"x","default-route":["10.9.0.1"]}]`)
			w.annotate(networks, `[{"name":"a","default-route":["10.2.0.1"]}]`)
			w.expectRefused(types.ErrInvalidNetworkConfig, "kube-system/x", "default/a", "IPv4", "ECMP")
		},
		"G4 the empty list keeps what the network's plugin set": func(w *world) {
			w.onRealNetworks()
			w.nad("default/a", w.ptp("a", 2, defaults(2)...))
			w.annotate(networks, `[{"name":"a","default-route":[]},{"name":"b"}]`)
			w.must("ADD")
			w.expectDefaultRoutes("net1 "+v4(2), "net1 "+v6(2))
			w.must("CHECK")
			w.must("DEL")
			w.expectNothingLeft()
		},
		"G4 the empty list on a network without default route leaves none": func(w *world) {
			w.onRealNetworks()
			w.annotate(networks, `[{"name":"a","default-route":[]}]`)
			w.must("ADD")
			w.expectDefaultRoutes()
			w.must("CHECK")
		},
		"G5 result, status and libcni's cache show the routes in force": func(w *world) {
			w.onRealNetworks()
			w.annotate(networks, fmt.Sprintf(`[{"name":"a","default-route":[%q,%q]}]`, v4(2), v6(2)))
			result := decode(w.t, w.must("ADD"))
			w.expect("routes in the result", []string(nil), routesOf(result))
			inForce := []string{"0.0.0.0/0 " + v4(2), "::/0 " + v6(2)}
			w.expect("gateways in the status", map[string]any{"eth0": nil, "net1": []any{v4(2), v6(2)}}, w.gateways())
			w.expect("routes of eth0 in the cache", []string(nil), w.cachedRoutes("cluster", "eth0"))
			w.expect("routes of net1 in the cache", inForce, w.cachedRoutes("a", "net1"))
		},
		"G5 without an override they show the default network's": func(w *world) {
			w.onRealNetworks()
			w.annotate(networks, "a")
			result := decode(w.t, w.must("ADD"))
			inForce := []string{"0.0.0.0/0 " + v4(1), "::/0 " + v6(1)}
			w.expect("routes in the result", inForce, routesOf(result))
			w.expect("gateways in the status", map[string]any{"eth0": []any{v4(1), v6(1)}, "net1": nil}, w.gateways())
			w.expectDefaultRoutes("eth0 "+v4(1), "eth0 "+v6(1))
		},
		"a gateway that can not be reached undoes the ADD": func(w *world) {
			w.onRealNetworks()
			w.annotate(networks, `[{"name":"a","default-route":["192.0.2.1"]}]`)
			w.failed(w.call("ADD"), types.ErrInternal, "pod default/web", "default/a", "net1", "default-route", "192.0.2.1")
			w.expectNothingLeft()
			w.expect("leases", []string(nil), w.leases())
		},
	})
}

// leases lists the addresses that host-local has given.
func (w *world) leases() []string {
	w.t.Helper()
	files, err := filepath.Glob(w.path("leases/*/*"))
	if err != nil {
		w.t.Fatal(err)
	}
	var leases []string
	for _, file := range files {
		if name := filepath.Base(file); name != "lock" && !strings.HasPrefix(name, "last_reserved_ip") {
			leases = append(leases, name)
		}
	}
	return leases
}
