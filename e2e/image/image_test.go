// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// spec is an image for two platforms, of files in dir.
func spec(t *testing.T) Spec {
	t.Helper()
	dir := t.TempDir()
	for _, arch := range []string{"amd64", "arm64"} {
		if err := os.WriteFile(filepath.Join(dir, "program-"+arch), []byte("for "+arch), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return Spec{
		Reference:  "example.org/some/name:v1",
		Platforms:  []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
		Files:      map[string]string{"/usr/bin/program": filepath.Join(dir, "program-{arch}")},
		Content:    map[string]string{"/etc/passwd": "root"},
		Links:      map[string]string{"/bin": "usr/bin"},
		Dirs:       []string{"/tmp"},
		Entrypoint: []string{"/bin/program", "serve"},
		User:       "65532:65532",
	}
}

// unpack reads an archive as an OCI image layout and returns its one index.
func unpack(t *testing.T, archive string) (v1.ImageIndex, v1.Descriptor) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	dir := t.TempDir()
	for r := tar.NewReader(file); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, header.Name)
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o750)
		} else {
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	outer, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 {
		t.Fatalf("want one image in the archive, got %d", len(manifest.Manifests))
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Fatal(err)
	}
	return index, manifest.Manifests[0]
}

func TestWrite(t *testing.T) {
	t.Parallel()
	s := spec(t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	if err := Write(archive, s); err != nil {
		t.Fatal(err)
	}
	index, descriptor := unpack(t, archive)
	if got := descriptor.Annotations["io.containerd.image.name"]; got != s.Reference {
		t.Errorf("name: got %q, want %q", got, s.Reference)
	}
	if got := descriptor.Annotations["org.opencontainers.image.ref.name"]; got != "v1" {
		t.Errorf("tag: got %q, want v1", got)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, platform := range s.Platforms {
		if got := manifest.Manifests[i].Platform; !got.Equals(platform) {
			t.Fatalf("platform %d: got %v, want %v", i, got, platform)
		}
		img, err := index.Image(manifest.Manifests[i].Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != platform.Architecture || config.OS != platform.OS {
			t.Errorf("config of %v is of %s/%s", platform, config.OS, config.Architecture)
		}
		if got := config.Config; !slices.Equal(got.Entrypoint, s.Entrypoint) || got.User != s.User {
			t.Errorf("entrypoint and user: got %v, %q", got.Entrypoint, got.User)
		}
		want := []string{
			"bin -> usr/bin 777", "etc/ 755", "etc/passwd 644 root", "tmp/ 1777", "usr/ 755", "usr/bin/ 755",
			"usr/bin/program 755 for " + platform.Architecture,
		}
		if got := files(t, img); !slices.Equal(got, want) {
			t.Errorf("files of %v:\n got %q\nwant %q", platform, got, want)
		}
	}
}

// files lists what is in an image.
func files(t *testing.T, img v1.Image) []string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(layers) != 1 {
		t.Fatalf("want one layer, got %d", len(layers))
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = content.Close() }()
	var list []string
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		line := header.Name
		if header.Linkname != "" {
			line += " -> " + header.Linkname
		}
		line += fmt.Sprintf(" %o", header.Mode)
		if header.Size > 0 {
			body, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			line += " " + string(body)
		}
		list = append(list, line)
	}
}

func TestWriteGivesTheSameBytesAgain(t *testing.T) {
	t.Parallel()
	s := spec(t)
	var archives [2][]byte
	for i := range archives {
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := Write(file, s); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		archives[i] = content
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of the same files differ")
	}
}

func TestWriteThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Spec){
		"a file that is not there": func(s *Spec) { s.Files["/x"] = "/no/such/file" },
		"no platform":              func(s *Spec) { s.Platforms = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(t)
			change(&s)
			dir := t.TempDir()
			err := Write(filepath.Join(dir, "image.tar"), s)
			if err == nil || !strings.Contains(err.Error(), s.Reference) {
				t.Errorf("got %v, want an error that names %s", err, s.Reference)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestLabelsAreOfImageAndManifests(t *testing.T) {
	s := spec(t)
	s.Labels = map[string]string{"org.opencontainers.image.version": "1.2.3"}
	s.Created = time.Unix(1700000000, 0).UTC()
	archive := filepath.Join(t.TempDir(), "image.tar")
	if err := Write(archive, s); err != nil {
		t.Fatal(err)
	}
	index, _ := unpack(t, archive)
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if got := manifest.Annotations["org.opencontainers.image.version"]; got != "1.2.3" {
		t.Errorf("the index is annotated with %q", got)
	}
	for _, d := range manifest.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if config.Config.Labels["org.opencontainers.image.version"] != "1.2.3" || m.Annotations["org.opencontainers.image.version"] != "1.2.3" || !config.Created.Equal(s.Created) {
			t.Errorf("labels %v, annotations %v, created %v", config.Config.Labels, m.Annotations, config.Created)
		}
	}
}
