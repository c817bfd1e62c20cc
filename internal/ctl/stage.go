// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/source/manifest"
)

// stage is a copy of manifests for Plexus, which reads a folder (manifestDir): of a file, or of folders below one.
type stage struct {
	path  string
	files [][]byte
}

// loadManifests reads the manifests that -f names. The stage is nil if they are the files of one folder.
func loadManifests(path string, recursive bool, stateDir string) (*manifest.Objects, *stage, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() && !recursive {
		objects, loadErr := manifest.Load(path)
		return objects, nil, loadErr
	}
	files, err := manifestPaths(path, recursive)
	if err != nil {
		return nil, nil, err
	}
	objects := &manifest.Objects{}
	name := sha256.Sum256([]byte(path))
	s := &stage{path: filepath.Join(stateDir, "plexusctl", "manifests", fmt.Sprintf("%x", name[:8]))}
	for _, file := range files {
		data, err := bounded.ReadFile(file, manifest.MaxFileBytes)
		if err != nil {
			return nil, nil, err
		}
		parsed, err := manifest.Parse(data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		objects.Pods = append(objects.Pods, parsed.Pods...)
		objects.Definitions = append(objects.Definitions, parsed.Definitions...)
		s.files = append(s.files, data)
	}
	return objects, s, nil
}

// dir is the folder of the copy, "" for none.
func (s *stage) dir() string {
	if s == nil {
		return ""
	}
	return s.path
}

// write makes the copy, in the place of an earlier one: the network-status of pods that are attached from it stays.
func (s *stage) write() error {
	if s == nil {
		return nil
	}
	old, err := filepath.Glob(filepath.Join(s.path, "*.yaml"))
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(s.path, 0o750)}
	for _, file := range old {
		errs = append(errs, os.Remove(file))
	}
	for i, data := range s.files {
		errs = append(errs, os.WriteFile(filepath.Join(s.path, fmt.Sprintf("%04d.yaml", i)), data, 0o600))
	}
	return errors.Join(errs...)
}
