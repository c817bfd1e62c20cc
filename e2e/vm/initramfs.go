// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/e2e/image"
	"github.com/plexus-cni/plexus/e2e/vm/guest"
)

// systemModules are those that the first process needs, the interface guest.Wire included.
func systemModules() []string {
	return []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "e1000e"}
}

// offeredModules are those that the kernel loads when a program first asks for what they do.
func offeredModules() []string {
	return []string{
		"8021q", "bonding", "br_netfilter", "bridge", "dummy", "ifb", "ip_vti", "ipvlan", "ipvtap", "macvlan", "macvtap", "tap", "tun",
		"veth", "vrf", "vxlan",
		"act_gact", "act_mirred", "act_police", "cls_flower", "cls_matchall", "cls_u32", "sch_fq_codel", "sch_htb", "sch_ingress", "sch_tbf",
		"crc32c_generic", // nf_tables asks for it, which modules.dep does not say.
		"nf_tables", "nft_chain_nat", "nft_compat", "nft_ct", "nft_fib_inet", "nft_masq", "nft_nat", "nft_reject_inet",
		"af_packet_diag", "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "overlay", "vhost_net",
	}
}

// initramfs is what the guest's first file system has in it.
func (m *Machine) initramfs(ctx context.Context, init string, c Config) (image.Spec, error) {
	spec, err := image.BusyboxFrom(ctx, m.tools.busybox(), "")
	if err != nil {
		return image.Spec{}, err
	}
	spec.Dirs = append(spec.Dirs, "/proc", "/sys", "/dev", "/var", "/opt/cni/bin", "/etc/cni/net.d", guest.WorkDir)
	delete(spec.Links, "/var/run")                             // It is made once /var is mounted.
	spec.Links["/sbin/modprobe"] = spec.Links["/bin/modprobe"] // Where the kernel looks for it.
	spec.Files["/init"] = init
	spec.Content["/etc/hosts"] = "127.0.0.1 localhost\n::1 localhost\n"
	if err := m.tools.addTo(spec); err != nil {
		return image.Spec{}, fmt.Errorf("add iproute2: %w", err)
	}
	task := guest.Task{Argv: c.argv(), Env: c.Env}
	if task.System, task.Modules, err = m.addModules(spec, c.Modules); err != nil {
		return image.Spec{}, err
	}
	content, err := json.Marshal(task)
	spec.Content[guest.TaskFile] = string(content)
	return spec, err
}

// addModules adds kernel modules, and returns the paths of those that the first process needs and of those named, in the order
// to load them.
func (m *Machine) addModules(spec image.Spec, names []string) ([]string, []string, error) {
	found, err := filepath.Glob(filepath.Join(m.kernel, "lib", "modules", "*", "modules.dep"))
	if err != nil || len(found) != 1 {
		return nil, nil, errors.Join(fmt.Errorf("%s has %d kernels, not one", m.kernel, len(found)), err)
	}
	dir := filepath.Dir(found[0])
	inside := path.Join("/lib/modules", filepath.Base(dir))
	tree, err := readModules(dir)
	if err != nil {
		return nil, nil, err
	}
	add := func(names []string) ([]string, error) {
		ordered, err := tree.order(names...)
		for i, module := range ordered {
			ordered[i] = path.Join(inside, module)
			spec.Files[ordered[i]] = filepath.Join(dir, module)
		}
		return ordered, err
	}
	if _, err := add(offeredModules()); err != nil {
		return nil, nil, err
	}
	for _, index := range []string{"modules.alias", "modules.builtin", "modules.dep", "modules.symbols"} {
		if _, err := os.Stat(filepath.Join(dir, index)); err == nil {
			spec.Files[path.Join(inside, index)] = filepath.Join(dir, index)
		}
	}
	system, err := add(systemModules())
	if err != nil {
		return nil, nil, err
	}
	named, err := add(m.without(names))
	return system, named, err
}

// without leaves out of modules what the kernel should have and lacks, and says so: what needs it in the guest does not find it.
func (m *Machine) without(modules []string) []string {
	return slices.DeleteFunc(slices.Clone(modules), func(name string) bool {
		reason, lacks := m.lacks[name]
		if lacks {
			fmt.Fprintf(m.log, "the virtual machine is without %s: %s\n", name, reason)
		}
		return lacks
	})
}

func readModules(dir string) (moduleTree, error) {
	dep, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return moduleTree{}, err
	}
	defer func() { _ = dep.Close() }()
	builtin, err := os.Open(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return moduleTree{}, err
	}
	defer func() { _ = builtin.Close() }()
	return parseModules(dep, builtin)
}

// buildInit builds the guest's first process anew each time, so that it is that of this source.
func (m *Machine) buildInit(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-C", m.module, "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w", "-o", file, "./cmd/vminit")
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest's first process: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// writeFile writes the archive of a spec.
func writeFile(file string, spec image.Spec) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(out, 1<<20)
	return errors.Join(writeInitramfs(buffered, spec), buffered.Flush(), out.Close())
}
