// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxKernels is how many kernels of one release are tried: each is a download of up to 200 MB.
const maxKernels = 3

// netdevsim is the module that is built for the kernel, and what the guest lacks where that is not possible.
const netdevsim = "netdevsim"

// kernels lists those of a release, in the order to take them.
func (a *apt) kernels(ctx context.Context) ([]kernelSet, error) {
	found, err := a.list(ctx, "linux-", regexp.MustCompile(`^(linux-image|linux-headers|linux-kbuild|linux-source)-`))
	if err != nil {
		return nil, err
	}
	return kernelSets(found), nil
}

// fetchKernel makes a folder with a kernel, "vmlinux", and its modules, "lib/modules", to which it adds netdevsim: the first kernel
// whose packages are all to be had, and fit. It says why it passes over others.
func fetchKernel(ctx context.Context, a *apt, t tools, dir string) (taken, error) {
	for _, program := range []string{"make", "gcc", "strip"} {
		if _, err := exec.LookPath(program); err != nil {
			return taken{}, fmt.Errorf("%w: install the Debian packages gcc and make", err)
		}
	}
	lacks := func(set kernelSet) []string { return set.missing }
	set, err := firstKernel(ctx, a, t, dir, lacks, func(set kernelSet) error { return addNetdevsim(ctx, a, t, set, dir) })
	if err != nil {
		return taken{}, err
	}
	return taken{Packages: set.packages()}, finishKernel(ctx, t, set, dir)
}

// fetchKernelAlone makes the same without netdevsim, for a reason.
func fetchKernelAlone(ctx context.Context, a *apt, t tools, dir, reason string) (taken, error) {
	lacks := func(set kernelSet) []string {
		if set.image == nil {
			return []string{imagePrefix + set.release}
		}
		return nil
	}
	set, err := firstKernel(ctx, a, t, dir, lacks, func(kernelSet) error { return nil })
	if err != nil {
		return taken{}, err
	}
	return taken{Packages: []string{set.String()}, Lacks: map[string]string{netdevsim: reason}}, finishKernel(ctx, t, set, dir)
}

// firstKernel unpacks the first kernel that lacks nothing, and that add succeeds with. It says why it passes over others.
func firstKernel(ctx context.Context, a *apt, t tools, dir string, lacks func(kernelSet) []string, add func(kernelSet) error) (kernelSet, error) {
	sets, err := a.kernels(ctx)
	if err != nil {
		return kernelSet{}, err
	}
	last := errors.New("none has all its packages")
	tries := 0
	for _, set := range sets {
		if missing := lacks(set); len(missing) > 0 {
			fmt.Fprintf(a.log, "kernel: passing over %s of Debian %s: it lacks %s\n", set, a.release, strings.Join(missing, ", "))
			continue
		}
		if tries++; tries > maxKernels {
			break
		}
		err := errors.Join(clear(dir), unpackKernel(ctx, a, t, set, dir))
		if err == nil {
			err = add(set)
		}
		if err == nil {
			return set, nil
		}
		if !errors.Is(err, errNotServed) {
			return kernelSet{}, err
		}
		fmt.Fprintf(a.log, "kernel: passing over %s of Debian %s: %v\n", set, a.release, err)
		last = fmt.Errorf("%s: %w", set, err)
	}
	return kernelSet{}, fmt.Errorf("%w: a kernel with its packages: %w", errNotServed, last)
}

// clear empties a folder.
func clear(dir string) error {
	return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755))
}

// modules is the folder of a kernel's modules.
func (k kernelSet) modules(dir string) string { return filepath.Join(dir, "lib", "modules", k.release) }

// unpackKernel makes "vmlinux" and "lib/modules", and leaves out of these what no test bed for networks uses: a third of it all.
func unpackKernel(ctx context.Context, a *apt, t tools, set kernelSet, dir string) error {
	unpacked := filepath.Join(dir, "unpacked")
	if err := a.download(ctx, unpacked, set.image.String()); err != nil {
		return err
	}
	if err := uncompress(ctx, t, filepath.Join(unpacked, "boot", "vmlinuz-"+set.release), filepath.Join(dir, "vmlinux")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(unpacked, "usr", "lib"), filepath.Join(dir, "lib")); err != nil {
		return err
	}
	for _, unused := range []string{"sound", "drivers/gpu", "drivers/iio", "drivers/media", "drivers/scsi", "drivers/staging"} {
		if err := os.RemoveAll(filepath.Join(set.modules(dir), "kernel", unused)); err != nil {
			return err
		}
	}
	return errors.Join(t.uncompressModules(ctx, set.modules(dir)), os.RemoveAll(unpacked))
}

