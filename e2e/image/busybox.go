// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"debug/elf"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Machine is the platform that the process runs on.
func Machine() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// Busybox is an image with the machine's busybox, which must be static, and a link for each of its applets.
func Busybox(ctx context.Context, reference string) (Spec, error) {
	found, err := exec.LookPath("busybox")
	if err != nil {
		return Spec{}, fmt.Errorf("%w: install the Debian package busybox-static", err)
	}
	file, err := filepath.EvalSymlinks(found)
	if err != nil {
		return Spec{}, err
	}
	return BusyboxFrom(ctx, file, reference)
}

// BusyboxFrom is the same with the busybox that is at file.
func BusyboxFrom(ctx context.Context, file, reference string) (Spec, error) {
	const applets = "/bin/busybox"
	if err := static(file); err != nil {
		return Spec{}, err
	}
	list, err := exec.CommandContext(ctx, file, "--list").Output()
	if err != nil {
		return Spec{}, fmt.Errorf("list applets of %s: %w", file, err)
	}
	links := map[string]string{"/var/run": "/run"}
	for applet := range strings.FieldsSeq(string(list)) {
		if name := "/bin/" + applet; name != applets {
			links[name] = applets
		}
	}
	return Spec{
		Reference: reference,
		Platforms: []v1.Platform{Machine()},
		Files:     map[string]string{applets: file},
		Content: map[string]string{ //nolint:gosec // No password is in it.
			"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
			"/etc/group":  "root:x:0:\nnobody:x:65534:\n",
		},
		Links:   links,
		Dirs:    []string{"/root", "/run", "/tmp"},
		Command: []string{"/bin/sh"},
	}, nil
}

func static(file string) error {
	program, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = program.Close() }()
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("%s is not static: install the Debian package busybox-static", file)
	}
	return nil
}
