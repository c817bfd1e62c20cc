// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// Check asks whether the default network of a sandbox is as ADD left it, or all its networks where the configuration says so (CNI 1.1.0
// §2, CHECK), from what is on disk alone. CRI-O calls it while a pod starts, and many an IPAM plugin has no CHECK.
func (p *Plugin) Check(ctx context.Context, args *skel.CmdArgs) error {
	start := time.Now()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	return c.done("CHECK", start, c.check(ctx))
}

func (c *call) check(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := c.loadState(c.sandbox)
	switch {
	case err != nil:
		return err
	case s == nil:
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("no attachment is on record for container %s, interface %s", c.sandbox.ContainerID, c.sandbox.IfName), "")
	case !s.plan.Complete:
		return errors.New("its ADD did not complete, or its DEL has begun: delete the pod's sandbox, so that the runtime makes it anew")
	case s.plan.Sandbox.NetNS == "":
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("CNI_NETNS %s is not the network namespace of a sandbox, or no longer", c.sandbox.NetNS), "")
	}
	c.trace.begin("check")
	return c.executor(s.dir).Check(ctx, s.plan, c.cfg.CheckAll)
}
