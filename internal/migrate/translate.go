// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/install"
	"github.com/plexus-cni/plexus/nad"
)

// Names and versions that Multus goes by where its configuration has none.
const (
	defaultName       = "multus-cni-network"
	defaultCNIVersion = "0.3.1"
)

// Input is what a configuration of Plexus is made from.
type Input struct {
	// Conf is the plugin's configuration and Daemon that of the thick plugin's daemon; one of them may be nil.
	Conf, Daemon *File
	Target       Target
	// Root is where the node's file system is.
	Root string
	// ManifestDir is the folder of pods and networks for the target Plain, "" for none.
	ManifestDir string
}

// Translation is a configuration of Multus in the terms of Plexus.
type Translation struct {
	// Configuration is the JSON for Plexus: of key plugin.json, or a whole list. Nil if the old one has no equal.
	Configuration json.RawMessage
	// Config is what the plugin will read in the end, nil as above.
	Config *config.Config
	// Network is the default network, nil if it is not known here.
	Network  *nad.List
	Keys     []Key
	Changes  []Change
	Findings []finding.Finding
	// StateDir is where the old plugin keeps its state.
	StateDir string
}

// value is a key as it counts in the end.
type value struct {
	raw  json.RawMessage
	file string
}

// translator goes from key to key.
type translator struct {
	Input

	thick bool
	eff   map[string]value
	// primary is the cluster's own network as plexusd would find it; primaryPath "" if there is none.
	primaryPath string
	primary     *nad.List

	plugin map[string]json.RawMessage
	out    Translation
}

// Translate decides what becomes of each key. Errors match [ErrInvalid]; a key without an equal is no error but a finding.
func Translate(in Input) (*Translation, error) {
	if in.Conf == nil && in.Daemon == nil {
		return nil, fmt.Errorf("%w: neither the plugin's nor the daemon's configuration was given: name one", ErrInvalid)
	}
	t := &translator{
		Input: in, thick: in.Daemon != nil || in.Conf.Type == typeThick,
		eff: map[string]value{}, plugin: map[string]json.RawMessage{},
	}
	t.merge()
	t.findPrimary()
	t.set("type", config.PluginType)
	t.defaultNetwork()
	for _, r := range rules() {
		if v, ok := t.eff[r.key]; ok && r.apply != nil {
			t.add(r.key, v, r.apply(t, r.key, v.raw))
		}
	}
	t.unknown()
	t.needed()
	t.chained()
	if err := t.assemble(); err != nil && !t.told() {
		t.find(ConfInvalid, finding.Error, "", err.Error(), "")
	}
	t.out.Changes = t.changes()
	slices.SortStableFunc(t.out.Keys, func(a, b Key) int { return cmp.Compare(rank(a), rank(b)) })
	return &t.out, nil
}

// rank puts keys in the order of the rules, unknown ones behind them and added ones last.
func rank(k Key) int {
	i := slices.IndexFunc(rules(), func(r rule) bool { return r.key == k.Key })
	switch {
	case k.Became == Added:
		return len(rules()) + 1
	case i < 0:
		return len(rules())
	}
	return i
}

// merge lets the daemon's keys replace those that the plugin hands it, as the thick plugin does.
func (t *translator) merge() {
	if f := t.Conf; f != nil {
		for key, raw := range f.Keys {
			t.eff[key] = value{raw, f.Path}
		}
		for key, raw := range f.List {
			t.eff[key] = value{raw, f.Path}
		}
	}
	if f := t.Daemon; f != nil {
		for key, raw := range f.Keys {
			if old, ok := t.eff[key]; ok && !sameJSON(old.raw, raw) {
				t.out.Keys = append(t.out.Keys, Key{Key: key, File: old.file, Became: Ignored, Why: "the daemon's configuration has another value, which takes precedence"})
			}
			t.eff[key] = value{raw, f.Path}
		}
	}
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// findPrimary learns which network plexusd would take. There may be none, or no node at all.
func (t *translator) findPrimary() {
	dir := rooted(t.Root, defaultNetDir)
	path, list, err := install.Conf{Dir: dir}.Find()
	if err == nil {
		t.primaryPath, t.primary = filepath.Join(defaultNetDir, filepath.Base(path)), list
	}
}

// outcome is what a rule decides.
type outcome struct {
	became Became
	to     string
	value  any // nil for none
	why    string
	mend   string // of a refusal
}

func (t *translator) add(key string, v value, o outcome) {
	k := Key{Key: key, File: v.file, Became: o.became, To: o.to, Why: o.why}
	if o.value != nil {
		k.Value = t.set(o.to, o.value)
	}
	if o.became == Refused {
		t.find(ConfKeyRefused, finding.Error, key, o.why, o.mend)
	}
	t.out.Keys = append(t.out.Keys, k)
}

func (t *translator) set(key string, v any) json.RawMessage {
	raw := encode(v)
	t.plugin[key] = raw
	return raw
}

// encode writes JSON without escapes for HTML: people read it. What it is given comes of JSON, so that it can be JSON again.
func encode(v any) json.RawMessage {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return json.RawMessage("null")
	}
	return bytes.TrimSpace(text.Bytes())
}

func (t *translator) find(code string, s finding.Severity, field, text, mend string) {
	if mend == "" {
		text, mend = splitMend(text)
	}
	t.out.Findings = append(t.out.Findings, finding.Finding{Code: code, Severity: s, Object: "configuration", Field: field, Text: text, Mend: mend})
}

