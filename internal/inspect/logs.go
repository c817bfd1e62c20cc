// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/plexus-cni/plexus/internal/logfile"
)

const (
	// maxLine is what a line of a log may have, in bytes; longer ones are passed over.
	maxLine = 1 << 20
	// maxLogBytes bounds what is read of one file, unpacked: a log file is rotated at 100 MB unless the configuration says otherwise.
	maxLogBytes = 2 << 30
)

// openLogs opens a log file and its backups, in no order. The file itself is opened before it is looked for backups: one that is rotated
// in between is then among both, rather than in neither, and opened once.
func openLogs(path string) ([]*os.File, error) {
	var files []*os.File
	current, err := os.Open(path)
	if err == nil {
		files = append(files, current)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open log file: %w", err)
	}
	names, err := logfile.Files(path)
	if err != nil {
		closeAll(files)
		return nil, err
	}
	for _, name := range names {
		f, err := openLog(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the oldest was removed
		}
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("open log file: %w", err)
		}
		if current != nil && same(f, current) {
			_ = f.Close()
			continue
		}
		files = append(files, f)
	}
	return files, nil
}

func same(a, b *os.File) bool {
	infoA, errA := a.Stat()
	infoB, errB := b.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// openLog opens a file, or what became of it when it was compressed a moment ago.
func openLog(name string) (*os.File, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(name, ".gz") {
		return os.Open(name + ".gz")
	}
	return f, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // opened for reading
	}
}

// scanLogs hands each line of the files to visit, without its newline and only until visit returns.
func scanLogs(files []*os.File, visit func(text []byte)) error {
	for _, f := range files {
		if err := scanFile(f, visit); err != nil {
			return fmt.Errorf("read log file %s: %w", f.Name(), err)
		}
	}
	return nil
}

func scanFile(f *os.File, visit func(text []byte)) error {
	var r io.Reader = f
	if strings.HasSuffix(f.Name(), ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		r = z
	}
	return scanLines(io.LimitReader(r, maxLogBytes), visit)
}

// scanLines is a bufio.Scanner that passes over what is too long, rather than end there.
func scanLines(r io.Reader, visit func(text []byte)) error {
	in := bufio.NewReaderSize(r, maxLine)
	tooLong := false
	for {
		text, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			tooLong = true
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
		if !tooLong && len(text) > 0 {
			visit(bytes.TrimRight(text, "\r\n"))
		}
		tooLong = false
		if err != nil {
			return nil
		}
	}
}
