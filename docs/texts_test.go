// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/internal/doctor"
)

// literals are the strings of the product's code, those that are put together of several as one.
func literals(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, dir := range []string{"annotations", "cmd", "delegate", "internal", "nad", "sriov"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				e, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				text, ok := literal(e)
				if ok {
					found = append(found, text)
				}
				return !ok
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(found) < 1000 {
		t.Fatalf("only %d strings", len(found))
	}
	return found
}

func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, err := strconv.Unquote(e.Value)
			return text, err == nil
		}
	case *ast.BinaryExpr:
		left, isLeft := literal(e.X)
		right, isRight := literal(e.Y)
		return left + right, isLeft && isRight && e.Op == token.ADD
	}
	return "", false
}

// quotedTexts are what the tables of a page say that Plexus says.
func quotedTexts(page string) []string {
	code := regexp.MustCompile("`([^`]+)`")
	var quoted []string
	inTable := false
	for line := range strings.Lines(page) {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		switch {
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case strings.Contains(first, "it says"), strings.Contains(first, "报错"), strings.HasPrefix(line, "| message |"):
			inTable = true
		case inTable && !strings.Contains(first, "`dmesg`"): // that is the kernel's
			for _, m := range code.FindAllStringSubmatch(first, -1) {
				quoted = append(quoted, m[1])
			}
		}
	}
	return quoted
}

// TestQuotedErrorsAreTheCodes looks for each part of a quoted text among the strings of the code: "…" stands for what differs, ": " for the
// seam of two errors. The longest part has to be long enough to tell it from others.
func TestQuotedErrorsAreTheCodes(t *testing.T) {
	t.Parallel()
	const telling = 8 // bytes
	known := literals(t)
	checked := 0
	for path, page := range pages(t) {
		page, _, _ = strings.Cut(page, "### What plugins say") // those are not ours
		for _, text := range quotedTexts(page) {
			checked++
			longest := 0
			for _, part := range regexp.MustCompile("…|: ").Split(text, -1) {
				part = strings.Trim(part, " :(),;")
				longest = max(longest, len(part))
				if !slices.ContainsFunc(known, func(s string) bool { return strings.Contains(s, part) }) {
					t.Errorf("%s quotes %q, and no string of the code has %q", path, text, part)
				}
			}
			if longest < telling {
				t.Errorf("%s quotes %q, of which no part is long enough to be told from others", path, text)
			}
		}
	}
	if checked < 90 {
		t.Errorf("only %d texts were checked", checked)
	}
}

// TestCodesOfFindingsAreDoctors holds the codes that the troubleshooting page has to those that there are.
func TestCodesOfFindingsAreDoctors(t *testing.T) {
	t.Parallel()
	codes, kinds := map[string]bool{}, map[string]bool{} // kinds are the first words of codes
	for _, c := range doctor.Codes() {
		codes[c.Code] = true
		kind, _, _ := strings.Cut(c.Code, "-")
		kinds[kind] = true
	}
	others := []string{"network-status", "pod-resources"}
	checked := 0
	for _, m := range regexp.MustCompile("`([a-z]+)(-[a-z-]+)`").FindAllStringSubmatch(pages(t)["troubleshooting.md"], -1) {
		if name := m[1] + m[2]; kinds[m[1]] && !slices.Contains(others, name) {
			checked++
			if !codes[name] {
				t.Errorf("plexusctl doctor has no code %s", name)
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d codes were found", checked)
	}
}
