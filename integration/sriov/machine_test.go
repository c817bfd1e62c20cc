// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/sriov"
)

// stepLimit is for one thing to come about, in a machine whose processor is emulated.
const stepLimit = 60 * time.Second

const vfsPerPF = 2

// machine is what the tests share: the PFs and their VFs.
type machine struct {
	t      *testing.T
	kernel *netdev.Linux
	sysfs  *sysfs.FS
	pfs    []sysfs.PF
}

// newMachine gives each PF its VFs, with links that are up.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, kernel: netdev.NewLinux(), sysfs: sysfs.New("/sys")}
	m.readPFs()
	if len(m.pfs) == 0 {
		t.Fatal("this machine has no SR-IOV NIC")
	}
	for _, pf := range m.pfs {
		if pf.NumVFs != vfsPerPF {
			m.setNumVFs(pf, vfsPerPF)
		}
	}
	m.readPFs()
	return m
}

func (m *machine) readPFs() {
	m.t.Helper()
	pfs, err := m.sysfs.PFs()
	if err != nil {
		m.t.Fatal(err)
	}
	m.pfs = slices.DeleteFunc(pfs, func(pf sysfs.PF) bool { return pf.NetDev == "" })
}

// setNumVFs changes how many VFs a PF has, and waits until its link and their interfaces are there.
func (m *machine) setNumVFs(pf sysfs.PF, n int) {
	m.t.Helper()
	link, err := m.kernel.Link(netdev.Host, pf.NetDev)
	if err != nil {
		m.t.Fatal(err)
	}
	link.Up = true
	if err := m.kernel.SetLink(netdev.Host, netdev.LinkUp, link); err != nil {
		m.t.Fatal(err)
	}
	file := "/sys/bus/pci/devices/" + string(pf.Address) + "/sriov_numvfs"
	// A driver refuses to change a number that is not zero.
	for _, text := range []string{"0", strconv.Itoa(n)} {
		m.eventually("carrier of "+pf.NetDev, func() error { return m.hasCarrier(netdev.Host, pf.NetDev) })
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	m.eventually("VFs of "+pf.NetDev, func() error {
		if err := m.hasCarrier(netdev.Host, pf.NetDev); err != nil {
			return err
		}
		for _, now := range m.list() {
			if now.Address != pf.Address {
				continue
			}
			for _, vf := range now.VFs {
				if d, err := m.sysfs.Device(string(vf)); err != nil || len(d.NetDevs) == 0 {
					return fmt.Errorf("VF %s has no interface yet: %w", vf, err)
				}
			}
			if len(now.VFs) == n {
				return nil
			}
		}
		return errors.New("they are not there yet")
	})
}

func (m *machine) list() []sysfs.PF {
	m.t.Helper()
	pfs, err := m.sysfs.PFs()
	if err != nil {
		m.t.Fatal(err)
	}
	return pfs
}

func (m *machine) hasCarrier(netns, name string) error {
	link, err := m.kernel.Link(netns, name)
	if err == nil && !link.Carrier {
		err = fmt.Errorf("%s has no carrier", name)
	}
	return err
}

// eventually waits until f succeeds, looking again at each event of the host's links, and at the latest each 100 ms: not all that is waited
// for is an event.
func (m *machine) eventually(what string, f func() error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), stepLimit)
	defer cancel()
	events, err := m.kernel.LinkEvents(ctx, netdev.Host)
	if err != nil {
		m.t.Fatal(err)
	}
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			m.t.Fatalf("%s: not within %v: %v", what, stepLimit, err)
		case <-events:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// vf is a VF of the machine.
func (m *machine) vf(pf, n int) sysfs.Address {
	m.t.Helper()
	if pf >= len(m.pfs) || n >= len(m.pfs[pf].VFs) {
		m.t.Fatalf("the machine has no VF %d on PF %d: %+v", n, pf, m.pfs)
	}
	return m.pfs[pf].VFs[n]
}

// state is all that Plexus could leave different of a VF, and on disk.
func (m *machine) state(address sysfs.Address) string {
	m.t.Helper()
	d, err := m.sysfs.Device(string(address))
	if err != nil {
		m.t.Fatal(err)
	}
	vf, err := m.sysfs.VF(address)
	if err != nil {
		m.t.Fatal(err)
	}
	settings, err := m.kernel.VF(vf.PFNetDev, vf.Index)
	if err != nil {
		m.t.Fatal(err)
	}
	var link netdev.Link
	if len(d.NetDevs) > 0 {
		if link, err = m.kernel.Link(netdev.Host, d.NetDevs[0]); err != nil {
			m.t.Fatal(err)
		}
	}
	link.Carrier, link.Index = false, 0 // the one follows when it likes, the other is the kernel's
	if settings.MAC == link.MAC.String() || netdev.IsZeroMAC(settings.MAC) {
		settings.MAC = "none but the interface's own" // igb shows that one once the VF's driver has registered it
	}
	var files []string
	for _, dir := range []string{sriov.DefaultDir, "/var/lib/cni/plexus/records", "/var/lib/cni/networks"} {
		_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error { // a folder that is not there has no files
			if err == nil && !e.IsDir() && !strings.HasSuffix(path, "lock") && !strings.Contains(path, "last_reserved_ip") {
				files = append(files, path)
			}
			return nil
		})
	}
	return fmt.Sprintf("driver %s\nPF side %+v\ninterface %+v\nfiles %v\n", d.Driver, settings, link, files)
}

