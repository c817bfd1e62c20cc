// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bounded reads what others wrote, and no more of it than is sensible.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrTooLarge marks what has more bytes than may be read.
var ErrTooLarge = errors.New("too large")

// ReadFile reads a regular file of at most the given number of bytes; links are followed. Errors name the file.
func ReadFile(path string, most int64) ([]byte, error) {
	// To open a FIFO would wait for its writer, so look first.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading
	data, err := ReadAll(f, most)
	if errors.Is(err, ErrTooLarge) {
		return nil, fmt.Errorf("%s has %w", path, err)
	}
	return data, err
}

// ReadAll reads at most the given number of bytes to their end; if there are more, the error is [ErrTooLarge] and reads "more than … bytes".
func ReadAll(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1)) // one more shows that there are too many
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, tooLarge(most)
	}
	return data, nil
}

// tooLarge is an [ErrTooLarge] that says how much is too much.
type tooLarge int64

func (e tooLarge) Error() string { return fmt.Sprintf("more than %d bytes", int64(e)) }

func (e tooLarge) Is(target error) bool { return target == ErrTooLarge }