func addNetdevsim(ctx context.Context, a *apt, t tools, set kernelSet, dir string) error {
	sources := filepath.Join(dir, "sources")
	if err := a.download(ctx, sources, set.sources()...); err != nil {
		return err
	}
	if err := buildNetdevsim(ctx, t, set, sources, filepath.Join(set.modules(dir), "kernel", "drivers", "net", netdevsim+".ko")); err != nil {
		return fmt.Errorf("build netdevsim: %w", err)
	}
	return os.RemoveAll(sources)
}

// finishKernel writes the indexes of the modules.
func finishKernel(ctx context.Context, t tools, set kernelSet, dir string) error {
	return command(ctx, t.busybox(), "depmod", "-b", dir, set.release)
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
	out, err := os.Create(vmlinux)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(payload, []byte(zstdMagic)) {
		return errors.Join(unzstd(payload, out), out.Close())
	}
	compressed := vmlinux + ".xz"
	if err := os.WriteFile(compressed, payload, 0o644); err != nil {
		return errors.Join(err, out.Close())
	}
	return errors.Join(t.unxz(ctx, compressed, out), out.Close(), os.Remove(compressed))
}

func unzstd(payload []byte, w io.Writer) error {
	const window = 128 << 20 // As zstd --ultra has it.
	decoder, err := zstd.NewReader(bytes.NewReader(payload), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return err
	}
	defer decoder.Close()
	_, err = io.Copy(w, decoder)
	return err
}

// What a compressed kernel begins with: Debian's is xz until Linux 6.1, and zstd in Linux 6.12.
const (
	xzMagic   = "\xfd7zXZ\x00"
	zstdMagic = "\x28\xb5\x2f\xfd"
)

// bzImagePayload is the compressed kernel in a bzImage, in the format xz or zstd.
// See "The Linux/x86 Boot Protocol", 2.08 and later, for the fields.
func bzImagePayload(image []byte) ([]byte, error) {
	const (
		setupSectors, magic, version        = 0x1f1, 0x202, 0x206
		payloadOffset, payloadLength        = 0x248, 0x24c
		end                                 = 0x250
		sector                              = 512
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
	if !bytes.HasPrefix(payload, []byte(xzMagic)) && !bytes.HasPrefix(payload, []byte(zstdMagic)) {
		return nil, errors.New("kernel is compressed by neither xz nor zstd")
	}
	return payload, nil
}

// buildNetdevsim builds the module netdevsim, which Debian's kernels lack, from the kernel's own sources. Its error matches
// errNotServed if the packages do not fit together, or the host's compiler them.
func buildNetdevsim(ctx context.Context, t tools, kernel kernelSet, sources, module string) error {
	const driver = "drivers/net/" + netdevsim
	tree := sourcePrefix + kernel.series
	archive := filepath.Join(sources, "usr", "src", tree+".tar.xz")
	if err := t.extract(ctx, archive, tree+"/"+driver, sources); err != nil {
		return err
	}
	headers := filepath.Join(sources, "usr", "src", kernel.headers.name)
	// The headers believe that they are installed.
	makefile := fmt.Sprintf("include %s\n", filepath.Join(sources, "usr", "src", kernel.common.name, "Makefile"))
	if err := os.WriteFile(filepath.Join(headers, "Makefile"), []byte(makefile), 0o644); err != nil {
		return err
	}
	source := filepath.Join(sources, tree, driver)
	if err := command(ctx, "make", "-C", headers, "M="+source, "CC=gcc", "CONFIG_NETDEVSIM=m", "modules"); err != nil {
		return fmt.Errorf("%w: %w", errNotServed, err)
	}
	return command(ctx, "strip", "--strip-debug", "-o", module, filepath.Join(source, netdevsim+".ko"))
}
