// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/plexus-cni/plexus/annotations"
)

// maxDeviceInfoBytes bounds a device-info file.
const maxDeviceInfoBytes = 64 << 10

// addDeviceInfo plans the device-info files of an attachment (Device Information Specification 1.1.0): for who declares the capability,
// and for a device that a device plugin may have described. Names that no file can have stand for no file: it informs, no more.
func (r *Request) addDeviceInfo(a *Attachment, n Network) error {
	if r.DeviceInfoDir == "" {
		return nil
	}
	name := func(parts ...string) string { return strings.ReplaceAll(strings.Join(parts, ""), "/", "-") }
	if n.Device != "" && n.ResourceName != "" {
		if dp := name(n.ResourceName, "-", n.Device, "-device.json"); len(dp) <= maxFileName {
			a.DeviceInfoSource = filepath.Join(r.DeviceInfoDir, "dp", dp)
		}
	}
	file := name(n.Name, "-", r.Sandbox.ContainerID, "_", a.IfName)
	if len(file) > maxFileName || (a.DeviceInfoSource == "" && !a.List.Capabilities()[capDeviceInfoFile]) {
		a.DeviceInfoSource = ""
		return nil
	}
	a.DeviceInfoFile = filepath.Join(r.DeviceInfoDir, "cni", file)
	return a.setCapability(capDeviceInfoFile, a.DeviceInfoFile)
}

// prepareDeviceInfo makes the attachment's device-info file of what a device plugin wrote, if it did. A file that a crash left there goes
// before. What cannot be used of a device plugin is told, and left out: its device works without.
func (e *Executor) prepareDeviceInfo(a *Attachment) error {
	if a.DeviceInfoFile == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(a.DeviceInfoFile), 0o755); err != nil { // pods mount it, to be read
		return fmt.Errorf("device-info folder: %w", err)
	}
	if err := removeDeviceInfo(a); err != nil {
		return err
	}
	data, err := readDeviceInfo(a.DeviceInfoSource)
	if err == nil && data != nil {
		_, err = annotations.ParseDeviceInfo(data)
	}
	if err != nil {
		e.warn(fmt.Sprintf("%s: device-info file %s of the device plugin is left out: %v", a, a.DeviceInfoSource, err))
		return nil
	}
	if data == nil {
		return nil
	}
	if err := os.WriteFile(a.DeviceInfoFile, data, 0o644); err != nil { // pods mount it, to be read
		return fmt.Errorf("device-info file: %w", err)
	}
	return nil
}

// readDeviceInfo reads a device-info file; nil if there is none.
func readDeviceInfo(path string) ([]byte, error) {
	if path == "" {
		return nil, nil // no file is an answer, not a failure
	}
	// Without O_NONBLOCK a FIFO in its place would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a plugin need not write one
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	return io.ReadAll(io.LimitReader(f, maxDeviceInfoBytes+1))
}

// DeviceInfo reads what is known of the attachment's device when its plugins have run; nil if nothing is.
func (a *Attachment) DeviceInfo() (*annotations.DeviceInfo, error) {
	data, err := readDeviceInfo(a.DeviceInfoFile)
	if err != nil {
		return nil, fmt.Errorf("%s: device-info file: %w", a, err)
	}
	if data == nil {
		return nil, nil // a plugin need not write one
	}
	info, err := annotations.ParseDeviceInfo(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: device-info file %s: %w", a, ErrBadOutput, a.DeviceInfoFile, err)
	}
	return info, nil
}

func removeDeviceInfo(a *Attachment) error {
	if a.DeviceInfoFile == "" {
		return nil
	}
	if err := os.Remove(a.DeviceInfoFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("device-info file: %w", err)
	}
	return nil
}
