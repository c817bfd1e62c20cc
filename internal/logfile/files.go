// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Files lists the log file at path and its backups, the oldest first, for a reader. Those that end in .gz are compressed. There are
// none where nothing has been logged; what is listed may be rotated away before it is opened.
func Files(path string) ([]string, error) {
	backups, err := listBackups(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, b := range slices.Backward(backups) {
		// A crash of the process that compresses leaves both.
		if plain, ok := strings.CutSuffix(b.path, gzipSuffix); ok && slices.ContainsFunc(backups, func(o backup) bool { return o.path == plain }) {
			continue
		}
		files = append(files, b.path)
	}
	if _, err := os.Lstat(path); err == nil {
		files = append(files, path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return files, nil
}
