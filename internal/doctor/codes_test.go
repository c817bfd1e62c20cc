// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func TestCodesAreStableWords(t *testing.T) {
	t.Parallel()
	word := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := map[string]bool{}
	for _, c := range Codes() {
		if !word.MatchString(c.Code) || seen[c.Code] || c.Meaning == "" || (c.Mend == "" && c.Severity != Info) {
			t.Errorf("%+v: its code must be a word that no other has, and it must say what it means, and how to fix it", c)
		}
		seen[c.Code] = true
	}
	// Each constant has an entry: the source is what lists constants.
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t[A-Z]\w+ += "([^"]+)"$`).FindAllStringSubmatch(string(source), -1) {
		if !seen[m[1]] {
			t.Errorf("code %s has no entry in Codes", m[1])
		}
		delete(seen, m[1])
	}
	if len(seen) > 0 {
		t.Errorf("codes without a constant: %v", seen)
	}
}

// TestDocumentedCodes compares the table of docs/doctor.md with the codes.
func TestDocumentedCodes(t *testing.T) {
	t.Parallel()
	var rows []string
	for _, c := range Codes() {
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", c.Code, c.Severity, c.Meaning, cmp.Or(c.Mend, "-")))
	}
	golden.Table(t, filepath.Join("..", "..", "docs", "doctor.md"), "| code | severity | meaning | fix |", rows)
}
