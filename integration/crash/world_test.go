// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// object is a JSON object.
type object = map[string]any

// root holds all that a world has on disk. Each worker has a /run of its own, in memory.
const root = "/run/w"

// programs are the folders of built programs.
type programs struct {
	// Plexus holds cmd/plexus, Stepping the plexus that dies at a step, beside fabric and daemon; Plugins the reference plugins.
	Plexus, Stepping, Plugins string
}

// world is a host: the network namespace that this process is in, and a folder. It outlives a schedule as long as it is clean.
type world struct {
	programs
	nft string // "" without
	// drivers are kinds of links that not every kernel has.
	drivers map[string]bool
	// took is how long a call takes here, by kind of networks.
	took map[bool]time.Duration
	// clean is what there is when nothing is attached, by kind of networks.
	clean map[bool][]string
	boots int

	mu     sync.Mutex
	log    []string
	began  time.Time
	counts map[string]int
	// own are the processes that this one started and will wait for.
	own map[int]bool
}

// newWorld prepares the namespaces that this process was started in, and attaches to all networks once: some leave a bridge.
func newWorld(ctx context.Context, p programs) (*world, error) {
	w := &world{programs: p, took: map[bool]time.Duration{}, clean: map[bool][]string{}, own: map[int]bool{}, began: time.Now(), counts: map[string]int{}}
	w.nft, _ = exec.LookPath("nft") // without it there are no port mappings
	if err := prepareHost(); err != nil {
		return nil, err
	}
	nic, err := netlink.LinkByName("nic1")
	if err != nil {
		return nil, err
	}
	attrs := netlink.LinkAttrs{Name: "probe", ParentIndex: nic.Attrs().Index}
	w.drivers = map[string]bool{
		"vlan":   hasDriver(&netlink.Vlan{LinkAttrs: attrs, VlanId: 7}),
		"ipvlan": hasDriver(&netlink.IPVlan{LinkAttrs: attrs}),
		"dummy":  hasDriver(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "probe"}}),
	}
	if err := w.writeNetworks(); err != nil {
		return nil, err
	}
	for _, isReal := range []bool{false, true} {
		if err := w.warmUp(ctx, isReal); err != nil {
			return nil, fmt.Errorf("before anything was killed: %w", err)
		}
	}
	return w, nil
}

// prepareHost makes the host's namespaces.
func prepareHost() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"manifests", "socket", "netns", "fabric/faults", "fabric2/faults", "fabric3/faults"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return err
		}
	}
	if err := errors.Join(setBoot("boot-0"), unix.Mount(root+"/boot-id", "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, "")); err != nil {
		return fmt.Errorf("have a boot of its own: %w", err)
	}
	// It takes a second or two for each IPv6 address otherwise.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o600); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, nic := range []string{"nic0", "nic1"} {
		pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nic + "-far"}
		pair.Name = nic
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("make %s: %w", nic, err)
		}
		far, err := netlink.LinkByName(pair.PeerName)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetUp(pair), netlink.LinkSetUp(far)); err != nil {
			return err
		}
	}
	return nil
}

// setBoot makes it another boot.
func setBoot(id string) error {
	return os.WriteFile(root+"/boot-id", []byte(id+"\n"), 0o600)
}

