// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/plexus-cni/plexus/internal/source"
)

// seenFile is the file in the state folder whose modification time is when STATUS last saw the source ready: a plugin lives for one call
// only. It outlasts a reboot.
const seenFile = "source-seen"

// seenPrecision is how old the time may become before it is written again. Runtimes ask every five seconds.
const seenPrecision = 15 * time.Second

// awayInGrace reports whether the source is away, and not for longer than STATUS bears. The error is why it is not ready, if it has been
// away for longer or will not come back by itself. One that has never been seen is away from the first STATUS on.
func (c *call) awayInGrace(ctx context.Context, src source.Source) (bool, error) {
	path := filepath.Join(c.cfg.CNIDir, seenFile)
	now := time.Now()
	notReady := src.Ready(ctx)
	if c.cfg.DaemonSocketDir == "" && c.cfg.Kubeconfig == "" {
		return false, notReady // files of this node
	}
	if notReady == nil {
		if seen, err := lastSeen(path); err != nil || now.Sub(seen).Abs() > seenPrecision {
			c.noteSeen(path, now)
		}
		return false, nil
	}
	if !errors.Is(notReady, source.ErrTryAgain) {
		return false, notReady
	}
	seen, err := lastSeen(path)
	if errors.Is(err, fs.ErrNotExist) || seen.After(now) { // in the future: the clock was set back
		c.noteSeen(path, now)
		seen, err = now, nil
	}
	if err != nil {
		return false, errors.Join(notReady, err)
	}
	if away := now.Sub(seen); away > c.cfg.StatusGrace {
		return false, fmt.Errorf("%w (last seen ready %v ago; \"statusGraceSeconds\" is %.0f)", notReady, away.Round(time.Second), c.cfg.StatusGrace.Seconds())
	}
	c.log.Warn("the source is away; STATUS bears it for a while", "lastSeenReady", seen.Format(time.RFC3339), "grace", c.cfg.StatusGrace, "error", notReady)
	return true, nil
}

func lastSeen(path string) (time.Time, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// noteSeen writes the time. Where that fails STATUS is stricter than it has to be, which the log says.
func (c *call) noteSeen(path string, now time.Time) {
	err := os.Chtimes(path, now, now)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
	}
	if err != nil {
		c.log.Warn("when the source was last seen ready is not written", "error", err)
	}
}
