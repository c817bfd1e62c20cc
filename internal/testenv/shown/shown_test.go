// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package shown

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func TestCommandsOfAPage(t *testing.T) {
	t.Parallel()
	page := "`tool a` and `tool`, `another tool b`\n" +
		"```sh\nsudo bin/tool b -f X   # why\ntool c | less\n# tool d\n```\n" +
		"```console\n# tool e > f\n$ kubectl -it -- /usr/bin/tool f\ntool: an answer\n```\n" +
		"`tool g …`\n"
	var got [][]string
	for _, c := range inPage("page", page, "tool") {
		got = append(got, append([]string{c.Where}, c.Args...))
	}
	want := [][]string{
		{"page:1", "a"},
		{"page:3", "b", "-f", "X"},
		{"page:4", "c"},
		{"page:8", "e"},
		{"page:9", "f"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	for args, ok := range map[string]bool{
		"look x": true, "look x -n y": true, "look --help": true,
		"look": false, "look x --unknown": false, "unknown": false, "": false,
	} {
		root := &cobra.Command{Use: "tool"}
		look := &cobra.Command{Use: "look X", Args: cobra.ExactArgs(1), Run: func(*cobra.Command, []string) {}}
		look.Flags().StringP("namespace", "n", "", "")
		root.AddCommand(look)
		a, _ := arguments("tool "+args+" ", "tool")
		if err := Accept(root, a); (err == nil) != ok {
			t.Errorf("tool %s: %v", args, err)
		}
	}
}

func TestACommandThatIsNamedNeedsNoArguments(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		command Command
		ok      bool
	}{
		"named in a text":                {Command{Args: []string{"look"}, InText: true}, true},
		"shown in a block":               {Command{Args: []string{"look"}}, false},
		"named in a text, and not known": {Command{Args: []string{"see"}, InText: true}, false},
		"shown in a text, with too many": {Command{Args: []string{"look", "x", "y"}, InText: true}, false},
	} {
		root := &cobra.Command{Use: "tool"}
		root.AddCommand(&cobra.Command{Use: "look X", Args: cobra.ExactArgs(1), Run: func(*cobra.Command, []string) {}})
		if err := tc.command.Accept(root); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
