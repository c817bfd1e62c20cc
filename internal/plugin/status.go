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

// codeNotAvailable is CNI's code for a plugin that can not serve an ADD now (CNI 1.1.0 §5).
const codeNotAvailable = 50

// Status reports whether an ADD could be served (CNI 1.1.0 §2, STATUS): by Plexus, by its source, and by the default network.
// Secondary networks do not count: one that is down must not take the node down.
func (p *Plugin) Status(ctx context.Context, args *skel.CmdArgs) error {
	start := time.Now()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	err = c.done("STATUS", start, c.status(ctx))
	if _, ok := errors.AsType[*types.Error](err); ok || err == nil {
		return err
	}
	return types.NewError(codeNotAvailable, err.Error(), "")
}

func (c *call) status(ctx context.Context) error {
	if f := c.cfg.ReadinessIndicatorFile; f != "" && !fileExists(f) {
		return fmt.Errorf("the default network is not ready: its readinessindicatorfile %s does not exist yet", f)
	}
	if err := c.records.Writable(); err != nil {
		return err
	}
	src, err := c.Source(c.cfg)
	if err != nil {
		return err
	}
	if src != nil {
		if err = src.Ready(ctx); err != nil {
			return err
		}
	}
	selection, err := c.resolver().Lookup(ctx, src)
	if err != nil {
		return err
	}
	network, err := c.resolver().DefaultNetwork(selection.Default)
	if err != nil {
		return err
	}
	executor := c.executor(c.cfg.CNIDir)
	executor.Acquire = nil // a node that is busy with pods is no less ready
	return executor.Status(ctx, network.List)
}
