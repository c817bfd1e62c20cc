// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/lint"
	"github.com/plexus-cni/plexus/internal/source/manifest"
)

// nadCommand helps to write NetworkAttachmentDefinitions. It needs neither a node nor a cluster.
func nadCommand(env Environment) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "nad",
		Short: "Write and check NetworkAttachmentDefinitions before pods use them",
	})
	cmd.AddCommand(nadLintCommand(env), nadNewCommand(), nadRenderCommand())
	return cmd
}

// The formats of findings.
const (
	formatSARIF  = "sarif"
	formatGitHub = "github"
)

// homepage is where tools that show findings send their readers.
const homepage = "https://github.com/plexus-cni/plexus"

// lintOptions are the flags of nad lint.
type lintOptions struct {
	output, failOn string
	files          []string
	recursive      bool
	binDirs        []string
}

func nadLintCommand(env Environment) *cobra.Command {
	var o lintOptions
	cmd := &cobra.Command{
		Use:   "lint [FILE|DIR|-...]",
		Short: "Find mistakes in NetworkAttachmentDefinitions, and in how pods select them",
		Long: `Find mistakes in the NetworkAttachmentDefinitions of YAML or JSON files, of all such files in a folder and below it, or of stdin (-), and in the
annotations by which pods and workloads select networks. It reports what Plexus refuses, and what the reference plugins refuse or understand
differently. Other objects are ignored. Each finding has a stable code and says where it is and how to fix it.

-f names files and folders as well, as with kubectl: the folders below are read with -R.

The exit status is 1 if there is an error among the findings, with --fail-on=warning also if there is a warning, and 2 if the manifests could not
be examined.`,
		Example: `  plexusctl nad lint manifests/networks
  kubectl get nad -A -o yaml | plexusctl nad lint -
  plexusctl nad lint --bin-dir /opt/cni/bin --fail-on warning storage.yaml
  plexusctl nad lint -o sarif deploy > plexus.sarif`,
		Args:        arguments(0, -1),
		Annotations: map[string]string{examines: ""},
		PreRunE:     func(*cobra.Command, []string) error { return o.check() },
		RunE:        func(cmd *cobra.Command, args []string) error { return runLint(cmd, &o, env, args) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.output, "output", "o", formatText, "print `FORMAT`: text, json, sarif or github (workflow commands of GitHub Actions)")
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "check `FILE`, a folder, or - for stdin; may be repeated")
	addRecursive(cmd, &o.recursive)
	flags.StringVar(&o.failOn, "fail-on", string(finding.Error), "exit with status 1 from this `SEVERITY` on: error or warning")
	flags.StringArrayVar(&o.binDirs, "bin-dir", nil, "accept the programs in `DIR` as plugins; may be repeated")
	completeOutput(cmd, formatText, formatJSON, formatSARIF, formatGitHub)
	cobra.CheckErr(cmd.MarkFlagDirname("bin-dir"))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]cobra.Completion{string(finding.Error), string(finding.Warning)}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (o *lintOptions) check() error {
	if err := checkFindingsFormat(o.output); err != nil {
		return err
	}
	if o.failOn != string(finding.Error) && o.failOn != string(finding.Warning) {
		return fmt.Errorf("--fail-on %q: use %s or %s", o.failOn, finding.Error, finding.Warning)
	}
	return nil
}

func runLint(cmd *cobra.Command, o *lintOptions, env Environment, args []string) error {
	if len(args)+len(o.files) == 0 {
		return errors.New("no manifests: name files or folders, or - for stdin")
	}
	files, err := readLintFiles(cmd.InOrStdin(), o, args)
	if err != nil {
		return err
	}
	types, err := programs(o.binDirs)
	if err != nil {
		return err
	}
	findings, checked := lint.Run(files, lint.Options{Types: types})
	if checked == 0 && len(findings) == 0 {
		return fmt.Errorf("neither a NetworkAttachmentDefinition nor a pod that selects networks in %s: name a file or folder that has one", strings.Join(append(slices.Clone(o.files), args...), ", "))
	}
	var out bytes.Buffer
	if err := writeFindings(&out, o.output, findings, lint.Kinds(), env); err != nil {
		return err
	}
	if _, err := cmd.OutOrStdout().Write(out.Bytes()); err != nil {
		return err
	}
	return findingsVerdict(findings, finding.Severity(o.failOn))
}

func checkFindingsFormat(format string) error {
	if !slices.Contains([]string{formatText, formatJSON, formatSARIF, formatGitHub}, format) {
		return fmt.Errorf("--output %q: use %s, %s, %s or %s", format, formatText, formatJSON, formatSARIF, formatGitHub)
	}
	return nil
}

// writeFindings writes findings in any of the formats.
func writeFindings(w io.Writer, format string, findings finding.List, kinds []finding.Kind, env Environment) error {
	switch format {
	case formatJSON:
		return finding.WriteJSON(w, findings)
	case formatSARIF:
		return finding.WriteSARIF(w, findings, finding.Tool{Name: "plexusctl", Version: env.Version, URI: homepage, Kinds: kinds})
	case formatGitHub:
		return finding.WriteGitHub(w, findings)
	}
	return finding.WriteText(w, findings, env.Colour)
}

// readLintFiles reads what -f and the arguments name: files, folders, and stdin for "-".
func readLintFiles(stdin io.Reader, o *lintOptions, args []string) ([]lint.File, error) {
	var files []lint.File
	seen := map[string]bool{}
	add := func(name string, recursive bool) error {
		paths, err := manifestPaths(name, recursive)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if seen[filepath.Clean(path)] { // named twice, or below a folder that is named too
				continue
			}
			seen[filepath.Clean(path)] = true
			data, err := readInput(path, stdin, manifest.MaxFileBytes)
			if err != nil {
				return err
			}
			if path == stdinName {
				path = "stdin"
			}
			if files = append(files, lint.File{Name: path, Data: data}); len(files) > manifest.MaxFiles {
				return fmt.Errorf("more than %d files: lint fewer at once", manifest.MaxFiles)
			}
		}
		return nil
	}
	for _, name := range o.files {
		if err := add(name, o.recursive); err != nil {
			return nil, err
		}
	}
	for _, name := range args {
		if err := add(name, true); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// programs are the files that folders hold.
func programs(dirs []string) ([]string, error) {
	var names []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("--bin-dir: %w", err)
		}
		for _, e := range entries {
			if !e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	return names, nil
}
