// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command fabric is a CNI plugin, IPAM included, whose links and addresses are files: a hundred times as cheap as real ones, and as
// easy to lose. It does what a real plugin does in the order in which one does it, and dies, fails or hangs there when it is told to.
//
// As host-local does (plugins 1.9.1, disk/lock.go and allocator.go), it holds the lock of the network's folder of addresses while it gives
// or takes one, and waits for it without a limit: one that hangs there keeps all others of the network waiting.
//
// A folder, the configuration's "dir", holds its world:
//
//	links/<sandbox>/<ifname>                 an interface of a sandbox; the folder is there as long as the sandbox
//	leases/<network>/<address>               an address, with "<containerID> <ifname>" in it
//	leases/<network>/lock                    the lock of these
//	faults/<containerID>-<ifname>-<VERB>     "<phase> kill", "<phase> fail" or "<phase> hang": what happens to the next such call, once;
//	                                         "<phase> refuse": what happens to all of them
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// config is what the plugin reads of its configuration.
type config struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Dir        string `json:"dir"`
	// Child leaves addresses to a child process, as plugins leave them to their IPAM plugin.
	Child         bool `json:"child"`
	RuntimeConfig struct {
		DeviceInfoFile string `json:"CNIDeviceInfoFile"`
	} `json:"runtimeConfig"`
	Valid []types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// call is one call of the plugin.
type call struct {
	config
	verb                       string
	containerID, netns, ifName string
	stdin                      []byte
}

func main() {
	serve := func(verb string, answer func(*call) error) func(*skel.CmdArgs) error {
		return func(a *skel.CmdArgs) error {
			c := &call{verb: verb, containerID: a.ContainerID, netns: a.Netns, ifName: a.IfName, stdin: a.StdinData}
			if err := json.Unmarshal(a.StdinData, &c.config); err != nil {
				return fmt.Errorf("decode configuration: %w", err)
			}
			return answer(c)
		}
	}
	add, del := (*call).add, (*call).del
	if len(os.Args) == 2 && os.Args[1] == "ipam" {
		add, del = (*call).lease, (*call).release
	}
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: serve("ADD", add), Del: serve("DEL", del), Check: serve("CHECK", (*call).check), GC: serve("GC", (*call).gc),
		Status: func(*skel.CmdArgs) error { return nil },
	}, version.All, "CNI plugin fabric, for tests")
}

