// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package docs_test holds the documentation to the code: what is shown is parsed, and links lead somewhere.
package docs_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/nad"
)

// block is a fenced block of a page.
type block struct {
	kind, text string
	line       int
}

// pages are all that people read, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{"*.md", "../*.md", "../e2e/*.md", "../conformance/*.md", "../examples/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found[path] = string(data)
		}
	}
	if len(found) < 10 {
		t.Fatalf("only %d pages", len(found))
	}
	return found
}

func blocks(page string) []block {
	var found []block
	var open *block
	for i, line := range strings.Split(page, "\n") {
		fence := strings.TrimLeft(line, " ")
		switch {
		case open == nil && strings.HasPrefix(fence, "```"):
			open = &block{kind: strings.TrimPrefix(fence, "```"), line: i + 1}
		case open != nil && fence == "```":
			found = append(found, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return found
}

func TestWhatIsShownIsSound(t *testing.T) {
	t.Parallel()
	checked := 0
	for path, page := range pages(t) {
		for _, b := range blocks(page) {
			var err error
			switch b.kind {
			case "json":
				err = checkJSON(b.text)
			case "yaml":
				err = checkYAML(b.text)
			default:
				continue
			}
			checked++
			if err != nil {
				t.Errorf("%s:%d: %v", path, b.line, err)
			}
		}
	}
	if checked < 6 {
		t.Errorf("only %d blocks were checked", checked)
	}
}

// checkJSON takes a configuration list for what it looks like.
func checkJSON(text string) error {
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return err
	}
	list, ok := value.(map[string]any)
	if !ok || list["plugins"] == nil {
		return nil
	}
	l, err := nad.Normalize([]byte(text), nad.Defaults{})
	if err != nil || l.Types()[0] != config.PluginType {
		return err
	}
	var conf struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err = json.Unmarshal(l.Bytes(), &conf); err != nil {
		return err
	}
	_, err = config.Parse(conf.Plugins[0])
	return err
}

// checkYAML takes annotations, NADs and plugin.json for what they look like.
func checkYAML(text string) error {
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var object struct {
			Networks string `json:"k8s.v1.cni.cncf.io/networks"`
			Kind     string `json:"kind"`
			Spec     struct {
				Config string `json:"config"`
			} `json:"spec"`
			Data map[string]string `json:"data"`
		}
		// A key that is there twice shows two forms of one thing.
		for _, part := range strings.SplitAfter("\n"+doc, "\nk8s.v1") {
			if rest, ok := strings.CutPrefix(part, ".cni.cncf.io/networks:"); ok {
				var one map[string]string
				if err := yaml.Unmarshal([]byte("networks:"+strings.TrimSuffix(rest, "k8s.v1")), &one); err != nil {
					return err
				}
				if _, err := annotations.ParseNetworks(one["networks"], "default"); err != nil {
					return err
				}
			}
		}
		if strings.Contains(doc, "k8s.v1.cni.cncf.io/networks:") && !strings.Contains(doc, "kind:") {
			continue
		}
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			return err
		}
		if object.Spec.Config != "" {
			if _, err := nad.Normalize([]byte(object.Spec.Config), nad.Defaults{Name: "shown"}); err != nil {
				return err
			}
		}
		if conf := object.Data["plugin.json"]; conf != "" {
			var value map[string]any
			if err := json.Unmarshal([]byte(conf), &value); err != nil {
				return err
			}
			value["name"], value["cniVersion"], value["type"] = "plexus", "1.0.0", config.PluginType
			full, err := json.Marshal(value)
			if err != nil {
				return err
			}
			if _, err := config.Parse(full); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestSequencesAreDrawn looks for what keeps Mermaid from drawing a sequence: a ";", which ends a statement, and participants without a
// declaration, which are drawn beside it.
func TestSequencesAreDrawn(t *testing.T) {
	t.Parallel()
	arrow := regexp.MustCompile(`^(\w+)-?->>(\w+):`)
	drawn := 0
	for path, page := range pages(t) {
		for _, b := range blocks(page) {
			if b.kind != "mermaid" || !strings.HasPrefix(b.text, "sequenceDiagram") {
				continue
			}
			drawn++
			for line := range strings.Lines(b.text) {
				line = strings.TrimSpace(line)
				if strings.Contains(line, ";") {
					t.Errorf("%s:%d: %q has a semicolon", path, b.line, line)
				}
				for _, who := range arrow.FindStringSubmatch(line) {
					if !strings.Contains(who, ">") && !strings.Contains(b.text, "participant "+who+" as ") {
						t.Errorf("%s:%d: there is no participant %q", path, b.line, who)
					}
				}
			}
		}
	}
	if drawn < 4 {
		t.Errorf("only %d sequences", drawn)
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]*)?\)`)
	all := pages(t)
	for path, page := range all {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			to := path
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(path), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if m[2] != "" && !slices.Contains(anchors(all[strings.TrimPrefix(to, "../docs/")]), m[2]) {
				t.Errorf("%s: %s has no heading for %s", path, to, m[2])
			}
		}
	}
}

// headings are the lines of a page that are one, outside of blocks.
func headings(page string) []string {
	var found []string
	open := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(strings.TrimLeft(line, " "), "```") {
			open = !open
		}
		if !open && regexp.MustCompile(`^#{1,6} `).MatchString(line) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// anchors are what GitHub calls the headings of a page.
func anchors(page string) []string {
	var found []string
	for _, h := range headings(page) {
		h = strings.ToLower(strings.TrimLeft(h, "# "))
		h = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(h, "")
		found = append(found, "#"+strings.ReplaceAll(h, " ", "-"))
	}
	return found
}
