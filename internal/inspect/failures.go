// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// Failure is a pod whose last ADD failed.
type Failure struct {
	// Pod is "namespace/name".
	Pod string
	// Time is when the last one ended, Count how many failed, and Text its error.
	Time  time.Time
	Count int
	Text  string
}

// recentLogBytes is how much of the end of a log Failures reads: some thousand calls.
const recentLogBytes = 2 << 20

// Failures reads from the end of a log which pods' last ADD since a
// moment failed, in the order of time. A log that is not there has none.
func Failures(logFile string, since time.Time) ([]Failure, error) {
	f, err := os.Open(logFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log file: %w", err)
	}
	defer f.Close() // opened for reading
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read log file: %w", err)
	}
	// The first line may be cut; then it is no line of a log.
	end := io.NewSectionReader(f, max(0, info.Size()-recentLogBytes), min(info.Size(), recentLogBytes))
	last := map[string]Failure{}
	if err := scanLines(end, func(text []byte) { noteAdd(last, text, since) }); err != nil {
		return nil, fmt.Errorf("read log file %s: %w", logFile, err)
	}
	var failures []Failure
	for _, each := range last {
		failures = append(failures, each)
	}
	slices.SortFunc(failures, func(a, b Failure) int {
		if c := a.Time.Compare(b.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Pod, b.Pod)
	})
	return failures, nil
}

// noteAdd notes how an ADD ended.
func noteAdd(last map[string]Failure, text []byte, since time.Time) {
	l, err := parseLine(text)
	if err != nil || l.get("verb") != "ADD" || l.get("pod") == "" || l.time.Before(since) {
		return
	}
	pod := l.get("pod")
	switch l.msg {
	case "ADD done":
		delete(last, pod)
	case "ADD failed":
		last[pod] = Failure{Pod: pod, Time: l.time, Count: last[pod].Count + 1, Text: l.get("error")}
	}
}
