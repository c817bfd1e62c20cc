// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/internal/bounded"
)

const (
	stampLayout = "20060102T150405Z"
	gzipSuffix  = ".gz"
)

// backup is one rotated file: <stem>-<stamp>[-<n>]<ext>[.gz].
type backup struct {
	path       string
	rotated    time.Time // UTC, to the second
	n          int       // tells the rotations of one second apart
	compressed bool
}

// listBackups returns the backups of the log file at path, the newest first. Files with other names are none of ours.
func listBackups(path string) ([]backup, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list backups of log file: %w", err)
	}
	var backups []backup
	for _, e := range entries {
		if b, ok := parseBackup(path, e.Name()); ok && e.Type().IsRegular() {
			backups = append(backups, b)
		}
	}
	slices.SortFunc(backups, func(a, b backup) int {
		return cmp.Or(b.rotated.Compare(a.rotated), cmp.Compare(b.n, a.n))
	})
	return backups, nil
}

func parseBackup(path, name string) (backup, bool) {
	stem, ext := splitExt(filepath.Base(path))
	rest, isOurs := strings.CutPrefix(name, stem+"-")
	rest, compressed := strings.CutSuffix(rest, gzipSuffix)
	rest, hasExt := strings.CutSuffix(rest, ext)
	if !isOurs || !hasExt {
		return backup{}, false
	}
	stamp, number, numbered := strings.Cut(rest, "-")
	b := backup{path: filepath.Join(filepath.Dir(path), name), compressed: compressed}
	var err error
	if b.rotated, err = time.Parse(stampLayout, stamp); err != nil {
		return backup{}, false
	}
	if numbered {
		if b.n, err = strconv.Atoi(number); err != nil {
			return backup{}, false
		}
	}
	return b, true
}

// nextBackup returns the path of a backup made now, given all there are.
func nextBackup(backups []backup, path string, now time.Time) string {
	now = now.UTC().Truncate(time.Second)
	stem, ext := splitExt(path)
	name := stem + "-" + now.Format(stampLayout)
	if i := slices.IndexFunc(backups, func(b backup) bool { return b.rotated.Equal(now) }); i >= 0 {
		// The newest come first, so this is the highest number of this second.
		name += "-" + strconv.Itoa(backups[i].n+1)
	}
	return name + ext
}

// splitExt returns the path up to its extension, and the extension.
func splitExt(path string) (string, string) {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext), ext
}

// split divides the backups that were there before a rotation, the newest first, into those to keep beside the new one and those
// to remove. Those of the future, from before the clock was set back, are the oldest: or else they would be kept, and new ones go.
func split(backups []backup, opts Options, now time.Time) ([]backup, []backup) {
	var past, future []backup
	for _, b := range backups {
		if b.rotated.After(now) {
			future = append(future, b)
		} else {
			past = append(past, b)
		}
	}
	var kept, expired []backup
	for _, b := range slices.Concat(past, future) {
		tooOld := opts.MaxAgeDays > 0 && b.rotated.Before(now.AddDate(0, 0, -opts.MaxAgeDays))
		if tooOld || len(kept)+1 >= opts.MaxBackups {
			expired = append(expired, b)
		} else {
			kept = append(kept, b)
		}
	}
	return kept, expired
}

func remove(backups []backup) error {
	var errs []error
	for _, b := range backups {
		if err := os.Remove(b.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove old log file: %w", err))
		}
	}
	return errors.Join(errs...)
}

// compress replaces the file by its gzip. A crash leaves the file, or both; the next rotation does it again.
func compress(path string) error {
	tmp := path + gzipSuffix + ".tmp"
	err := gzipTo(tmp, path)
	if err == nil {
		err = os.Rename(tmp, path+gzipSuffix)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		_ = os.Remove(tmp) // May not exist; the error that counts is the first one.
		return fmt.Errorf("compress log file: %w", err)
	}
	return nil
}

func gzipTo(dst, src string) error {
	in, err := os.OpenFile(src, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := bounded.OpenOwn(dst, os.O_WRONLY|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(out)
	_, err = io.Copy(zip, in)
	return errors.Join(err, zip.Close(), out.Close())
}
