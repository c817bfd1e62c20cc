// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// kernelPackage is a package with a kernel of Debian, and what those of the same source are called.
type kernelPackage struct {
	release string // As of uname -r: "6.1.0-56-amd64".
	series  string // "6.1".
	version string // Of the package: "6.1.192-2".
}

func parseKernelPackage(name, version string) (kernelPackage, error) {
	release, ok := strings.CutPrefix(name, "linux-image-")
	series := regexp.MustCompile(`^\d+\.\d+`).FindString(version)
	if !ok || series == "" {
		return kernelPackage{}, fmt.Errorf("package %s, version %s, is no kernel", name, version)
	}
	return kernelPackage{release: release, series: series, version: version}, nil
}

// image is the package of the kernel and its modules.
func (k kernelPackage) image() string { return "linux-image-" + k.release + "=" + k.version }

// sources are the packages that one of its modules is built from.
func (k kernelPackage) sources() []string {
	return []string{
		"linux-headers-" + k.release + "=" + k.version,
		k.commonHeaders() + "=" + k.version,
		"linux-kbuild-" + k.series + "=" + k.version,
		"linux-source-" + k.series + "=" + k.version,
	}
}

func (k kernelPackage) commonHeaders() string {
	return "linux-headers-" + strings.TrimSuffix(k.release, "-"+architecture) + "-common"
}

// fetchKernel makes a folder with the kernel, "vmlinux", and its modules, "lib/modules", to which it adds netdevsim.
func fetchKernel(ctx context.Context, a *apt, t tools, dir string) error {
	kernel, err := a.kernel(ctx)
	if err != nil {
		return err
	}
	unpacked, sources := filepath.Join(dir, "unpacked"), filepath.Join(dir, "sources")
	if err := a.download(ctx, unpacked, kernel.image()); err != nil {
		return err
	}
	if err := uncompress(ctx, t, filepath.Join(unpacked, "boot", "vmlinuz-"+kernel.release), filepath.Join(dir, "vmlinux")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(unpacked, "lib"), filepath.Join(dir, "lib")); err != nil {
		return err
	}
	if err := a.download(ctx, sources, kernel.sources()...); err != nil {
		return err
	}
	modules := filepath.Join(dir, "lib", "modules", kernel.release)
	if err := buildNetdevsim(ctx, t, kernel, sources, filepath.Join(modules, "kernel", "drivers", "net", "netdevsim.ko")); err != nil {
		return fmt.Errorf("build netdevsim: %w", err)
	}
	// What no test bed for networks has a use for is a third of it all.
	for _, unused := range []string{"sound", "drivers/gpu", "drivers/iio", "drivers/media", "drivers/scsi", "drivers/staging"} {
		if err := os.RemoveAll(filepath.Join(modules, "kernel", unused)); err != nil {
			return err
		}
	}
	if err := command(ctx, t.busybox(), "depmod", "-b", dir, kernel.release); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(unpacked), os.RemoveAll(sources))
}

// uncompress writes the kernel that is in a bzImage. QEMU starts it in a fifth of the time that the bzImage takes, which
// unpacks itself on an emulated processor.
func uncompress(ctx context.Context, t tools, bzImage, vmlinux string) error {
	content, err := os.ReadFile(bzImage)
	if err != nil {
		return err
	}
	payload, err := bzImagePayload(content)
	if err != nil {
		return fmt.Errorf("parse %s: %w", bzImage, err)
	}
	compressed := vmlinux + ".xz"
	if err := os.WriteFile(compressed, payload, 0o644); err != nil {
		return err
	}
	out, err := os.Create(vmlinux)
	if err != nil {
		return err
	}
	return errors.Join(t.unxz(ctx, compressed, out), out.Close(), os.Remove(compressed))
}

// bzImagePayload is the compressed kernel in a bzImage, in the format xz.
// See "The Linux/x86 Boot Protocol", 2.08 and later, for the fields.
func bzImagePayload(image []byte) ([]byte, error) {
	const (
		setupSectors, magic, version        = 0x1f1, 0x202, 0x206
		payloadOffset, payloadLength        = 0x248, 0x24c
		end                                 = 0x250
		sector                              = 512
		xz                                  = "\xfd7zXZ\x00"
		sizeOfUncompressed                  = 4 // Follows the compressed data and is counted with it.
		firstVersionWithPayload      uint16 = 0x208
	)
	if len(image) < end || string(image[magic:magic+4]) != "HdrS" ||
		binary.LittleEndian.Uint16(image[version:]) < firstVersionWithPayload {
		return nil, errors.New("no bzImage")
	}
	start := (uint64(image[setupSectors])+1)*sector + uint64(binary.LittleEndian.Uint32(image[payloadOffset:]))
	length := uint64(binary.LittleEndian.Uint32(image[payloadLength:]))
	if length < sizeOfUncompressed || start+length > uint64(len(image)) {
		return nil, errors.New("bzImage is cut short")
	}
	payload := image[start : start+length-sizeOfUncompressed]
	if !strings.HasPrefix(string(payload[:min(len(payload), len(xz))]), xz) {
		return nil, errors.New("kernel is not compressed by xz")
	}
	return payload, nil
}

// buildNetdevsim builds the module netdevsim, which Debian's kernels lack, from the kernel's own sources.
func buildNetdevsim(ctx context.Context, t tools, kernel kernelPackage, sources, module string) error {
	for _, program := range []string{"make", "gcc", "strip"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: install the Debian packages gcc and make", err)
		}
	}
	const driver = "drivers/net/netdevsim"
	tree := "linux-source-" + kernel.series
	archive := filepath.Join(sources, "usr", "src", tree+".tar.xz")
	if err := t.extract(ctx, archive, tree+"/"+driver, sources); err != nil {
		return err
	}
	headers := filepath.Join(sources, "usr", "src", "linux-headers-"+kernel.release)
	// The headers believe that they are installed.
	makefile := fmt.Sprintf("include %s\n", filepath.Join(sources, "usr", "src", kernel.commonHeaders(), "Makefile"))
	if err := os.WriteFile(filepath.Join(headers, "Makefile"), []byte(makefile), 0o644); err != nil {
		return err
	}
	source := filepath.Join(sources, tree, driver)
	if err := command(ctx, "make", "-C", headers, "M="+source, "CC=gcc", "CONFIG_NETDEVSIM=m", "modules"); err != nil {
		return err
	}
	return command(ctx, "strip", "--strip-debug", "-o", module, filepath.Join(source, "netdevsim.ko"))
}