// unknown lists keys that neither program knows.
func (t *translator) unknown() {
	for _, key := range slices.Sorted(maps.Keys(t.eff)) {
		if documented(key) == "" {
			t.add(key, t.eff[key], outcome{became: Ignored, why: "neither Multus nor Plexus knows it"})
			t.find(ConfKeyUnknown, finding.Warning, key, "neither Multus nor Plexus knows this key, so it was omitted", "correct it if it is misspelt; a program that reads it must get it elsewhere")
		}
	}
}

// needed adds what the old configuration went without.
func (t *translator) needed() {
	added := func(key string, v any, why string) {
		t.out.Keys = append(t.out.Keys, Key{Key: key, Became: Added, To: key, Value: t.set(key, v), Why: why})
	}
	if t.Target == Plain && t.ManifestDir != "" {
		added("manifestDir", t.ManifestDir, "pods and networks are read from there")
	}
	if _, ok := t.plugin["confDir"]; !ok && t.text("confDir") == "" && hasConfigurations(rooted(t.Root, defaultConfDir)) {
		added("confDir", defaultConfDir, "it is Multus' default, and there are networks in that folder")
	}
	t.out.StateDir = cmp.Or(t.text("cniDir"), config.DefaultLegacyCNIDir)
}

func hasConfigurations(dir string) bool {
	for _, ext := range []string{"conf", "conflist", "json"} {
		// The pattern is ours, and a folder that cannot be read has none to offer.
		if files, err := filepath.Glob(filepath.Join(dir, "*."+ext)); err == nil && len(files) > 0 {
			return true
		}
	}
	return false
}

// chained tells of plugins that stand beside Multus in one list.
func (t *translator) chained() {
	if t.Conf == nil || t.Target == Plain || len(t.Conf.Before)+len(t.Conf.After) == 0 {
		return
	}
	t.find(ConfChained, finding.Error, "plugins", fmt.Sprintf("%d more plugins are beside Multus in its list %s, but the list that plexusd writes has only Plexus", len(t.Conf.Before)+len(t.Conf.After), t.Conf.Path),
		"move them to the list of the default network, or to the folder beside it that has its name")
}

// text is the string value of a key, "" if it has none.
func (t *translator) text(key string) string {
	var s string
	if err := json.Unmarshal(t.eff[key].raw, &s); err != nil {
		return ""
	}
	return strings.TrimSpace(s)
}

// assemble makes the configuration, and checks that Plexus takes it.
func (t *translator) assemble() error {
	effective := maps.Clone(t.plugin)
	cniVersion := cmp.Or(t.text("cniVersion"), defaultCNIVersion)
	if t.Target == Kubernetes {
		if t.plugin["clusterNetwork"] == nil && t.plugin["delegates"] == nil {
			effective["clusterNetwork"] = encode(cmp.Or(t.primaryPath, defaultNetDir))
		}
		if t.primary != nil {
			cniVersion = t.primary.CNIVersion()
		}
		effective["daemonSocketDir"] = encode(plexusSocketDir)
		effective["defaultNetworkAnnotation"] = encode(true) // as in the configuration that plexusd generates
	}
	effective["name"], effective["cniVersion"] = encode(cmp.Or(t.text("name"), defaultName)), encode(cniVersion)
	cfg, err := config.Parse(encode(effective))
	if err != nil {
		return err
	}
	if cfg.AuxiliaryCNIChainName != "" && !cfg.ClusterNetworkIsPath() {
		return errors.New("auxiliaryCNIChainName needs clusterNetwork to be a path, with the chain's files beside it: name the file of the default network in clusterNetwork, or omit the chain")
	}
	plugin := maps.Clone(t.plugin)
	if t.Target == Kubernetes {
		delete(plugin, "type") // plexusd sets it
		if _, err = install.ParseExtra(encode(plugin)); err != nil {
			return err
		}
		t.out.Configuration, t.out.Config = encode(plugin), cfg
		return nil
	}
	list, err := t.list(cniVersion, plugin)
	if err != nil {
		return err
	}
	if _, err := nad.Normalize(list, nad.Defaults{}); err != nil {
		return err
	}
	t.out.Configuration, t.out.Config = list, cfg
	return nil
}

// told reports whether the reason why there is no configuration is among the findings: the key of the default network.
func (t *translator) told() bool {
	return t.plugin["clusterNetwork"] == nil && t.plugin["delegates"] == nil && slices.ContainsFunc(t.out.Findings, func(f finding.Finding) bool {
		return f.Severity == finding.Error && slices.Contains([]string{"clusterNetwork", "delegates", "multusMasterCNI"}, f.Field)
	})
}

// list puts the plugin where that of Multus stood.
func (t *translator) list(cniVersion string, plugin map[string]json.RawMessage) (json.RawMessage, error) {
	top := map[string]json.RawMessage{"cniVersion": encode(cniVersion), "name": encode(cmp.Or(t.text("name"), defaultName))}
	var plugins []json.RawMessage
	for _, key := range listKeys() {
		if v, ok := t.eff[key]; ok {
			top[key] = v.raw
		}
	}
	if t.Conf != nil {
		plugins = append(plugins, t.Conf.Before...)
	}
	if !json.Valid(encode(plugin)) {
		return nil, errors.New("it cannot be written as JSON")
	}
	plugins = append(plugins, encode(plugin))
	if t.Conf != nil {
		plugins = append(plugins, t.Conf.After...)
	}
	top["plugins"] = encode(plugins)
	return encode(top), nil
}

// listKeys are keys of a list that stay with it.
func listKeys() []string {
	return []string{"cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins"}
}
