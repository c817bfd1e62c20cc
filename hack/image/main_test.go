// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var args []string
	for _, arch := range []string{"amd64", "arm64"} {
		programs := filepath.Join(dir, arch)
		if err := os.Mkdir(programs, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"plexus", "plexusd"} {
			if err := os.WriteFile(filepath.Join(programs, name), []byte(name+" for "+arch), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, "linux/"+arch+"="+programs)
	}
	out := filepath.Join(dir, "image.tar")
	if err := run("docker.io/library/plexus:v1", out, args); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	layout := untar(t, first)
	for name, data := range layout {
		if digest, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest {
				t.Errorf("blob %s has another digest", name)
			}
		}
	}
	top := decode[manifest](t, layout["index.json"])
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != "docker.io/library/plexus:v1" {
		t.Errorf("image name %q", got)
	}
	blob := func(d descriptor) []byte {
		data, ok := layout["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
		if !ok || len(data) != d.Size {
			t.Errorf("%s of %d bytes: there are %d", d.Digest, d.Size, len(data))
		}
		return data
	}
	var platforms []string
	for _, d := range decode[manifest](t, blob(top.Manifests[0])).Manifests {
		platforms = append(platforms, d.Platform.OS+"/"+d.Platform.Architecture)
		m := decode[manifest](t, blob(d))
		config := decode[struct{ Architecture string }](t, blob(*m.Config))
		files := untar(t, blob(m.Layers[0]))
		if got := string(files["usr/bin/plexusd"]); config.Architecture != d.Platform.Architecture || got != "plexusd for "+config.Architecture {
			t.Errorf("platform %+v: config for %s, program %q", d.Platform, config.Architecture, got)
		}
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
	if err := run("docker.io/library/plexus:v1", out, args); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(out); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same programs gave other bytes: %v", err)
	}
}

func TestImageRefuses(t *testing.T) {
	t.Parallel()
	for name, arg := range map[string]string{"no folder": "linux/amd64", "no architecture": "linux=.", "no programs": "linux/amd64=" + t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := run("x:y", filepath.Join(t.TempDir(), "out"), []string{arg}); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func untar(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func decode[T any](t *testing.T, data []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return v
}
