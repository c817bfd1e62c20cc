// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/plugin"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

// daemon is a source that is ready or not.
type daemon struct {
	source.Source

	notReady error
	lookups  int
}

func (d *daemon) Ready(context.Context) error { return d.notReady }

func (d *daemon) Lookup(_ context.Context, q source.Query) (*source.Selection, error) {
	d.lookups++
	s := &source.Selection{}
	if q.ClusterNetwork != "" {
		s.Default = &source.Network{Ref: nad.Ref{Namespace: q.NetworksNamespace, Name: q.ClusterNetwork}, Config: `{"type":"passthru"}`}
	}
	return s, nil
}

// TestStatusBearsADaemonThatIsBeingReplaced: an ADD would wait for it, and a node that is NotReady restarts no container.
func TestStatusBearsADaemonThatIsBeingReplaced(t *testing.T) {
	t.Parallel()
	away := fmt.Errorf("%w: is plexusd running on this node?", source.ErrTryAgain)
	inline := map[string]any{"delegates": []any{map[string]any{"name": "cluster", "type": "passthru"}}}
	const never = time.Duration(-1)
	tests := map[string]struct {
		conf     map[string]any
		notReady error
		seen     time.Duration // before now
		says     string        // "" for success
		lookups  int
	}{
		"it is there":                  {conf: inline, seen: never, lookups: 1},
		"it went a moment ago":         {conf: inline, notReady: away, seen: time.Minute},
		"it went long ago":             {conf: inline, notReady: away, seen: 6 * time.Minute, says: "last seen ready 6m0s ago"},
		"it has never been there":      {conf: inline, notReady: away, seen: never},
		"the clock was set back":       {conf: inline, notReady: away, seen: -time.Hour},
		"a shorter grace":              {conf: with(inline, "statusGraceSeconds", 30), notReady: away, seen: time.Minute, says: `"statusGraceSeconds" is 30`},
		"no grace":                     {conf: with(inline, "statusGraceSeconds", 0), notReady: away, seen: time.Second, says: "is plexusd running"},
		"what does not pass by itself": {conf: inline, notReady: errors.New("the socket belongs to user 7"), seen: 0, says: "belongs to user 7"},
		"the default network is a NAD": {conf: map[string]any{"clusterNetwork": "cluster"}, notReady: away, seen: time.Minute},
		"the default network's own file, and it is not ready": {conf: with(inline, "readinessindicatorfile", "/nonexistent/ready"), notReady: away, seen: time.Minute, says: "the default network is not ready"},
		"the default network is not on the node":              {conf: map[string]any{"clusterNetwork": "/nonexistent/10-x.conflist"}, notReady: away, seen: time.Minute, says: "/nonexistent/10-x.conflist"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			seen := filepath.Join(state, "source-seen")
			now := time.Now()
			if tc.seen != never {
				if err := os.WriteFile(seen, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(seen, now, now.Add(-tc.seen)); err != nil {
					t.Fatal(err)
				}
			}
			d := &daemon{notReady: tc.notReady}
			p := &plugin.Plugin{
				Source: func(*config.Config) (source.Source, error) { return d, nil },
				Log:    func(config.Log) *slog.Logger { return slog.New(slog.DiscardHandler) },
			}
			conf, err := json.Marshal(with(with(with(with(with(tc.conf, "cniVersion", "1.1.0"), "name", "plexus"), "type", "plexus"), "cniDir", state), "daemonSocketDir", state))
			if err != nil {
				t.Fatal(err)
			}
			err = p.Status(t.Context(), &skel.CmdArgs{StdinData: conf})
			cniErr, _ := errors.AsType[*types.Error](err)
			if tc.says == "" && err != nil || tc.says != "" && (cniErr == nil || cniErr.Code != 50 || !strings.Contains(cniErr.Msg, tc.says)) {
				t.Errorf("Status = %v, want %q", err, tc.says)
			}
			if d.lookups != tc.lookups {
				t.Errorf("%d lookups, want %d: one of a daemon that is away would be waited for", d.lookups, tc.lookups)
			}
			info, err := os.Stat(seen)
			if err != nil {
				t.Fatal(err)
			}
			if later := info.ModTime().After(now.Add(-time.Second)); later != (tc.notReady == nil || tc.seen <= 0) {
				t.Errorf("seen at %v, now is %v", info.ModTime(), now)
			}
		})
	}
}

func with(conf map[string]any, key string, value any) map[string]any {
	all := map[string]any{key: value}
	maps.Copy(all, conf)
	return all
}
