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

	"github.com/plexus-cni/plexus/annotations"
)

// maxDeviceInfoBytes bounds a device-info file.
const maxDeviceInfoBytes = 64 << 10

// prepareDeviceInfo makes the folder of the attachment's device-info file and removes a file that a crash left there.
func prepareDeviceInfo(a *Attachment) error {
	if a.DeviceInfoFile == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(a.DeviceInfoFile), 0o755); err != nil { // pods mount it, to be read
		return fmt.Errorf("device-info folder: %w", err)
	}
	return removeDeviceInfo(a)
}

// DeviceInfo reads what the attachment's plugins wrote about its device; nil if they wrote nothing.
func (a *Attachment) DeviceInfo() (*annotations.DeviceInfo, error) {
	if a.DeviceInfoFile == "" {
		return nil, nil // no file is an answer, not a failure
	}
	f, err := os.Open(a.DeviceInfoFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a plugin need not write one
	}
	if err != nil {
		return nil, fmt.Errorf("%s: device-info file: %w", a, err)
	}
	defer f.Close() // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, maxDeviceInfoBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: device-info file: %w", a, err)
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
