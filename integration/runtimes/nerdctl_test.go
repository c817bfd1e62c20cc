// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// nerdctlContainer is a container of nerdctl, whose CNI container ID has the namespace before it.
func (n *node) nerdctlContainer(name string) *sandbox {
	n.t.Helper()
	return n.container("default-"+strings.Repeat("c0ffee", 10)+name, name)
}

func TestNerdctlLifeOfAContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	nerdctl := n.runtime("nerdctl")
	plexus := networks("plexus")
	c := n.nerdctlContainer("web")
	resp := nerdctl.must("run", c, plexus)
	c.expectLinks("eth0")
	if resp.Teardown != "" {
		t.Errorf("the DEL of a container that nobody knows fails: %s", resp.Teardown)
	}
	// containerd was restarted: its container runs again, as another process.
	c.end()
	again := n.nerdctlContainer("web")
	nerdctl.must("run", again, plexus)
	again.expectLinks("eth0")
	again.end()
	nerdctl.must("stop", again, plexus)
	nerdctl.must("stop", again, plexus)
	n.expectNothingLeft()
}

// nerdctl --net plexus --net plexus-b: go-cni calls both at once, after a DEL of each without a namespace.
func TestNerdctlTwoNetworksOfOneContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.second()
	nerdctl := n.runtime("nerdctl")
	both := networks("plexus", "plexus-b")
	for i := range 5 {
		c := n.nerdctlContainer(fmt.Sprint("web", i))
		nerdctl.must("run", c, both)
		c.expectLinks("eth0", "eth1")
		c.end()
		c = n.nerdctlContainer(fmt.Sprint("web", i))
		nerdctl.must("run", c, both) // it was not stopped before
		c.expectLinks("eth0", "eth1")
		c.end()
		nerdctl.must("stop", c, both)
	}
	n.expectNothingLeft()
}

// --ip and --mac-address come as CNI_ARGS.
func TestNerdctlAddressesOfTheUsersChoice(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	nerdctl := n.runtime("nerdctl")
	c := n.nerdctlContainer("web")
	nerdctl.must("run", c, networks("plexus"), func(r *request) { r.IP, r.MAC = "10.10.7.7", "02:00:00:00:00:07" })
	if got := c.links()["eth0"]; len(got) != 1 || got[0] != "10.10.7.7" {
		t.Errorf("eth0 has %q, want 10.10.7.7", got)
	}
	h := c.handle()
	link, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if got := link.Attrs().HardwareAddr.String(); got != "02:00:00:00:00:07" {
		t.Errorf("eth0 has the MAC %s, want 02:00:00:00:00:07", got)
	}
	h.Close()
	c.end()
	nerdctl.must("stop", c, networks("plexus"))
	n.expectNothingLeft()
}

// After a failed set-up nerdctl does not tear down. What one of two networks got is undone by Plexus, or by the removal of the container.
func TestNerdctlFailedSetup(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.second()
	n.primary("20-other", "other", object{"type": "macvlan", "master": "eth99", "ipam": n.hostLocal("10.11.0.0/16")})
	nerdctl := n.runtime("nerdctl")
	c := n.nerdctlContainer("web")
	both := networks("plexus", "plexus-b")
	if resp := nerdctl.do("run", c, both); !strings.Contains(resp.Error, "eth99") {
		t.Fatalf("%+v", resp)
	}
	c.end()
	_ = nerdctl.do("stop", c, both) // nerdctl rm ignores errors
	n.expectNothingLeft()
}

// Podman sends the container's name as K8S_POD_NAME, and no namespace.
func TestPodmanLifeOfAContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.second()
	podman := n.runtime("podman")
	both := networks("plexus", "plexus-b")
	c := n.sandbox("web", "")
	podman.must("run", c, both)
	c.expectLinks("eth0", "eth1")
	podman.must("stop", c, both)
	c.expectLinks()
	c.end()
	podman.must("stop", c, both)
	n.expectNothingLeft()
}

// Podman's teardown of a failed set-up comes in no order, and once.
func TestPodmanFailedSetup(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.second()
	n.primary("20-other", "other", object{"type": "macvlan", "master": "eth99", "ipam": n.hostLocal("10.11.0.0/16")})
	podman := n.runtime("podman")
	c := n.sandbox("web", "")
	if resp := podman.do("run", c, networks("plexus", "plexus-b")); !strings.Contains(resp.Error, "eth99") {
		t.Fatalf("%+v", resp)
	}
	c.expectLinks()
	n.expectNothingLeft()
}

// cnitool is the specification's own program: no CNI_ARGS, and a container ID made of the namespace's path.
func TestCnitool(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	n.mkdir("cache-cnitool")
	tool := testenv.Build(t, "github.com/containernetworking/cni/cnitool") + "/cnitool"
	c := n.sandbox("web", "a")
	run := func(verb string, more ...string) {
		t.Helper()
		// The program has no option for the folder of libcni's cache, so its mount namespace has the test's.
		script := `mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/cni && mount --bind "$0" /var/lib/cni && exec "$@"`
		n.exec(nil, "/bin/sh", append([]string{"NETCONFPATH=" + n.path("net.d"), "CNI_PATH=" + n.path("bin")}, more...),
			"-c", script, n.path("cache-cnitool"), tool, verb, "plexus", c.netns).wait()
	}
	run("add")
	c.expectLinks("eth0")
	run("check")
	run("status")
	run("del")
	c.expectLinks()
	run("del")
	n.expectNothingLeft()
	args := "CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"
	run("add", args)
	c.expectLinks("eth0", "net1")
	run("del", args)
	n.expectNothingLeft()
}
