// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command image packs built programs into an OCI image archive, without Docker and without a network: what `ctr images import`,
// `docker load` and `kind load image-archive` take. The same programs give the same bytes.
//
//	go run ./hack/image -name NAME:TAG -out FILE linux/amd64=DIR linux/arm64=DIR
//
// Each DIR's files become /usr/bin of that platform's image, as by the Dockerfile.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path"
	"path/filepath"
	"strings"
)

func main() {
	name := flag.String("name", "docker.io/library/plexus:dev", "name of the image, as whole as the container runtime wants it")
	out := flag.String("out", "", "archive to write")
	flag.Parse()
	if *out == "" || flag.NArg() == 0 {
		log.Fatal("usage: image -name NAME:TAG -out FILE OS/ARCH=DIR...")
	}
	if err := run(*name, *out, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(name, out string, platforms []string) error {
	var a archive
	if err := a.addImage(name, platforms); err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return errors.Join(a.write(f), f.Close())
}

// Media types of the OCI image specification 1.1.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

// archive is an image layout (OCI image-spec, image-layout.md): blobs by digest, in the order in which they were added.
type archive struct {
	files []file
	seen  map[string]bool
}

type file struct {
	name string
	data []byte
}

// addBlob adds data under its digest, once.
func (a *archive) addBlob(mediaType string, data []byte) descriptor {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	if a.seen == nil {
		a.seen = map[string]bool{}
	}
	if !a.seen[digest] {
		a.seen[digest] = true
		a.files = append(a.files, file{"blobs/sha256/" + digest, data})
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(data)}
}

func (a *archive) addJSON(mediaType string, value any) (descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, fmt.Errorf("image: %w", err)
	}
	return a.addBlob(mediaType, data), nil
}

// addImage adds an image of all platforms, each given as OS/ARCH=DIR, and the index that names it.
func (a *archive) addImage(name string, platforms []string) error {
	index := manifest{SchemaVersion: 2, MediaType: typeIndex}
	for _, arg := range platforms {
		d, err := a.addPlatform(arg)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, d)
	}
	image, err := a.addJSON(typeIndex, index)
	if err != nil {
		return err
	}
	_, tag, _ := strings.Cut(path.Base(name), ":")
	image.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
	top, err := json.Marshal(manifest{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{image}})
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	a.files = append(a.files, file{"index.json", top}, file{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)})
	return nil
}

func (a *archive) addPlatform(arg string) (descriptor, error) {
	target, dir, ok := strings.Cut(arg, "=")
	goos, arch, ok2 := strings.Cut(target, "/")
	if !ok || !ok2 {
		return descriptor{}, fmt.Errorf("platform %q: write OS/ARCH=DIR", arg)
	}
	layer, err := layerOf(dir)
	if err != nil {
		return descriptor{}, err
	}
	p := platform{Architecture: arch, OS: goos}
	layerDescriptor := a.addBlob(typeLayer, layer)
	config, err := a.addJSON(typeConfig, map[string]any{
		"architecture": p.Architecture,
		"os":           p.OS,
		"config": map[string]any{
			"Entrypoint": []string{"/usr/bin/plexusd"},
			"Cmd":        []string{"serve"},
			"Env":        []string{"PATH=/usr/bin"},
			"WorkingDir": "/",
		},
		// A layer that is not compressed has one digest, as blob and as content.
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerDescriptor.Digest}},
	})
	if err != nil {
		return descriptor{}, err
	}
	d, err := a.addJSON(typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: &config, Layers: []descriptor{layerDescriptor}})
	d.Platform = &p
	return d, err
}

// layerOf packs the files of dir as /usr/bin, all of root's and of no time.
func layerOf(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, folder := range []string{"usr/", "usr/bin/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder, Mode: 0o755}); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
	}
	for _, e := range entries { // sorted by name
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		if err := addFile(w, "usr/bin/"+e.Name(), data, 0o755); err != nil {
			return nil, err
		}
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("image: no programs in %s", dir)
	}
	return buf.Bytes(), w.Close()
}

func (a *archive) write(out io.Writer) error {
	w := tar.NewWriter(out)
	for _, f := range a.files {
		if err := addFile(w, f.name, f.data, 0o644); err != nil {
			return err
		}
	}
	return w.Close()
}

func addFile(w *tar.Writer, name string, data []byte, mode int64) error {
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		return fmt.Errorf("image: %s: %w", name, err)
	}
	return nil
}