func (c *call) add() error {
	if err := c.phase("begin"); err != nil {
		return err
	}
	if err := c.ipam(c.lease); err != nil {
		return err
	}
	if err := c.phase("leased"); err != nil {
		return err
	}
	link, err := os.OpenFile(c.link(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(err, c.ipam(c.release))
	}
	if err = link.Close(); err != nil {
		return err
	}
	if err = c.phase("linked"); err != nil {
		return err
	}
	if f := c.RuntimeConfig.DeviceInfoFile; f != "" {
		if err = os.WriteFile(f, []byte(`{"type":"memif","version":"1.1.0","memif":{"role":"server","path":"/run/memif.sock","mode":"ethernet"}}`), 0o600); err != nil {
			return err
		}
	}
	addresses, err := c.held()
	if err != nil || len(addresses) != 1 {
		return fmt.Errorf("addresses %q: %w", addresses, err)
	}
	fmt.Printf(`{"cniVersion":%q,"interfaces":[{"name":%q,"sandbox":%q}],"ips":[{"address":"%s/16","interface":0}]}`,
		c.CNIVersion, c.ifName, c.netns, filepath.Base(addresses[0]))
	return c.phase("printed")
}

// del goes by names, as real plugins do, and succeeds when there is nothing.
func (c *call) del() error {
	if err := c.phase("begin"); err != nil {
		return err
	}
	if err := c.ipam(c.release); err != nil {
		return err
	}
	if err := c.phase("released"); err != nil {
		return err
	}
	// Without the namespace there is no link any more.
	if c.netns != "" {
		if err := os.Remove(c.link()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return c.phase("unlinked")
}

func (c *call) check() error {
	if _, err := os.Stat(c.link()); err != nil {
		return err
	}
	if held, err := c.held(); err != nil || len(held) != 1 {
		return fmt.Errorf("addresses %q: %w", held, err)
	}
	return nil
}

// gc gives back the addresses of those that are not alive (CNI 1.1.0 §2, GC).
func (c *call) gc() error {
	alive := map[string]bool{}
	for _, a := range c.Valid {
		alive[a.ContainerID+" "+a.IfName] = true
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return c.releaseIf(func(owner string) bool { return !alive[owner] })
}

// ipam gives or takes the address here, or has a child do it.
func (c *call) ipam(do func() error) error {
	if !c.Child {
		return do()
	}
	cmd := exec.Command("/proc/self/exe", "ipam") //nolint:noctx // whoever calls plugins bounds them
	cmd.Stdin = bytes.NewReader(c.stdin)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+c.verb)
	if out, err := cmd.CombinedOutput(); err != nil { // as libcni does it: a child that outlives its parent has none of the parent's pipes
		return fmt.Errorf("ipam: %w: %s", err, out)
	}
	return nil
}

// lock waits for the network's lock, which the kernel takes back when the process ends, and returns what gives it back.
func (c *call) lock() (func(), error) {
	if err := os.MkdirAll(c.leases(), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(c.leases(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// lease takes the first address that is free. The file appears with its content, at once.
func (c *call) lease() error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.phase("lease"); err != nil {
		return err
	}
	dir := c.leases()
	tmp := filepath.Join(dir, ".tmp-"+c.containerID+"-"+c.ifName)
	if err := os.WriteFile(tmp, []byte(c.owner()), 0o600); err != nil {
		return err
	}
	for n := 2; n < 250; n++ {
		err := os.Link(tmp, filepath.Join(dir, fmt.Sprintf("10.9.0.%d", n)))
		if err == nil {
			return os.Remove(tmp)
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return errors.New("no address is free")
}

func (c *call) release() error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.phase("release"); err != nil {
		return err
	}
	tmp := filepath.Join(c.leases(), ".tmp-"+c.containerID+"-"+c.ifName)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.releaseIf(func(owner string) bool { return owner == c.owner() })
}

func (c *call) releaseIf(dead func(owner string) bool) error {
	files, err := filepath.Glob(filepath.Join(c.leases(), "[0-9]*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		owner, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another call gave it back
		}
		if err != nil {
			return err
		}
		if dead(string(owner)) {
			if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// held are the files of the addresses that this attachment has.
func (c *call) held() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(c.leases(), "[0-9]*"))
	if err != nil {
		return nil, err
	}
	var own []string
	for _, f := range files {
		if owner, err := os.ReadFile(f); err == nil && string(owner) == c.owner() {
			own = append(own, f)
		}
	}
	return own, nil
}

func (c *call) owner() string { return c.containerID + " " + c.ifName }

func (c *call) leases() string { return filepath.Join(c.Dir, "leases", c.Name) }

func (c *call) link() string {
	return filepath.Join(c.Dir, "links", filepath.Base(c.netns), c.ifName)
}

// phase is a point at which the call may be told to end. A fault happens once, so that a later try gets further; a refusal again and again.
func (c *call) phase(name string) error {
	file := filepath.Join(c.Dir, "faults", c.containerID+"-"+c.ifName+"-"+c.verb)
	text, err := os.ReadFile(file)
	if err != nil {
		return nil //nolint:nilerr // No fault is planned, or another process has just had it.
	}
	at, what, _ := strings.Cut(string(text), " ")
	if at != name || what != "refuse" && os.Remove(file) != nil {
		return nil
	}
	switch what {
	case "kill":
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return err
		}
		hang()
	case "hang":
		hang()
	}
	return types.NewError(types.ErrTryAgainLater, "a fault at "+name, "as planned")
}

// hang ends by a signal alone.
func hang() {
	for {
		_ = syscall.Pause()
	}
}
