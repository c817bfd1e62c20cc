// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/install"
	"github.com/plexus-cni/plexus/internal/migrate"
)

// pluginKey is the key of ConfigMap plexus that plexusd reads.
const pluginKey = "plugin.json"

// migrateOptions are the flags of migrate.
type migrateOptions struct {
	conf, daemonConfig string
	root               string
	target             string
	manifestDir        string
	objects            []string
	recursive          bool
	write, force       bool
	out                string
	output             string
}

func migrateCommand(env Environment) *cobra.Command {
	var o migrateOptions
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Translate an existing Multus installation",
		Long: `Read Multus' configuration on this node and print the equivalent one for Plexus: what became of each key, what behaves differently, which pods
and networks ask for something that Plexus refuses, what Multus left for Plexus to detach, and the steps to take.

It looks for the configuration in /etc/cni/net.d, and for multus.d/daemon-config.json there, unless --conf or --daemon-config name it. Either may
also be a ConfigMap, or - for stdin. Pods and networks are what kubectl get network-attachment-definitions,pods -A -o json prints.

It changes nothing unless you give --write: then it writes the configuration of Plexus to --out, and nothing else.

The exit status is 1 if something is refused, and 2 if the configuration could not be examined.`,
		Example: `  plexusctl migrate
  kubectl get network-attachment-definitions,pods -A -o json | plexusctl migrate -f -
  plexusctl migrate --daemon-config daemon-config.json -o json
  plexusctl migrate --write --out plexus.yaml
  plexusctl migrate --for plain --manifest-dir /etc/plexus/manifests --write --out /etc/cni/net.d`,
		Args:        arguments(0, 0),
		Annotations: map[string]string{examines: ""},
		PreRunE:     func(*cobra.Command, []string) error { return o.check() },
		RunE:        func(cmd *cobra.Command, _ []string) error { return runMigrate(cmd, &o, env.Colour) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.conf, "conf", "", "read the configuration of the plugin from `FILE`")
	flags.StringVar(&o.daemonConfig, "daemon-config", "", "read the configuration of the daemon (thick plugin) from `FILE`")
	flags.StringVar(&o.root, "root", "/", "look for the node's files under `DIR`")
	flags.StringVar(&o.target, "for", "", "print the configuration for `TARGET`: kubernetes (key plugin.json of ConfigMap plexus) or plain (a list for the container runtime); default as with Multus")
	flags.StringVar(&o.manifestDir, "manifest-dir", "", "have Plexus read pods and networks from `DIR`; with --for plain")
	flags.StringArrayVarP(&o.objects, "filename", "f", nil, "check pods and networks of `FILE`, a folder, or - for stdin; may be repeated")
	addRecursive(cmd, &o.recursive)
	flags.BoolVar(&o.write, "write", false, "write the configuration to --out")
	flags.StringVar(&o.out, "out", "", "write to `FILE` or folder; a FILE .yaml becomes the whole ConfigMap")
	flags.BoolVar(&o.force, "force", false, "replace an existing file")
	flags.StringVarP(&o.output, "output", "o", formatText, "print `FORMAT`: text or json")
	completeOutput(cmd, formatText, formatJSON)
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(
		[]cobra.Completion{string(migrate.Kubernetes), string(migrate.Plain)}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (o *migrateOptions) check() error {
	stdin := 0
	for _, name := range append([]string{o.conf, o.daemonConfig}, o.objects...) {
		if name == stdinName {
			stdin++
		}
	}
	switch {
	case o.output != formatText && o.output != formatJSON:
		return fmt.Errorf("--output %q: use %s or %s", o.output, formatText, formatJSON)
	case !slices.Contains([]string{"", string(migrate.Kubernetes), string(migrate.Plain)}, o.target):
		return fmt.Errorf("--for %q: use %s or %s", o.target, migrate.Kubernetes, migrate.Plain)
	case o.manifestDir != "" && o.target != string(migrate.Plain):
		return errors.New("--manifest-dir: give --for plain with it; on Kubernetes pods and networks come from plexusd")
	case o.write && o.out == "":
		return errors.New("--write: say where to with --out")
	case !o.write && (o.out != "" || o.force):
		return errors.New("--out and --force: give --write with them")
	case stdin > 1:
		return errors.New("- for stdin: give it once")
	}
	return nil
}

func runMigrate(cmd *cobra.Command, o *migrateOptions, colour bool) error {
	in, err := o.input(cmd.InOrStdin())
	if err != nil {
		return err
	}
	objects, err := o.read(cmd.InOrStdin())
	if err != nil {
		return err
	}
	report, err := migrate.NewReport(in, objects)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := renderReport(&out, o.output, report, paint{on: colour}); err != nil {
		return err
	}
	if _, err := cmd.OutOrStdout().Write(out.Bytes()); err != nil {
		return err
	}
	if o.write {
		path, err := o.save(report)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(cmd.ErrOrStderr(), "wrote", path); err != nil {
			return err
		}
	}
	if n := report.Findings.Count(finding.Error); n > 0 {
		return &verdictError{"something is refused: " + finding.Numbered(n, "error")}
	}
	return nil
}

// input reads the configuration that is named, or else what is in the usual places.
func (o *migrateOptions) input(stdin io.Reader) (migrate.Input, error) {
	in := migrate.Input{Root: o.root, Target: migrate.Target(o.target), ManifestDir: o.manifestDir}
	kubernetes := false
	if o.conf == "" && o.daemonConfig == "" {
		found, err := migrate.Find(o.root)
		if err != nil {
			return in, err
		}
		if found.Conf == nil && found.Daemon == nil {
			return in, fmt.Errorf("no configuration of Multus in %s: name one with --conf or --daemon-config, or the node's file system with --root", filepath.Join(o.root, "/etc/cni/net.d"))
		}
		in.Conf, in.Daemon, kubernetes = found.Conf, found.Daemon, found.HasKubeconfig
	}
	for _, f := range []struct {
		path  string
		parse func(string, []byte) (*migrate.File, error)
		to    **migrate.File
	}{{o.conf, migrate.ParseConf, &in.Conf}, {o.daemonConfig, migrate.ParseDaemon, &in.Daemon}} {
		if f.path == "" {
			continue
		}
		data, err := readInput(f.path, stdin, config.MaxBytes)
		if err != nil {
			return in, err
		}
		if *f.to, err = f.parse(f.path, data); err != nil {
			return in, err
		}
	}
	if in.Target == "" {
		in.Target = migrate.Plain
		if kubernetes || in.IsKubernetes() {
			in.Target = migrate.Kubernetes
		}
	}
	return in, nil
}

// read reads pods and networks; nil if none were given.
func (o *migrateOptions) read(stdin io.Reader) (*migrate.Objects, error) {
	if len(o.objects) == 0 {
		return nil, nil //nolint:nilnil // none is an answer, not a failure
	}
	objects := &migrate.Objects{}
	for _, name := range o.objects {
		files, err := manifestPaths(name, o.recursive)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := readInput(file, stdin, migrate.MaxObjectsBytes)
			if err == nil {
				err = objects.Parse(file, data)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return objects, nil
}

// save writes the configuration, and returns where to.
func (o *migrateOptions) save(r *migrate.Report) (string, error) {
	if r.Configuration == nil {
		return "", errors.New("nothing was written: the configuration has no equivalent; fix what is refused")
	}
	path := o.out
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		name := pluginKey
		if r.Target == migrate.Plain {
			name = install.ConfName
		}
		path = filepath.Join(path, name)
	}
	var text bytes.Buffer
	if err := json.Indent(&text, r.Configuration, "", "  "); err != nil {
		return "", err
	}
	text.WriteByte('\n')
	data := text.Bytes()
	if ext := filepath.Ext(path); r.Target == migrate.Kubernetes && (ext == ".yaml" || ext == ".yml") {
		var err error
		if data, err = yaml.Marshal(map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]string{"name": "plexus", "namespace": "plexus-system"},
			"data":     map[string]string{pluginKey: text.String()},
		}); err != nil {
			return "", err
		}
	}
	return path, writeNew(path, data, o.force)
}

// writeNew writes a file whole or not at all, and replaces one that is there only by force.
func writeNew(path string, data []byte, force bool) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()) // as readable as the files beside it
	switch {
	case err != nil:
	case force:
		if err = os.Rename(tmp.Name(), path); err == nil {
			return nil
		}
	default:
		// Unlike a rename, a link does not replace a file.
		if err = os.Link(tmp.Name(), path); errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("%s exists: name another file, or replace it with --force", path)
		}
	}
	return errors.Join(err, os.Remove(tmp.Name()))
}
