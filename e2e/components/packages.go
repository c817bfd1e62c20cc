// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package components

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/plexus-cni/plexus/e2e/retry"
)

// needs lists, by Debian package, one thing it brings that the build or the cluster takes from the machine.
// A path is looked for as such, a bare word on the search path.
func needs() [][2]string {
	return [][2]string{
		{"busybox-static", "busybox"}, // The test pods' image.
		{"gcc", "gcc"},                // runc.
		{"iproute2", "ip"},            // The node's links, and looking into pods.
		{"libc6-dev", "/usr/include/stdio.h"},
		{"libseccomp-dev", "/usr/include/seccomp.h"},
		{"nftables", "nft"}, // The address of the Service kubernetes, and port mappings.
		{"pkg-config", "pkg-config"},
	}
}

// InstallPackages installs what the machine lacks, by apt-get. Where it cannot, its error names the packages.
func InstallPackages(ctx context.Context, log io.Writer) error {
	var missing []string
	for _, need := range needs() {
		if !present(need[1]) {
			missing = append(missing, need[0])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("the machine lacks %s: install these Debian packages, or what they are called here, or run this as root on Debian", list)
	}
	apt := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log, log
		return cmd.Run()
	}
	install := append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...)
	err := retry.Do(ctx, retry.Fetch(), log, func() error {
		// The lists of one source may be out of reach, and what is missing come from others.
		outdated := apt("update", "-q")
		if err := apt(install...); err != nil {
			return errors.Join(outdated, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("apt-get install %s: %w", list, err)
	}
	return nil
}

func present(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil || isFile(name)
}
