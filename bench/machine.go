// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/bench/stats"
)

// describeMachine tells what decides about the numbers. It names neither the machine nor its folders.
func describeMachine(dir string, latency time.Duration) (report.Machine, error) {
	m := report.Machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: runtime.GOARCH, APILatencyMillis: stats.Millis(latency)}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = field(string(text), "model name", m.CPU)
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		kib, _, _ := strings.Cut(field(string(text), "MemTotal", "0"), " ")
		n, _ := strconv.ParseInt(kib, 10, 64) // 0 says that it is not known
		m.MemoryMiB = n >> 10
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("kernel version: %w", err)
	}
	m.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-") // what follows names the builder
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return m, fmt.Errorf("file system: %w", err)
	}
	m.FileSystem = fileSystem(fs.Type)
	var err error
	m.FlushMillis, m.RemoveMillis, err = diskTimes(dir)
	return m, err
}

// field is the value of the first line "name : value", or else the fallback.
func field(text, name, fallback string) string {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return fallback
}

// fileSystem names a file system by its magic number (statfs(2)).
func fileSystem(magic int64) string {
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.F2FS_SUPER_MAGIC: "f2fs",
	}
	if name, ok := names[magic]; ok {
		return name
	}
	return fmt.Sprintf("%#x", magic)
}

// diskTimes are the median times, in milliseconds, to write a small file and flush it to the disk, and to remove it.
func diskTimes(dir string) (float64, float64, error) {
	path := filepath.Join(dir, "flush")
	var flush, remove []time.Duration
	for range 21 {
		start := time.Now()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return 0, 0, err
		}
		_, err = f.WriteString(strings.Repeat("x", 2<<10))
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return 0, 0, err
		}
		flushed := time.Now()
		if err = os.Remove(path); err != nil {
			return 0, 0, err
		}
		flush, remove = append(flush, flushed.Sub(start)), append(remove, time.Since(flushed))
	}
	return stats.Summarize(flush).Median, stats.Summarize(remove).Median, nil
}