// pod is a sandbox of a test.
type pod struct {
	m     *machine
	id    string
	netns string
}

func (m *machine) pod(id string) *pod {
	m.t.Helper()
	p := &pod{m: m, id: id, netns: "/run/netns/" + id}
	if err := m.kernel.CreateNetNS(p.netns); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = m.kernel.DeleteNetNS(p.netns) }) // most tests have done it
	return p
}

// run runs a program in the pod's network namespace.
func (p *pod) run(name string, args ...string) (string, error) {
	return command(p.m.t.Context(), "", nil, "ip", append([]string{"netns", "exec", p.id, name}, args...)...)
}

func (p *pod) must(name string, args ...string) string {
	p.m.t.Helper()
	out, err := p.run(name, args...)
	if err != nil {
		p.m.t.Fatalf("%s %v in %s: %v\n%s", name, args, p.id, err, out)
	}
	return out
}

// reaches waits until a ping is answered: a VF's carrier comes when its driver has looked, which takes up to ten seconds.
func (p *pod) reaches(address string) {
	p.m.t.Helper()
	p.m.eventually("ping from "+p.id+" to "+address, func() error {
		_, err := p.run("ping", "-c", "1", "-W", "1", address)
		return err
	})
}

// doesNotReach asserts that three pings are lost.
func (p *pod) doesNotReach(address string) {
	p.m.t.Helper()
	if out, err := p.run("ping", "-c", "3", "-W", "1", address); err == nil {
		p.m.t.Errorf("%s reaches %s, which it must not:\n%s", p.id, address, out)
	}
}

// plugin runs a CNI plugin for the pod.
func (p *pod) plugin(path, verb, conf string, more ...string) (string, error) {
	return command(p.m.t.Context(), conf, append([]string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + p.netns, "CNI_IFNAME=eth0", "CNI_PATH=" + *bin + ":/opt/cni/bin",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.id + ";K8S_POD_INFRA_CONTAINER_ID=" + p.id, "PATH=" + os.Getenv("PATH"),
	}, more...), path)
}

func command(ctx context.Context, stdin string, environ []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if environ != nil {
		cmd.Env = environ
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s %s", err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// plexus is a node's configuration of Plexus, with a folder of manifests.
type plexus struct {
	m    *machine
	dir  string
	conf string
}

// newPlexus writes the manifests: each network is a plugin's configuration, each pod the names of its networks.
func (m *machine) newPlexus(networks map[string]map[string]any, pods map[string]string) *plexus {
	m.t.Helper()
	var b strings.Builder
	for name, conf := range networks {
		data, err := json.Marshal(conf)
		if err != nil {
			m.t.Fatal(err)
		}
		fmt.Fprintf(&b, "---\nkind: NetworkAttachmentDefinition\nmetadata: {name: %s}\nspec:\n  config: '%s'\n", name, data)
	}
	for name, selection := range pods {
		fmt.Fprintf(&b, "---\nkind: Pod\nmetadata: {name: %s, annotations: {k8s.v1.cni.cncf.io/networks: '%s'}}\n", name, selection)
	}
	x := &plexus{m: m, dir: m.t.TempDir()}
	if err := os.WriteFile(filepath.Join(x.dir, "all.yaml"), []byte(b.String()), 0o600); err != nil {
		m.t.Fatal(err)
	}
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "node", "type": "plexus", "manifestDir": x.dir, "binDir": *bin,
		"delegates": []any{map[string]any{"cniVersion": "1.0.0", "name": "default", "type": "ptp", "ipam": map[string]any{"type": "host-local", "subnet": "10.200.0.0/24"}}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	x.conf = string(conf)
	return x
}

func (x *plexus) call(p *pod, verb string, more ...string) (string, error) {
	return p.plugin(filepath.Join(*bin, "plexus"), verb, x.conf, more...)
}

func (x *plexus) must(p *pod, verb string, more ...string) string {
	x.m.t.Helper()
	out, err := x.call(p, verb, more...)
	if err != nil {
		x.m.t.Fatalf("%s of %s: %v", verb, p.id, err)
	}
	return out
}

// network is a configuration of type sriov with a subnet of its own.
func network(device sysfs.Address, subnet string, keys map[string]any) map[string]any {
	conf := map[string]any{
		"cniVersion": "1.1.0", "type": "sriov", "deviceID": string(device),
		"ipam": map[string]any{"type": "host-local", "subnet": subnet},
	}
	maps.Copy(conf, keys)
	return conf
}
