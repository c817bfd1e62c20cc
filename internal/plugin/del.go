// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/record"
)

// Del takes a sandbox off all its networks (CNI 1.1.0 §2, DEL), from what is on disk alone. A sandbox that nothing is known of is a
// success; what could not be undone is kept for the next DEL, GC or repair, and told.
func (p *Plugin) Del(ctx context.Context, args *skel.CmdArgs) error {
	return unmistakableError(p.del(ctx, args))
}

func (p *Plugin) del(ctx context.Context, args *skel.CmdArgs) error {
	start := time.Now()
	go learn(delegate.Plan{}, types.PluginConf{}, types100.Result{})
	cfg, refused, err := config.ParseForUndo(args.StdinData)
	if err != nil {
		return err
	}
	c, err := p.callOf(args, cfg)
	if err != nil {
		return err
	}
	c.warn("the configuration is read for its folders alone", refused)
	return c.done("DEL", start, c.del(ctx))
}

func (c *call) del(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if errors.Is(err, record.ErrKey) {
		return nil // no ADD of such a sandbox can have succeeded
	}
	if err != nil {
		return err
	}
	defer unlock()
	s, err := c.loadState(c.sandbox)
	if err != nil {
		return err
	}
	if s == nil {
		// An ADD that was killed may have begun to write one.
		return c.records.Delete(key(c.sandbox))
	}
	err = c.undo(ctx, s)
	if err != nil && s.tolerable() {
		c.warn("something of the sandbox could not be undone: the sandbox may go, and a later call tries again", err)
		return nil
	}
	return err
}