// writeNetworks writes the NetworkAttachmentDefinitions.
func (w *world) writeNetworks() error {
	for name, plugins := range w.networks() {
		config, err := json.Marshal(object{"cniVersion": "1.1.0", "plugins": plugins})
		if err != nil {
			return err
		}
		if err := writeJSON("manifests/net-"+name+".json", object{
			"kind": "NetworkAttachmentDefinition", "metadata": object{"name": name}, "spec": object{"config": string(config)},
		}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) networks() map[string][]object {
	fabric := object{"type": "fabric", "dir": root + "/fabric"}
	return map[string][]object{
		"fab0": {fabric},
		"fab1": {fabric, {"type": "fabric", "dir": root + "/fabric2"}},
		"fab3": {fabric, {"type": "fabric", "dir": root + "/fabric2"}, {"type": "fabric", "dir": root + "/fabric3"}},
		"fab2": {{"type": "fabric", "dir": root + "/fabric", "capabilities": object{"CNIDeviceInfoFile": true}}},

		"lan": {
			{"type": "bridge", "bridge": "lan0", "isGateway": true, "ipam": hostLocal("10.78.1.0/24", "fd00:78:1::/64")},
			{"type": "tuning", "sysctl": object{"net.ipv4.conf.IFNAME.arp_announce": "2"}},
			{"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 8000000, "egressBurst": 800000},
		},
		"masq": {
			{"type": "bridge", "bridge": "lan0", "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": hostLocal("10.78.1.0/24", "fd00:78:1::/64")},
			{"type": "tuning", "mtu": 1400, "promisc": true},
		},
		"wan": {{"type": "macvlan", "master": "nic0", "ipam": hostLocal("10.78.2.0/24")}},
		"p2p": {{"type": "ptp", "ipam": hostLocal("10.78.3.0/24")}},
		"tag": {w.where("vlan", object{"type": "vlan", "master": "nic1", "vlanId": 7, "ipam": hostLocal("10.78.4.0/24")})},
		"ipv": {w.where("ipvlan", object{"type": "ipvlan", "master": "nic1", "ipam": hostLocal("10.78.5.0/24")})},
		"dum": {w.where("dummy", object{"type": "dummy", "ipam": hostLocal("10.78.6.0/24")})},
	}
}

// where is a plugin that takes a driver of the kernel; on a kernel without it, ptp stands in, which takes none that others do not.
func (w *world) where(driver string, plugin object) object {
	if !w.drivers[driver] {
		plugin["type"] = "ptp"
	}
	return plugin
}

// hasDriver reports whether the kernel can make a link of a kind.
func hasDriver(link netlink.Link) bool {
	if netlink.LinkAdd(link) != nil {
		return false
	}
	return netlink.LinkDel(link) == nil
}

// hostLocal is an IPAM configuration with a range for each subnet.
func hostLocal(subnets ...string) object {
	var ranges []any
	for _, s := range subnets {
		ranges = append(ranges, []any{object{"subnet": s}})
	}
	return object{"type": "host-local", "dataDir": root + "/leases", "ranges": ranges}
}

// conf is the configuration that the runtime has of Plexus, for one pod.
func (w *world) conf(s *schedule, networks []string) object {
	first := []object{{"type": "fabric", "dir": root + "/fabric", "child": s.child}}
	if s.real {
		first = []object{{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": hostLocal("10.78.0.0/24")}}
		if w.nft != "" {
			first = append(first, object{"type": "portmap", "backend": "nftables", "capabilities": object{"portMappings": true}})
		}
	}
	conf := object{
		"cniVersion": "1.1.0", "name": "plexus", "type": "plexus",
		"binDir": w.Plugins, "cniDir": root + "/state", "legacyCNIDir": root + "/legacy", "delegateTimeoutSeconds": 60,
	}
	if s.hangs() {
		conf["delegateTimeoutSeconds"] = 1
	}
	delegates := []any{object{"cniVersion": "1.1.0", "name": "cluster", "plugins": first}}
	switch s.source {
	case fromManifests:
		conf["manifestDir"] = root + "/manifests"
	case fromDaemon:
		conf["daemonSocketDir"] = root + "/socket"
	case fromNowhere:
		for _, name := range networks {
			delegates = append(delegates, object{"cniVersion": "1.1.0", "name": name, "plugins": w.networks()[name]})
		}
	}
	if s.real && w.nft != "" {
		conf["runtimeConfig"] = object{"portMappings": []any{object{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}}}
	}
	conf["delegates"] = delegates
	return conf
}

func writeJSON(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, name), text, 0o600)
}

// writePod writes the manifest of a pod.
func writePod(name, networks string) error {
	return writeJSON("manifests/pod-"+name+".json", object{
		"kind": "Pod", "metadata": object{"name": name, "annotations": object{"k8s.v1.cni.cncf.io/networks": networks}},
	})
}

// makeNetNS makes a sandbox's namespace and returns its path.
func makeNetNS(name string) (string, error) {
	path := filepath.Join(root, "netns", name)
	for _, links := range fabricLinks(path) {
		if err := os.MkdirAll(links, 0o700); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return "", err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread, which is in the new namespace, ends with the goroutine
		done <- unshareAt(path)
	}()
	return path, <-done
}

// unshareAt moves the current thread to a new network namespace and mounts that on path.
func unshareAt(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	for _, key := range []string{"default", "all"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+key+"/accept_dad", []byte("0"), 0o600); err != nil {
			return err
		}
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}

// removeNetNS takes a namespace away. There may be none at the path any more.
func removeNetNS(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, links := range fabricLinks(path) {
		if err := os.RemoveAll(links); err != nil {
			return err
		}
	}
	return nil
}

// fabricLinks are the folders of fabric's links in a sandbox, which come and go with it.
func fabricLinks(netns string) []string {
	name := filepath.Base(netns)
	var all []string
	for _, dir := range worldsOf("fab3") {
		all = append(all, filepath.Join(root, dir, "links", name))
	}
	return all
}

// note adds a line to what is told of a schedule that fails.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("%7.1f ms  ", float64(time.Since(w.began).Microseconds())/1000)+fmt.Sprintf(format, args...))
}

// count counts what happened, for the summary.
func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

// start starts a process of the world, and keeps it apart from those that others left.
func (w *world) start(cmd *exec.Cmd) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := cmd.Start()
	if err == nil {
		w.own[cmd.Process.Pid] = true
	}
	return err
}

func (w *world) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.own, cmd.Process.Pid)
	return err
}

// orphans are this process's children that somebody else started, without those that have ended: they are reaped.
func (w *world) orphans() ([]int, error) {
	all, err := children(os.Getpid())
	if err != nil {
		return nil, err
	}
	var alive []int
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pid := range all {
		if w.own[pid] {
			continue
		}
		got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		if err == nil && got == 0 {
			alive = append(alive, pid)
		}
	}
	return alive, nil
}
