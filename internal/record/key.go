// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Kinds of files, by suffix.
const (
	suffixDocument = ".json"
	suffixCorrupt  = ".corrupt"
	suffixLock     = ".lock"
	suffixTemp     = ".tmp"
)

// maxNameBytes is the longest file name that Linux file systems take.
const maxNameBytes = 255

// ErrKey marks a key that no file can be named after.
var ErrKey = errors.New("unusable record key")

// path is the file of one kind of a key.
func (d Dir) path(key, suffix string) (string, error) {
	if key == "" {
		return "", fmt.Errorf("%w: it is empty", ErrKey)
	}
	name := encodeKey(key)
	// The longest name that the key will ever need, so that a key which can be saved can also be locked and quarantined.
	if n := len(name + suffixDocument + suffixCorrupt); n > maxNameBytes {
		return "", fmt.Errorf("%w: %.40q... is too long: its file name takes %d bytes, the file system allows %d; use a shorter container ID or interface name",
			ErrKey, key, n, maxNameBytes)
	}
	return filepath.Join(d.dir, name+suffix), nil
}

// temporary is the file in which the next document of a valid key is written.
func (d Dir) temporary(key string) string {
	return filepath.Join(d.dir, "."+encodeKey(key)+suffixTemp)
}

// encodeKey makes a file name of a key: letters, digits, "-", "_" and "." stand for themselves, any other byte is "%" and two
// hexadecimal digits. Interface names may contain anything but "/", ":" and white space (CNI 1.1.0 §2, CNI_IFNAME). A leading
// "." is encoded as well: names with it are the store's own.
func encodeKey(key string) string {
	var b strings.Builder
	for i := range len(key) {
		if c := key[i]; isPlain(c) && (c != '.' || i > 0) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// decodeKey undoes encodeKey. It refuses what encodeKey does not give: then no key has two files.
func decodeKey(name string) (string, bool) {
	parts := strings.Split(name, "%")
	key := []byte(parts[0])
	for _, part := range parts[1:] {
		if len(part) < 2 {
			return "", false
		}
		c, err := hex.DecodeString(part[:2])
		if err != nil {
			return "", false
		}
		key = append(append(key, c...), part[2:]...)
	}
	decoded := string(key)
	return decoded, decoded != "" && encodeKey(decoded) == name
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}
