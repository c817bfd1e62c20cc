// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/source/manifest"
)

// stdinName stands for the standard input where a file is named, as with kubectl.
const stdinName = "-"

// addRecursive adds kubectl's flag for folders below the one that -f names.
func addRecursive(cmd *cobra.Command, recursive *bool) {
	cmd.Flags().BoolVarP(recursive, "recursive", "R", false, "read the folders below that of -f, too")
}

// manifestPaths are the files that a name given with -f stands for: itself, or the YAML and JSON files of a folder, and of those below it if
// recursive. Hidden ones are passed over.
func manifestPaths(name string, recursive bool) ([]string, error) {
	if name == stdinName {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	var found []string
	err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == name:
		case entry.IsDir() && (!recursive || strings.HasPrefix(entry.Name(), ".")):
			return fs.SkipDir
		case !entry.IsDir() && manifest.IsManifest(entry.Name()):
			found = append(found, path)
		}
		if len(found) > manifest.MaxFiles {
			return fmt.Errorf("%s: more than %d files: name a part of them", name, manifest.MaxFiles)
		}
		return nil
	})
	if err == nil && len(found) == 0 {
		hint := ""
		if !recursive {
			hint = ", or read the folders below it with -R"
		}
		return nil, fmt.Errorf("%s has no file .yaml, .yml or .json: name a folder that has some%s", name, hint)
	}
	return found, err
}

// readInput reads a file, or stdin for "-".
func readInput(name string, stdin io.Reader, most int64) ([]byte, error) {
	if name != stdinName {
		return bounded.ReadFile(name, most)
	}
	data, err := bounded.ReadAll(stdin, most)
	switch {
	case errors.Is(err, bounded.ErrTooLarge):
		return nil, fmt.Errorf("stdin has %w: give it in parts", err)
	case err != nil:
		return nil, fmt.Errorf("read stdin: %w", err)
	}
	return data, nil
}
