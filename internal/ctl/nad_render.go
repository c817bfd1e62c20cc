// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/resolve"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/nad"
)

// renderOptions are the flags of nad render.
type renderOptions struct {
	path, conf, output string
	recursive          bool
	devices            []string
}

func nadRenderCommand() *cobra.Command {
	var o renderOptions
	cmd := &cobra.Command{
		Use:   "render -f FILE|DIR POD",
		Short: "Show what each plugin would be given for a pod",
		Long: `Show what each plugin would be given for a pod (NAME or NAMESPACE/NAME), attachment by attachment: interface, CNI_ARGS and the final
configuration. Pods and NetworkAttachmentDefinitions come from a file or a folder. What Plexus would refuse is refused. Nothing is run.

Without --conf, and without ` + confName + ` beside the manifests, the cluster's default network is omitted.`,
		Example: `  plexusctl nad render -f examples/business-and-mgmt default/client
  plexusctl nad render -f deploy web --device intel.com/nic=0000:03:02.1 -o json`,
		Args:    arguments(1, 1),
		PreRunE: func(*cobra.Command, []string) error { return o.check() },
		RunE:    func(cmd *cobra.Command, args []string) error { return runRender(cmd, &o, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.path, "filename", "f", "", "read the manifests of pods and networks from `FILE` or folder (required)")
	addRecursive(cmd, &o.recursive)
	flags.StringVar(&o.conf, "conf", "", "read the CNI configuration of Plexus from `FILE`")
	flags.StringArrayVar(&o.devices, "device", nil, "give the pod the device `RESOURCE=ID`; may be repeated")
	flags.StringVarP(&o.output, "output", "o", formatText, "print `FORMAT`: text or json")
	completeOutput(cmd, formatText, formatJSON)
	return cmd
}

func (o *renderOptions) check() error {
	if o.output != formatText && o.output != formatJSON {
		return fmt.Errorf("--output %q: use %s or %s", o.output, formatText, formatJSON)
	}
	if o.path == "" {
		return errors.New("no manifests: name their file or folder with -f")
	}
	_, err := parseDevices(o.devices)
	return err
}

// parseDevices reads RESOURCE=ID.
func parseDevices(texts []string) ([]pod.Device, error) {
	var devices []pod.Device
	for _, text := range texts {
		resource, id, ok := strings.Cut(text, "=")
		if !ok || resource == "" || id == "" {
			return nil, fmt.Errorf("--device %q: write RESOURCE=ID, such as intel.com/nic=0000:03:02.1", text)
		}
		devices = append(devices, pod.Device{Resource: resource, ID: id})
	}
	return devices, nil
}

// rendered is an attachment as it would be made.
type rendered struct {
	Network   string            `json:"network"`
	Interface string            `json:"interface"`
	Args      string            `json:"args,omitempty"`
	Plugins   []json.RawMessage `json:"plugins"`
}

func runRender(cmd *cobra.Command, o *renderOptions, name string) error {
	objects, _, err := loadManifests(o.path, o.recursive, "")
	if err != nil {
		return err
	}
	pods, err := choosePods(objects, o.path, []string{name})
	if err != nil {
		return err
	}
	cfg, err := renderConf(o.conf, folderOf(o.path))
	if err != nil {
		return err
	}
	given, err := parseDevices(o.devices)
	if err != nil {
		return err
	}
	resolver := &resolve.Resolver{Config: cfg, Pod: pods[0], Warn: func(text string) {
		// What cannot be shown is no reason to show nothing else.
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "warning:", printable(text))
	}}
	plan, err := planPod(cmd.Context(), resolver, &objectSource{objects: objects, where: o.path, devices: given})
	if errors.Is(err, source.ErrNoDevice) {
		// What the pod requests is not looked at: there is no node to give it anything.
		text, _, _ := strings.Cut(err.Error(), ": request ")
		return fmt.Errorf("%s: name the devices that the node would give the pod with --device RESOURCE=ID", text)
	}
	if err != nil {
		return err
	}
	attachments := []rendered{}
	for i := range plan.Attachments {
		if plan.Attachments[i].Network == unknownNetwork {
			continue
		}
		r, err := renderAttachment(cmd.Context(), &plan.Attachments[i])
		if err != nil {
			return err
		}
		attachments = append(attachments, r)
	}
	return writeRendered(cmd, o.output, attachments)
}

const (
	// unknownNetwork stands in for the default network where no configuration tells it. No network of a cluster can have its name.
	unknownNetwork = "not.known_here"
	standInConf    = `{"cniVersion":"1.0.0","name":"plexus","type":"plexus","delegates":[{"cniVersion":"1.0.0","name":"` + unknownNetwork + `","type":"unknown"}]}`
)

// renderConf reads the configuration of Plexus: the given one, or that beside the manifests, or one without a default network.
func renderConf(given, dir string) (*config.Config, error) {
	file := given
	if file == "" {
		file = filepath.Join(dir, confName)
	}
	data, err := bounded.ReadFile(file, config.MaxBytes)
	if given == "" && errors.Is(err, fs.ErrNotExist) {
		return config.Parse([]byte(standInConf))
	}
	if err != nil {
		return nil, err
	}
	cfg, err := parseConf(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return cfg, nil
}

// parseConf finds Plexus in a configuration, and gives it what libcni does.
func parseConf(data []byte) (*config.Config, error) {
	list, err := nad.Normalize(data, nad.Defaults{})
	if err != nil {
		return nil, err
	}
	i := slices.Index(list.Types(), config.PluginType)
	if i < 0 {
		return nil, fmt.Errorf("no plugin of type %q in it: name a CNI configuration that has one with --conf", config.PluginType)
	}
	parsed, err := libcni.NetworkConfFromBytes(list.Bytes())
	if err != nil {
		return nil, err
	}
	plugin, err := libcni.InjectConf(parsed.Plugins[i], map[string]any{"name": list.Name(), "cniVersion": list.CNIVersion()})
	if err != nil {
		return nil, err
	}
	return config.Parse(plugin.Bytes)
}

// objectSource answers from manifests, with the devices that it was told of.
type objectSource struct {
	objects *manifest.Objects
	where   string
	devices []pod.Device
}

var _ source.Source = (*objectSource)(nil)

func (s *objectSource) Lookup(_ context.Context, q source.Query) (*source.Selection, error) {
	return s.objects.Select(q, s.where, func(source.Pod, []source.Need) ([]pod.Device, error) { return s.devices, nil })
}

func (s *objectSource) Report(context.Context, source.Report) error { return nil }

func (s *objectSource) Ready(context.Context) error { return nil }

// planPod is what an ADD decides, in a sandbox that does not exist.
func planPod(ctx context.Context, r *resolve.Resolver, src source.Source) (*delegate.Plan, error) {
	selection, err := r.Lookup(ctx, src)
	if err != nil {
		return nil, err
	}
	networks, err := r.Networks(selection)
	if err != nil {
		return nil, err
	}
	return delegate.NewPlan(delegate.Request{
		Config: r.Config.Name, Sandbox: delegate.Sandbox{ContainerID: "CONTAINER", NetNS: "/run/netns/POD", IfName: "eth0"}, Args: pod.Args{Pod: r.Pod},
		RuntimeConfig: r.Config.RuntimeConfig, Networks: networks, Rules: delegate.RulesOf(r.Config),
		DeviceInfoDir: deviceInfoDir,
	})
}

// deviceInfoDir is fixed by the Device Information Specification 1.1.0.
const deviceInfoDir = "/var/run/k8s.cni.cncf.io/devinfo"

// renderAttachment has libcni prepare the call of each plugin, and none made.
func renderAttachment(ctx context.Context, a *delegate.Attachment) (rendered, error) {
	list, err := libcni.NetworkConfFromBytes(a.List.Bytes())
	if err != nil {
		return rendered{}, fmt.Errorf("%s: %w", a, err)
	}
	cache, err := os.MkdirTemp("", "plexusctl")
	if err != nil {
		return rendered{}, err
	}
	defer func() { _ = os.RemoveAll(cache) }() // a folder of temporary files, at worst one is left
	args := make(map[string]any, len(a.CapabilityArgs))
	for k, v := range a.CapabilityArgs {
		args[k] = v
	}
	record := &recordingExec{version: a.List.CNIVersion()}
	rt := &libcni.RuntimeConf{ContainerID: "CONTAINER", NetNS: "/run/netns/POD", IfName: a.IfName, Args: a.Args, CapabilityArgs: args}
	if _, err = libcni.NewCNIConfigWithCacheDir(nil, cache, record).AddNetworkList(ctx, list, rt); err != nil {
		return rendered{}, fmt.Errorf("%s: %w", a, err)
	}
	var pairs []string
	for _, kv := range a.Args {
		pairs = append(pairs, kv[0]+"="+kv[1])
	}
	return rendered{Network: a.Network, Interface: a.IfName, Args: strings.Join(pairs, ";"), Plugins: record.configs}, nil
}

// recordingExec stands in for plugins: it notes what they would be given.
type recordingExec struct {
	version string
	configs []json.RawMessage
}

var _ invoke.Exec = (*recordingExec)(nil)

func (e *recordingExec) ExecPlugin(_ context.Context, _ string, stdin []byte, _ []string) ([]byte, error) {
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, err
	}
	delete(conf, "prevResult") // the result of a plugin that did not run
	shown, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	e.configs = append(e.configs, shown)
	return json.Marshal(map[string]string{"cniVersion": e.version})
}

func (e *recordingExec) FindInPath(plugin string, _ []string) (string, error) { return plugin, nil }

func (e *recordingExec) Decode([]byte) (version.PluginInfo, error) {
	return version.PluginSupports(version.All.SupportedVersions()...), nil
}

func writeRendered(cmd *cobra.Command, format string, attachments []rendered) error {
	var out bytes.Buffer
	if format == formatJSON {
		enc := json.NewEncoder(&out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(attachments); err != nil {
			return err
		}
	} else {
		for _, a := range attachments {
			fmt.Fprintf(&out, "%s  interface %s\n  CNI_ARGS %s\n", printable(a.Network), printable(a.Interface), printable(a.Args))
			for _, plugin := range a.Plugins {
				var indented bytes.Buffer
				if err := json.Indent(&indented, plugin, "  ", "  "); err != nil {
					return err
				}
				out.WriteString("  " + strings.Join(printableLines(indented.String()), "\n") + "\n")
			}
		}
	}
	_, err := cmd.OutOrStdout().Write(out.Bytes())
	return err
}

// printableLines are the lines of a text, without what could steer a terminal.
func printableLines(text string) []string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return lines
}
