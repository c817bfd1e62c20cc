// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs

import (
	"fmt"
	"strings"
)

// Address is the address of a PCI function, in lower case: domain, bus, slot and function, as in 0000:03:02.1. The domain has four
// hexadecimal digits, or more where there are more (behind Intel's VMD).
type Address string

// ParseAddress checks an address and brings it into its one form, the kernel's.
func ParseAddress(s string) (Address, error) {
	a := strings.ToLower(s)
	domain, rest, _ := strings.Cut(a, ":")
	if !isDomain(domain) || !isBusSlotFunction(rest) {
		return "", fmt.Errorf("%.64q is no PCI address: write it like 0000:03:02.1", s)
	}
	return Address(a), nil
}

// isDomain checks a domain: 32 bits, and padded to four digits only, so that no device has two addresses.
func isDomain(s string) bool {
	return len(s) >= 4 && len(s) <= 8 && isHex(s) && (len(s) == 4 || s[0] != '0')
}

// isBusSlotFunction checks what follows the domain.
func isBusSlotFunction(s string) bool {
	return len(s) == len("03:02.1") && isHex(s[:2]) && s[2] == ':' &&
		(s[3] == '0' || s[3] == '1') && isHex(s[4:5]) && // a bus has 32 slots
		s[5] == '.' && s[6] >= '0' && s[6] <= '7'
}

// ValidateDeviceID checks what a device is asked for by: a PCI address, in lower or upper case, or a name of the auxiliary bus like
// mlx5_core.sf.4. Such an ID is never a path.
func ValidateDeviceID(id string) error {
	if _, err := ParseAddress(id); err != nil && !isAuxiliary(id) {
		return fmt.Errorf("%.64q is neither a PCI address like 0000:03:02.1, nor a device of the auxiliary bus like mlx5_core.sf.4", id)
	}
	return nil
}

// isAuxiliary reports whether a name is one of the auxiliary bus: driver, kind and number, as in mlx5_core.sf.4.
func isAuxiliary(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(s) > 64 || parts[0] == "" || parts[1] == "" {
		return false
	}
	name := strings.Trim(parts[0]+parts[1], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
	return name == "" && isDecimal(parts[2])
}

// isNumbered matches names that the kernel counts, like virtio4.
func isNumbered(s, prefix string) bool {
	number, ok := strings.CutPrefix(s, prefix)
	return ok && isDecimal(number)
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

func isDecimal(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
