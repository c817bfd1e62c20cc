// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// parts are those that .ci/run has functions for.
func parts(t *testing.T) []string {
	t.Helper()
	script, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^part_([a-z0-9-]+)\(\)`).FindAllStringSubmatch(string(script), -1) {
		found = append(found, m[1])
	}
	if len(found) < 8 {
		t.Fatalf("parts %v", found)
	}
	return found
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err = yaml.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// workflow is what is looked at of GitHub's workflows.
type workflow struct {
	Name string
	On   any
	Jobs map[string]struct {
		RunsOn   string `json:"runs-on"`
		Strategy struct{ Matrix struct{ Part []string } }
		Steps    []struct{ Uses, Run string }
	}
}

// TestCIRunsEachPart holds the workflow to .ci/run: what one has, the other has.
func TestCIRunsEachPart(t *testing.T) {
	t.Parallel()
	var w workflow
	readYAML(t, "../.github/workflows/ci.yml", &w)
	job, ok := w.Jobs["part"]
	if !ok {
		t.Fatalf("jobs %v", w.Jobs)
	}
	want, got := slices.Sorted(slices.Values(parts(t))), slices.Sorted(slices.Values(job.Strategy.Matrix.Part))
	if !slices.Equal(want, got) {
		t.Errorf("the workflow runs %v, .ci/run has %v", got, want)
	}
	if !slices.ContainsFunc(job.Steps, func(s struct{ Uses, Run string }) bool {
		return strings.Contains(s.Run, "bash .ci/run ${{ matrix.part }}")
	}) {
		t.Error("no step runs .ci/run with the part")
	}
}

// TestTargetsThatCIMakesAreThere looks for each `make X` of .ci/run and the workflows.
func TestTargetsThatCIMakesAreThere(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../.github/workflows/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, path := range append(files, "../.ci/run") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(string(data)) {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				lines = append(lines, line)
			}
		}
		for _, m := range regexp.MustCompile(`\bmake ([a-z0-9-]+)`).FindAllStringSubmatch(strings.Join(lines, ""), -1) {
			checked++
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: the Makefile has no target %s", path, m[1])
			}
		}
	}
	if checked < 9 {
		t.Errorf("only %d targets were found", checked)
	}
}

// TestARunWithoutPartsRunsAllButKind: kind needs Docker, which is not on every machine.
func TestARunWithoutPartsRunsAllButKind(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)\|\| parts=\((.*)\)$`).FindSubmatch(script)
	if m == nil {
		t.Fatal("no default parts")
	}
	all := append(strings.Fields(string(m[1])), "kind")
	if all[len(all)-2] != "test" || !slices.Equal(slices.Sorted(slices.Values(all)), slices.Sorted(slices.Values(parts(t)))) {
		t.Errorf("default parts %v, parts %v; want all but kind, and the tests last", all, parts(t))
	}
}

// TestReleasesAreOfTheVersion holds the workflow of releases to VERSION and CHANGELOG.md.
func TestReleasesAreOfTheVersion(t *testing.T) {
	t.Parallel()
	var w workflow
	readYAML(t, "../.github/workflows/release.yml", &w)
	var run strings.Builder
	for _, s := range w.Jobs["release"].Steps {
		run.WriteString(s.Run + "\n")
	}
	for _, part := range []string{`"v$(cat VERSION)"`, "CHANGELOG.md", "make release", "dist/release/"} {
		if !strings.Contains(run.String(), part) {
			t.Errorf("the workflow does not have %q:\n%s", part, run.String())
		}
	}
	version, err := os.ReadFile("../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	changelog, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if next, _, _ := strings.Cut(strings.TrimSpace(string(version)), "-"); !strings.Contains(string(changelog), "\n## "+next) {
		t.Errorf("CHANGELOG.md has no section for %s", next)
	}
}

// TestDependabotHasEachModule looks for the folders with a go.mod that people change.
func TestDependabotHasEachModule(t *testing.T) {
	t.Parallel()
	var config struct {
		Version int
		Updates []struct {
			Ecosystem   string `json:"package-ecosystem"`
			Directory   string
			Directories []string
		}
	}
	readYAML(t, "../.github/dependabot.yml", &config)
	var modules []string
	for _, pattern := range []string{"../go.mod", "../*/go.mod", "../*/*/go.mod"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			dir, err := filepath.Rel("..", filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			modules = append(modules, filepath.Join("/", dir))
		}
	}
	var watched []string
	for _, u := range config.Updates {
		if u.Ecosystem == "gomod" {
			watched = append(watched, u.Directories...)
		}
	}
	if config.Version != 2 || !slices.Equal(slices.Sorted(slices.Values(modules)), slices.Sorted(slices.Values(watched))) {
		t.Errorf("version %d; dependabot watches %v, modules are in %v", config.Version, watched, modules)
	}
}

// TestTemplatesOfIssuesAreForms has what GitHub needs to show them.
func TestTemplatesOfIssuesAreForms(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../.github/ISSUE_TEMPLATE/*.yml")
	if err != nil || len(files) < 3 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, path := range files {
		var form struct {
			Name, Description string
			Body              []struct {
				Type       string
				Attributes struct{ Label string }
			}
			ContactLinks []struct{ Name, URL, About string } `json:"contact_links"`
		}
		readYAML(t, path, &form)
		if filepath.Base(path) == "config.yml" {
			if len(form.ContactLinks) == 0 {
				t.Errorf("%s has no link", path)
			}
			continue
		}
		if form.Name == "" || form.Description == "" || len(form.Body) == 0 {
			t.Errorf("%s: %+v", path, form)
		}
		for _, field := range form.Body {
			if field.Type == "" || field.Attributes.Label == "" {
				t.Errorf("%s: field %+v", path, field)
			}
		}
	}
	for _, name := range []string{"SECURITY.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md", "CONTRIBUTING.md", ".github/PULL_REQUEST_TEMPLATE.md"} {
		if _, err := os.Stat(filepath.Join("..", name)); err != nil {
			t.Error(err)
		}
	}
}
