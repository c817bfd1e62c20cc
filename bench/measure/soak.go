// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/bench/stats"
)

const (
	// soakAtOnce is how many pods the soak attaches at a time.
	soakAtOnce = 4
	// soakSamples is how often it looks at the daemon.
	soakSamples = 100
	// The log of the soak is small, so that it is rotated several times.
	soakLogMB      = 1
	soakLogBackups = 2
)

// What may grow from the first to the last quarter without being called growth: what the Go runtime keeps or gives back at will.
const (
	slackDescriptors = 2
	slackGoroutines  = 4
	slackRSSKiB      = 3 << 10
)

// soak attaches and detaches pods through one daemon, for long, and looks whether anything grows.
func (m *runner) soak(ctx context.Context) error {
	if m.plan.Soak == 0 {
		return nil
	}
	c, err := m.node.StartCluster(ctx, typical())
	if err != nil {
		return err
	}
	defer c.Close()
	sandboxes, err := c.Sandboxes(usual(host.Noop), soakAtOnce)
	if err != nil {
		return err
	}
	log := host.Log{File: filepath.Join(m.node.Dir(), "soak", "plexus.log"), Level: "debug", MaxSizeMB: soakLogMB, MaxBackups: soakLogBackups}
	contender, err := c.Contender(host.Daemon).Logging(log)
	if err != nil {
		return err
	}
	r := &report.Soak{Cycles: m.plan.Soak}
	watch := &logWatch{dir: filepath.Dir(log.File), sizes: map[uint64]int64{}}
	start := time.Now()
	every := max(m.plan.Soak/soakSamples/soakAtOnce, 1)
	for round := 0; round*soakAtOnce < m.plan.Soak; round++ {
		m.progress("soak", round*soakAtOnce, m.plan.Soak)
		if _, _, err = addAndDel(ctx, contender, renew(c, sandboxes)); err != nil {
			return err
		}
		if err = watch.look(); err != nil {
			return err
		}
		if round%every == 0 {
			if err = sample(ctx, c.Daemon, r); err != nil {
				return err
			}
		}
	}
	r.Seconds = time.Since(start).Seconds()
	r.LogFiles, r.LogBytes, r.LogWritten = watch.files, watch.bytes, watch.written
	left, err := contender.Left(netnsOf(sandboxes)...)
	if err != nil {
		return err
	}
	judge(r, left)
	m.report.Soak = r
	return nil
}

// sample looks at the daemon.
func sample(ctx context.Context, daemon *host.Process, r *report.Soak) error {
	descriptors, err := daemon.Descriptors()
	if err != nil {
		return err
	}
	goroutines, err := host.Metric(ctx, "go_goroutines")
	if err != nil {
		return err
	}
	memory, err := daemon.Memory()
	if err != nil {
		return err
	}
	r.Descriptors.All = append(r.Descriptors.All, float64(descriptors))
	r.Goroutines.All = append(r.Goroutines.All, goroutines)
	r.RSSKiB.All = append(r.RSSKiB.All, float64(memory.RSS))
	return nil
}

// judge says what grew that should not.
func judge(r *report.Soak, left []string) {
	for _, s := range []struct {
		name   string
		series *report.Series
		slack  float64
	}{
		{"descriptors", &r.Descriptors, slackDescriptors},
		{"goroutines", &r.Goroutines, slackGoroutines},
		{"RSS in KiB", &r.RSSKiB, slackRSSKiB},
	} {
		s.series.First, s.series.Last = stats.Drift(s.series.All)
		if s.series.Last > s.series.First+s.slack {
			r.Faults = append(r.Faults, fmt.Sprintf("%s grew from %.0f to %.0f", s.name, s.series.First, s.series.Last))
		}
	}
	if most := soakLogBackups + 1; r.LogFiles > most {
		r.Faults = append(r.Faults, fmt.Sprintf("the log has %d files, at most %d were asked for", r.LogFiles, most))
	}
	if most := int64(soakLogBackups+1) * soakLogMB << 20; r.LogBytes > most {
		r.Faults = append(r.Faults, fmt.Sprintf("the log has %d bytes, at most %d were asked for", r.LogBytes, most))
	}
	if r.LogWritten > soakLogMB<<20 && r.LogFiles < 2 {
		r.Faults = append(r.Faults, fmt.Sprintf("the log was not rotated after %d bytes", r.LogWritten))
	}
	if len(left) > 0 {
		const some = 5
		r.Faults = append(r.Faults, fmt.Sprintf("%d interfaces and files are left, among them %s", len(left), strings.Join(left[:min(some, len(left))], ", ")))
	}
}

// logWatch follows what is written to a log that is rotated.
type logWatch struct {
	dir string
	// sizes are those of the files that are known, by inode. A number that is used again counts its new file's growth only.
	sizes map[uint64]int64
	// files and bytes are on disk now; written is what was in all.
	files   int
	bytes   int64
	written int64
}

// look reads the sizes of all files of the log.
func (w *logWatch) look() error {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	before := w.sizes
	w.files, w.bytes, w.sizes = 0, 0, map[uint64]int64{}
	for _, e := range entries {
		info, err := e.Info()
		if os.IsNotExist(err) || strings.HasSuffix(e.Name(), ".lock") {
			continue // rotated away, or what keeps two from rotating at once
		}
		if err != nil {
			return err
		}
		w.files++
		w.bytes += info.Size()
		id := host.Inode(info)
		w.written += max(info.Size()-before[id], 0)
		w.sizes[id] = info.Size()
	}
	return nil
}
