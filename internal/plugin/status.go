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

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/source"
)

// codeNotAvailable is CNI's code for a plugin that can not serve an ADD now (CNI 1.1.0 §5).
const codeNotAvailable = 50

// statusLookupTimeout bounds the lookup of the default network. The source has just been ready.
const statusLookupTimeout = 5 * time.Second

// Status reports whether an ADD could be served (CNI 1.1.0 §2, STATUS): by Plexus, by the default network, and by the source. An ADD waits
// for a source that is being replaced, so one that is away counts only after a while. Secondary networks do not count: one that is down must
// not take the node down.
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
	away := false
	if src != nil {
		if away, err = c.awayInGrace(ctx, src); err != nil {
			return err
		}
	}
	if away {
		src = nil // it would be waited for
	}
	lookup, cancel := context.WithTimeout(ctx, statusLookupTimeout)
	defer cancel()
	network, err := c.defaultNetwork(lookup, src)
	if away && err != nil && c.cfg.ClusterNetwork != "" && !c.cfg.ClusterNetworkIsPath() {
		return nil // a NAD, which only the source knows
	}
	if err != nil {
		return err
	}
	executor := c.executor(c.cfg.CNIDir)
	executor.Acquire = nil // a node that is busy with pods is no less ready
	return executor.Status(ctx, network.List)
}

func (c *call) defaultNetwork(ctx context.Context, src source.Source) (*delegate.Network, error) {
	selection, err := c.resolver().Lookup(ctx, src)
	if err != nil {
		return nil, err
	}
	return c.resolver().DefaultNetwork(selection.Default)
}
