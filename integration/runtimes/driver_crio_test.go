// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// crio is CRI-O's server/sandbox_network.go (of 2026) with ocicni (0248397dbfcf, pkg/ocicni/ocicni.go), which knows every configuration
// of the folder by its network name.
type crio struct {
	*request
	cni      *libcni.CNIConfig
	networks map[string]*libcni.NetworkConfigList
	// defaultName is the network of the lexically first file.
	defaultName string
}

func newCRIO(ctx context.Context, r *request) (*crio, error) {
	c := &crio{request: r, cni: libcni.NewCNIConfig([]string{r.BinDir}, nil), networks: map[string]*libcni.NetworkConfigList{}}
	files, err := libcni.ConfFiles(r.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	for _, file := range files {
		list, err := libcni.NetworkConfFromFile(file)
		if err != nil {
			continue // logged
		}
		if _, err = c.cni.ValidateNetworkList(ctx, list); err != nil {
			continue // logged: a plugin is missing, or does not know the version
		}
		if _, twice := c.networks[list.Name]; !twice {
			c.networks[list.Name] = list
		}
		c.defaultName = cmp.Or(c.defaultName, list.Name)
	}
	return c, nil
}

// attachment is one network of a pod.
type attachment struct {
	network, ifName string
}

// attachments are the pod's networks, the default one if it names none, as eth0, eth1, ….
func (c *crio) attachments() []attachment {
	names := c.Networks
	if len(names) == 0 {
		names = []string{c.defaultName}
	}
	var all []attachment
	for i, name := range names {
		all = append(all, attachment{network: name, ifName: fmt.Sprint("eth", i)})
	}
	return all
}

// each does something with each network, in turn. The first error ends it.
func (c *crio) each(all []attachment, fromCache bool, do func(*libcni.NetworkConfigList, *libcni.RuntimeConf) error) error {
	for _, a := range all {
		rt := &libcni.RuntimeConf{ContainerID: c.ID, NetNS: c.NetNS, IfName: a.ifName, Args: c.podArgs(), CapabilityArgs: map[string]any{}}
		list := c.networks[a.network]
		if fromCache {
			if cached, cachedRT, err := cachedNetwork(c.cni, a.network, rt); err == nil {
				list, rt = cached, cachedRT
			}
		}
		if list == nil {
			return fmt.Errorf("failed to find requested network name %s", a.network)
		}
		if err := do(list, rt); err != nil {
			return fmt.Errorf("pod %s_%s, CNI network %q: %w", c.PodNamespace, c.PodName, a.network, err)
		}
	}
	return nil
}

// crioRun is networkStart, a part of RunPodSandbox: SetUpPod, then GetPodNetworkStatus. An error of either ends in networkStop.
func crioRun(ctx context.Context, r *request, resp *response) error {
	c, err := newCRIO(ctx, r)
	if err != nil {
		return err
	}
	if err = setLoopbackUp(r.NetNS); err != nil {
		return err
	}
	add := r.patience(ctx)
	err = c.each(c.attachments(), false, func(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
		_, addErr := c.cni.AddNetworkList(add, list, rt)
		return addErr
	})
	if err == nil {
		err = c.each(c.attachments(), true, func(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
			return c.check(ctx, list, rt, resp)
		})
	}
	if err != nil {
		if stopErr := c.stop(ctx, resp); stopErr != nil {
			resp.Teardown = stopErr.Error()
		}
		resp.Forgotten = true // RunPodSandbox failed: the kubelet's next try has another ID
	}
	return err
}

// check asks the plugins, from CNI 0.4.0 on, and takes the pod's addresses from the result that libcni has cached.
func (c *crio) check(ctx context.Context, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf, resp *response) error {
	checks, err := version.GreaterThanOrEqualTo(list.CNIVersion, "0.4.0")
	if err != nil {
		return err
	}
	if checks {
		if err = c.cni.CheckNetworkList(ctx, list, rt); err != nil {
			return err
		}
	}
	result, err := c.cni.GetNetworkListCachedResult(list, rt)
	if err != nil {
		return err
	}
	if result == nil {
		return errors.New("no cached result")
	}
	resp.Results[rt.IfName], err = types100.NewResultFromResult(result)
	return err
}

// crioStop is networkStop, a part of StopPodSandbox.
func crioStop(ctx context.Context, r *request, resp *response) error {
	c, err := newCRIO(ctx, r)
	if err != nil {
		return err
	}
	return c.stop(ctx, resp)
}

// stop tears down what libcni's cache knows of the container, else the pod's networks. When that fails and there is a file at the
// namespace's path, CRI-O takes the namespace for corrupt, removes it, and counts the network as stopped; without one it asks again.
func (c *crio) stop(ctx context.Context, resp *response) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all := c.cachedAttachments()
	if len(all) == 0 {
		all = c.attachments()
	}
	err := c.each(all, true, func(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
		return c.cni.DelNetworkList(ctx, list, rt)
	})
	if err == nil {
		resp.Forgotten = true
		return nil
	}
	if _, statErr := os.Stat(c.NetNS); statErr != nil {
		return fmt.Errorf("%w: stat netns path %q: %w", err, c.NetNS, statErr)
	}
	resp.Forgotten, resp.Teardown = true, err.Error()
	return nil
}

// cachedAttachments are those that the files of libcni's cache name, in the order of the files.
func (c *crio) cachedAttachments() []attachment {
	files, _ := filepath.Glob(filepath.Join(libcni.CacheDir, "results", "*-"+c.ID+"-*"))
	var all []attachment
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var cached struct{ Kind, IfName, ContainerID, NetworkName string }
		if json.Unmarshal(text, &cached) == nil && cached.Kind == libcni.CNICacheV1 && cached.ContainerID == c.ID {
			all = append(all, attachment{network: cached.NetworkName, ifName: cached.IfName})
		}
	}
	return all
}

// crioStatus asks the default network alone.
func crioStatus(ctx context.Context, r *request, _ *response) error {
	c, err := newCRIO(ctx, r)
	if err != nil {
		return err
	}
	list := c.networks[c.defaultName]
	if list == nil {
		return fmt.Errorf("no CNI configuration file in %s", r.ConfDir)
	}
	return c.cni.GetStatusNetworkList(ctx, list)
}

// crioGC is the GC that CRI-O does when it starts, of every network of the folder. A network without pods gets a nil list.
func crioGC(ctx context.Context, r *request, _ *response) error {
	c, err := newCRIO(ctx, r)
	if err != nil {
		return err
	}
	valid := map[string][]types.GCAttachment{}
	for _, id := range r.Alive {
		for _, a := range c.attachments() {
			valid[a.network] = append(valid[a.network], types.GCAttachment{ContainerID: id, IfName: a.ifName})
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.networks)) {
		errs = append(errs, c.cni.GCNetworkList(ctx, c.networks[name], &libcni.GCArgs{ValidAttachments: valid[name]}))
	}
	return errors.Join(errs...)
}

// setLoopbackUp is what ocicni does itself.
func setLoopbackUp(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}
