// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/nad"
)

// MaxFindings bounds what one run finds: nobody reads more, and the input is not trusted. One more says so.
const MaxFindings = 1000

// File is a YAML or JSON file, with any number of objects in it.
type File struct {
	Name string
	Data []byte
}

// Options are what the check knows besides the files.
type Options struct {
	// Types are further plugin types that there are, such as the programs of a node's folder of plugins.
	Types []string
}

// Run checks the NetworkAttachmentDefinitions of the files, also those in Lists, and the annotations by which pods and workloads select networks;
// other objects are ignored. It returns the findings, in the order in which they stand in the files, and how many objects it checked.
func Run(files []File, o Options) (finding.List, int) {
	l := newLinter(o)
	first := map[string]*definition{}
	var all []definition
	for _, file := range files {
		if len(file.Data) > manifest.MaxFileBytes {
			l.fileError(file.Name, place{}, 0, fmt.Sprintf("it has %d bytes, at most %d are read: split it", len(file.Data), manifest.MaxFileBytes))
			continue
		}
		all = append(all, l.definitions(file.Name, file.Data)...)
	}
	var pools []pool
	for i := range all {
		d := &all[i]
		if other, ok := first[d.Ref.String()]; ok {
			d.report(ManifestDuplicate, d.at, "metadata", fmt.Sprintf("it is also defined at %s:%d", other.file, other.at.line), "remove one")
		} else {
			first[d.Ref.String()] = d
		}
		pools = append(pools, d.check()...)
	}
	l.checkOverlaps(pools)
	l.checkShared(pools)
	l.found.SortByPlace()
	if l.tooMany {
		l.found = append(l.found, finding.Finding{
			Code: TooMany, Severity: l.severities[TooMany], Object: "the input",
			Text: fmt.Sprintf("there are more than %d findings; the rest is omitted", MaxFindings), Mend: "fix these, and run it again",
		})
	}
	return l.found, len(all) + l.selecting
}

// Check checks definitions without their files: their findings have a field, and no place.
func Check(definitions []nad.Definition, o Options) finding.List {
	l := newLinter(o)
	for _, parsed := range definitions {
		d := definition{linter: l, Definition: parsed, config: config{text: parsed.Config}, annotations: map[string]place{}}
		if parsed.ResourceName != "" {
			d.annotations[annotations.ResourceNameKey] = place{}
		}
		d.check()
	}
	return l.found
}

func newLinter(o Options) *linter {
	l := &linter{options: o, severities: map[string]finding.Severity{}}
	for _, k := range Kinds() {
		l.severities[k.Code] = k.Severity
	}
	return l
}

type linter struct {
	options    Options
	severities map[string]finding.Severity
	found      finding.List
	tooMany    bool
	// selecting counts pods and workloads that select networks.
	selecting int
}

func (l *linter) add(f finding.Finding) {
	f.Severity = l.severities[f.Code]
	switch {
	case len(l.found) >= MaxFindings:
		l.tooMany = true
	case !slices.Contains(l.found, f):
		l.found = append(l.found, f)
	}
}

// fileError reports a file of so many lines, or a document in it, that cannot be read.
func (l *linter) fileError(file string, at place, lines int, text string) {
	// The line that a reader of YAML names is one of the document.
	begin := max(1, at.line)
	text = regexp.MustCompile(`\bline \d{1,7}\b`).ReplaceAllStringFunc(text, func(s string) string {
		n, err := strconv.Atoi(strings.TrimPrefix(s, "line "))
		if err != nil {
			return s
		}
		at.line = min(begin+max(1, n)-1, lines) // some errors are behind the end
		return fmt.Sprintf("line %d", at.line)
	})
	l.add(finding.Finding{Code: ManifestInvalid, Object: "file " + file, File: file, Line: at.line, Column: at.column, Text: line(text)})
}

func (d *definition) report(code string, at place, field, text, mend string) {
	d.add(finding.Finding{Code: code, Object: d.object(), File: d.file, Line: at.line, Column: at.column, Field: field, Text: line(text), Mend: mend})
}

// line is a text on one line.
func line(text string) string { return strings.Join(strings.Fields(text), " ") }

// short bounds what a finding repeats of a value.
func short(s string) string {
	const most = 80 // bytes
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// meant names the candidate that a word may have been meant to be; "" if none is near.
func meant(word string, candidates []string) string {
	best := annotations.Nearest(word, candidates, 1+len(word)/4)
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; perhaps %q is meant", best)
}
