// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// Check asks every attachment of a sandbox whether it is as ADD left it (CNI 1.1.0 §2, CHECK), from what is on disk alone.
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
		return fmt.Errorf("its ADD did not complete: delete the pod's sandbox, so that the runtime makes it anew")
	}
	c.trace.begin("check")
	c.must = true
	return c.executor(s.dir).Check(ctx, s.plan)
}
