// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package image makes container images from files of the machine, without a daemon and without a network.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec is what an image has in it.
type Spec struct {
	Reference  string            // Name and tag: "registry.example/name:tag".
	Platforms  []v1.Platform     // At least one.
	Files      map[string]string // By path in the image, a file of the machine; "{arch}" in it stands for the architecture.
	Content    map[string]string // By path in the image, the content of a file of mode 0644.
	Links      map[string]string // By path in the image, the target of a symbolic link.
	Dirs       []string          // Folders besides those that the others need.
	Entrypoint []string
	Command    []string
	User       string // As in a Dockerfile: "65532:65532". Empty is root.
	// Labels of the image, and annotations of its manifests, by the keys that OCI has defined (image-spec annotations.md).
	Labels map[string]string
	// Created is when the image says that it was made. The zero time is none, which registries show as 1970.
	Created time.Time
}

// Write writes the image to file as an archive of an OCI image layout, which `ctr images import`, `docker load`, `podman load`
// and `kind load image-archive` take. The same Spec and the same files give the same bytes.
func Write(file string, spec Spec) error {
	if err := write(file, spec); err != nil {
		return fmt.Errorf("write image %s: %w", spec.Reference, err)
	}
	return nil
}

func write(file string, spec Spec) error {
	index, err := build(spec)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	reference := map[string]string{"io.containerd.image.name": spec.Reference}
	if _, tag, ok := strings.Cut(path.Base(spec.Reference), ":"); ok {
		reference["org.opencontainers.image.ref.name"] = tag
	}
	oci, err := layout.Write(filepath.Join(dir, "oci"), empty.Index)
	if err != nil {
		return err
	}
	if err := oci.AppendIndex(index, layout.WithAnnotations(reference)); err != nil {
		return err
	}
	archive := filepath.Join(dir, "archive")
	if err := archiveDir(archive, filepath.Join(dir, "oci")); err != nil {
		return err
	}
	return os.Rename(archive, file)
}

// build makes an index with an image for each platform.
func build(spec Spec) (v1.ImageIndex, error) {
	if len(spec.Platforms) == 0 {
		return nil, errors.New("no platform named")
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range spec.Platforms {
		img, err := buildOne(spec, platform)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	if len(spec.Labels) > 0 {
		index = mutate.Annotations(index, spec.Labels).(v1.ImageIndex)
	}
	return index, nil
}

func buildOne(spec Spec, platform v1.Platform) (v1.Image, error) {
	content, err := archiveSpec(spec, platform.Architecture)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Config.Entrypoint, config.Config.Cmd, config.Config.User = spec.Entrypoint, spec.Command, spec.User
	config.Config.Labels, config.Created = spec.Labels, v1.Time{Time: spec.Created}
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if img, err = mutate.ConfigFile(img, config); err != nil || len(spec.Labels) == 0 {
		return img, err
	}
	return mutate.Annotations(img, spec.Labels).(v1.Image), nil
}

// entry is a file of an image.
type entry struct {
	header tar.Header
	body   []byte
}

// archiveSpec makes the one layer of an image.
func archiveSpec(spec Spec, arch string) ([]byte, error) {
	entries := map[string]entry{}
	add := func(name string, e entry) {
		e.header.Name = strings.Trim(path.Clean("/"+name), "/")
		for dir := path.Dir(e.header.Name); dir != "."; dir = path.Dir(dir) {
			if _, ok := entries[dir]; !ok {
				entries[dir] = entry{header: tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}}
			}
		}
		entries[e.header.Name] = e
	}
	for _, dir := range spec.Dirs {
		mode := int64(0o755)
		if path.Clean("/"+dir) == "/tmp" {
			mode = 0o1777
		}
		add(dir, entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: mode}})
	}
	for name, target := range spec.Links {
		add(name, entry{header: tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: target}})
	}
	for name, content := range spec.Content {
		add(name, entry{header: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, body: []byte(content)})
	}
	for name, file := range spec.Files {
		file = strings.ReplaceAll(file, "{arch}", arch)
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		mode := int64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		add(name, entry{header: tar.Header{Typeflag: tar.TypeReg, Mode: mode}, body: body})
	}

	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	// Sorted, a folder comes before what is in it.
	sorted := slices.SortedFunc(func(yield func(entry) bool) {
		for _, e := range entries {
			if !yield(e) {
				return
			}
		}
	}, func(a, b entry) int { return cmp.Compare(a.header.Name, b.header.Name) })
	for _, e := range sorted {
		if err := writeEntry(w, e.header, bytes.NewReader(e.body), int64(len(e.body))); err != nil {
			return nil, err
		}
	}
	return buffer.Bytes(), w.Close()
}

// archiveDir writes a folder to a tar file.
func archiveDir(file, dir string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	w := tar.NewWriter(out)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() {
			return writeEntry(w, tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, nil, 0)
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return writeEntry(w, tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, f, info.Size())
	})
	return errors.Join(err, w.Close(), out.Close())
}

// writeEntry writes one file, of a fixed time so that archives can be compared.
func writeEntry(w *tar.Writer, header tar.Header, body io.Reader, size int64) error {
	header.ModTime, header.Size = time.Unix(0, 0), size
	if header.Typeflag == tar.TypeDir {
		header.Name += "/"
	}
	if err := w.WriteHeader(&header); err != nil {
		return err
	}
	if size == 0 {
		return nil
	}
	_, err := io.Copy(w, body)
	return err
}
