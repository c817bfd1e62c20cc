// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// MaxConfigBytes bounds a configuration, as read and as normalised. It is what
// Kubernetes allows for a whole object.
const MaxConfigBytes = 1 << 20

const (
	// maxDepth bounds the nesting of a configuration. encoding/json refuses to read
	// more than 10000 levels but writes them, so that without a bound of our own a
	// list could be put in a record that nobody can read again.
	maxDepth = 100

	// maxNameBytes bounds a network's name. It becomes part of the file name
	// <network>-<containerID>-<ifname> in libcni's result cache: 255 bytes for the
	// whole less 64 for the container ID, 15 for the interface and 2 for "-".
	maxNameBytes = 255 - 64 - 15 - 2

	// maxTypeBytes bounds a plugin's type, which is a file name.
	maxTypeBytes = 255
)

// Defaults fill what a configuration lacks.
type Defaults struct {
	// Name is the network's name, for a NetworkAttachmentDefinition its own.
	Name string
	// CNIVersion is the version of the meta-plugin's own configuration.
	CNIVersion string
}

// List is a CNI network configuration list (CNI 1.1.0 §1) that was checked: it
// has a valid name, a supported version and at least one plugin, and each plugin
// has a type that is safe to look up as a file name. It does not change; methods
// that edit return a copy.
type List struct {
	name       string
	cniVersion string
	types      []string
	nested     []string
	// refused is why the list is not accepted as a new one.
	refused      error
	capabilities map[string]bool
	plugins      []json.RawMessage
	disableCheck bool
	disableGC    bool
	bytes        json.RawMessage
}

// Normalize accepts a configuration that somebody wrote, and gives it one shape. With a
// `type` at the top it is a bare plugin and becomes the only plugin of a list; else it is
// a list and has `plugins`. Fields it does not know survive with their values, but for
// those that are the runtime's, which it refuses (see runtimeKey).
//
// The error is an [ErrInvalid]. It names the field and, if the JSON is broken, the
// line and column; the caller knows where the configuration came from.
func Normalize(config []byte, d Defaults) (*List, error) {
	list, err := decode(config, d)
	if err == nil {
		err = list.refused
	}
	if err != nil && d.Name != "" {
		return nil, fmt.Errorf("network %s: %w", quote(d.Name), err)
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Recorded reads a configuration that was accepted before, by this Plexus, by an earlier
// one, or by another meta-plugin: its sandboxes have to be taken down, whatever is
// refused today. It checks all that a List promises, and no more.
func Recorded(config []byte, d Defaults) (*List, error) {
	list, err := decode(config, d)
	if err != nil && d.Name != "" {
		return nil, fmt.Errorf("network %s: %w", quote(d.Name), err)
	}
	return list, err
}

func decode(config []byte, d Defaults) (*List, error) {
	conf, err := parseObject(config)
	if err != nil {
		return nil, err
	}
	pluginType, err := stringField(conf, "type")
	if err != nil {
		return nil, err
	}
	if pluginType != "" {
		return fromPlugin(conf, d)
	}
	if _, ok := conf["plugins"]; !ok {
		return nil, invalidf(`neither "type" nor "plugins": add "type" with the name of a CNI plugin, or "plugins" with a list of them`)
	}
	plugins, err := pluginsField(conf)
	if err != nil {
		return nil, err
	}
	return newList(conf, plugins, d)
}

// fromPlugin makes a list of a bare plugin. The plugin keeps all its fields; those
// that libcni reads from the list alone are copied up.
func fromPlugin(conf map[string]json.RawMessage, d Defaults) (*List, error) {
	top := map[string]json.RawMessage{}
	for _, key := range []string{"cniVersion", "cniVersions", "disableCheck", "disableGC", "name"} {
		if value, ok := conf[key]; ok {
			top[key] = value
		}
	}
	plugin, err := encode(conf)
	if err != nil {
		return nil, err
	}
	return newList(top, []json.RawMessage{plugin}, d)
}

// checkSpelling refuses a key of a list that is there a second time in other letters: those who read it into a struct, as many do in Go,
// would take the one for the other.
func checkSpelling(top map[string]json.RawMessage) error {
	for _, known := range []string{"cniVersion", "cniVersions", "name", "plugins", "disableCheck", "disableGC", "loadOnlyInlinedPlugins"} {
		if _, ok := top[known]; !ok {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(top)) {
			if key != known && strings.EqualFold(key, known) {
				return invalidf("%s beside %q: it can be taken for either: remove one", quote(key), known)
			}
		}
	}
	return nil
}

// newList is the only way to a List: it checks all that a List promises. top is
// taken over.
func newList(top map[string]json.RawMessage, rawPlugins []json.RawMessage, d Defaults) (*List, error) {
	if err := checkSpelling(top); err != nil {
		return nil, err
	}
	name, err := nameField(top, d.Name)
	if err != nil {
		return nil, err
	}
	cniVersion, err := versionField(top, d.CNIVersion)
	if err != nil {
		return nil, err
	}
	if len(rawPlugins) == 0 {
		return nil, invalidf(`"plugins" is empty: list at least one CNI plugin`)
	}

	plugins := make([]json.RawMessage, len(rawPlugins))
	list := &List{name: name, cniVersion: cniVersion, capabilities: map[string]bool{}, plugins: plugins}
	var loadOnlyInlined bool // checked, and used by whoever reads the folder
	for key, value := range map[string]*bool{"disableCheck": &list.disableCheck, "disableGC": &list.disableGC, "loadOnlyInlinedPlugins": &loadOnlyInlined} {
		if *value, err = boolField(top, key); err != nil {
			return nil, err
		}
	}
	for i, raw := range rawPlugins {
		var conf *types.PluginConf
		var fields map[string]json.RawMessage
		if plugins[i], fields, conf, err = parsePlugin(raw); err != nil {
			return nil, fmt.Errorf("plugins[%d]: %w", i, err)
		}
		list.types = append(list.types, conf.Type)
		nested, bad := appendNested(list.nested, fields, 1)
		if list.nested = nested; bad != nil && list.refused == nil {
			list.refused = fmt.Errorf("plugins[%d]: %w", i, bad)
		}
		if key := runtimeKey(fields); key != "" && list.refused == nil {
			list.refused = fmt.Errorf("plugins[%d]: %w", i, invalidf("key %s of plugin %s is set by the container runtime for each call: remove it", quote(key), quote(conf.Type)))
		}
		for capability, on := range conf.Capabilities {
			if on {
				list.capabilities[capability] = true
			}
		}
	}

	for key, value := range map[string]any{"name": name, "cniVersion": cniVersion, "plugins": plugins} {
		if top[key], err = encode(value); err != nil {
			return nil, err
		}
	}
	if list.bytes, err = encode(top); err != nil {
		return nil, err
	}
	// The bounds hold for what is stored as well, or it could not be read again.
	// json.Marshal stores a list with <, > and & escaped, which makes it longer.
	var stored bytes.Buffer
	json.HTMLEscape(&stored, list.bytes)
	if err = checkBounds(stored.Bytes()); err != nil {
		return nil, err
	}
	return list, nil
}

// Name is the name of the network.
func (l *List) Name() string { return l.name }

// CNIVersion is the version that is in effect: as libcni picks it, the highest of
// `cniVersions` and `cniVersion` that is not above 1.1.0.
func (l *List) CNIVersion() string { return l.cniVersion }

// Types are the types of the plugins, in order.
func (l *List) Types() []string { return slices.Clone(l.types) }

// NestedTypes are the types of plugins that the plugins themselves call: for addresses
// (`ipam`), or as `delegate`, `delegates` and `plugins`, on all levels.
func (l *List) NestedTypes() []string { return slices.Clone(l.nested) }

// Calls reports whether a plugin of one of the types is called, by libcni or by another
// plugin. Types are compared as files are found: by the exact name.
func (l *List) Calls(types ...string) bool {
	called := func(t string) bool { return t != "" && slices.Contains(types, t) }
	return slices.ContainsFunc(l.types, called) || slices.ContainsFunc(l.nested, called)
}

// IsLoopback reports whether the list does no more than set lo up: it is nobody's pod network.
func (l *List) IsLoopback() bool {
	return !slices.ContainsFunc(l.types, func(t string) bool { return t != "loopback" })
}

// TakesDevice reports whether the network cannot do without a device that a device manager
// gave the pod. All others may have a resource that steers the scheduler alone, like
// those of bridge-marker and the marker of ovs-cni, of which the kubelet has no device.
func (l *List) TakesDevice() bool {
	return l.capabilities["deviceID"] || slices.ContainsFunc(l.types, func(t string) bool { return slices.Contains(deviceTypes(), t) })
}

// deviceTypes are the plugins that attach a device of the node by its ID.
func deviceTypes() []string {
	return []string{"accelerated-bridge", "afxdp", "host-device", "ib-sriov", "macvtap", "sriov"}
}

// Capabilities are those that at least one plugin declares as true.
func (l *List) Capabilities() map[string]bool { return maps.Clone(l.capabilities) }

// Plugins are the configurations of the plugins, JSON objects, in order.
func (l *List) Plugins() []json.RawMessage { return slices.Clone(l.plugins) }

// HasCheck reports whether a runtime calls CHECK of the network: from CNI 0.4.0 on, unless it
// has `disableCheck` (CNI 1.1.0 §1).
func (l *List) HasCheck() bool { return l.has("0.4.0") && !l.disableCheck }

// HasGC reports whether a runtime calls GC of the network: from CNI 1.1.0 on, unless it has
// `disableGC` (CNI 1.1.0 §1).
func (l *List) HasGC() bool { return l.has("1.1.0") && !l.disableGC }

// has reports whether the version in effect, which is a supported one, is at least another.
func (l *List) has(cniVersion string) bool {
	ok, err := version.GreaterThanOrEqualTo(l.cniVersion, cniVersion)
	return err == nil && ok
}

// Bytes is the list as JSON, which libcni can load.
func (l *List) Bytes() json.RawMessage { return bytes.Clone(l.bytes) }

// Append returns a copy with plugins at the end. Each has to be an object with a
// `type`; otherwise the error is an [ErrInvalid].
func (l *List) Append(plugins ...json.RawMessage) (*List, error) {
	top, inline, err := l.parts()
	if err != nil {
		return nil, err
	}
	list, err := newList(top, append(inline, plugins...), Defaults{})
	if err != nil {
		return nil, fmt.Errorf("append to network %s: %w", quote(l.name), err)
	}
	return list, nil
}

// EditPlugins returns a copy in which edit has changed each plugin, in order. The
// first error of edit ends it and is wrapped; an outcome that is no usable plugin
// is an [ErrInvalid].
func (l *List) EditPlugins(edit func(plugin map[string]json.RawMessage) error) (*List, error) {
	top, plugins, err := l.parts()
	if err != nil {
		return nil, err
	}
	for i, raw := range plugins {
		var plugin map[string]json.RawMessage
		if err = json.Unmarshal(raw, &plugin); err != nil {
			return nil, fmt.Errorf("decode plugins[%d] of network %s: %w", i, quote(l.name), err)
		}
		if err = edit(plugin); err != nil {
			return nil, fmt.Errorf("edit plugins[%d] (%s) of network %s: %w", i, l.types[i], quote(l.name), err)
		}
		if plugins[i], err = encode(plugin); err != nil {
			return nil, fmt.Errorf("edit plugins[%d] (%s) of network %s: %w", i, l.types[i], quote(l.name), err)
		}
	}
	list, err := newList(top, plugins, Defaults{})
	if err != nil {
		return nil, fmt.Errorf("edit network %s: %w", quote(l.name), err)
	}
	return list, nil
}

// MarshalJSON returns [List.Bytes]. The zero List is no list, and an [ErrInvalid].
func (l *List) MarshalJSON() ([]byte, error) {
	if len(l.bytes) == 0 {
		return nil, invalidf("empty network configuration list: get one from Normalize")
	}
	return l.Bytes(), nil
}

// UnmarshalJSON is [Recorded] without defaults. White space, as of an indented record, does not count
// against [MaxConfigBytes].
func (l *List) UnmarshalJSON(data []byte) error {
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return invalidf("not JSON: %v: correct it", err)
	}
	list, err := Recorded(compact.Bytes(), Defaults{})
	if err != nil {
		return err
	}
	*l = *list
	return nil
}

// parts takes a list apart again; the parts share nothing with it.
func (l *List) parts() (map[string]json.RawMessage, []json.RawMessage, error) {
	top, err := parseObject(l.bytes)
	if err != nil {
		return nil, nil, err
	}
	plugins, err := pluginsField(top)
	if err != nil {
		return nil, nil, err
	}
	return top, plugins, nil
}

// parsePlugin checks one plugin of a list. It returns the plugin with each key once,
// as text and in its parts, and what libcni reads of it.
func parsePlugin(raw json.RawMessage) (json.RawMessage, map[string]json.RawMessage, *types.PluginConf, error) {
	fields, err := parseObject(raw)
	if err != nil {
		return nil, nil, nil, err
	}
	pluginType, err := stringField(fields, "type")
	if err != nil {
		return nil, nil, nil, err
	}
	if err = checkType(pluginType); err != nil {
		return nil, nil, nil, err
	}
	// libcni reads a plugin into a Go struct, for which "Type" is "type" too: a
	// second spelling would put another plugin in the place of the one checked here.
	for _, want := range []string{"type", "capabilities"} {
		for key := range fields {
			if key != want && strings.EqualFold(key, want) {
				return nil, nil, nil, invalidf("key %s is %q in another spelling: write %q, once", quote(key), want, want)
			}
		}
	}
	encoded, err := encode(fields)
	if err != nil {
		return nil, nil, nil, err
	}
	conf := &types.PluginConf{}
	err = json.Unmarshal(encoded, conf)
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil, nil, nil, invalidf(`field %s of plugin %s holds %s: put what CNI wants there, for example "capabilities": {"mac": true}, "ipam": {"type": "host-local"}`,
			quote(mismatch.Field), quote(pluginType), mismatch.Value)
	}
	if err != nil {
		return nil, nil, nil, invalidf("plugin %s is no CNI plugin configuration: correct it: %v", quote(pluginType), err)
	}
	return encoded, fields, conf, nil
}

// checkType keeps a type from leading out of the plugin folders: it is looked up
// there as a file name.
func checkType(pluginType string) error {
	if pluginType == "" {
		return invalidf(`no "type": add "type" with the name of a CNI plugin, for example "macvlan"`)
	}
	bad := func(r rune) bool {
		return r == '/' || r == '\\' || unicode.IsSpace(r) || unicode.IsControl(r)
	}
	if pluginType == "." || pluginType == ".." || len(pluginType) > maxTypeBytes || strings.ContainsFunc(pluginType, bad) {
		return invalidf(`"type" %s is no file name of a CNI plugin: use the bare name of a plugin in binDir, for example "macvlan"`, quote(pluginType))
	}
	return nil
}

// checkName holds CNI's rule for network names (CNI 1.1.0 §1), by which a name is
// also a safe name of a folder, and the bound of a file name.
func checkName(name string) error {
	for i := range len(name) {
		c := name[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return invalidf(`name %s is no CNI network name: begin with a letter or digit, go on with letters, digits, "_", "." and "-"`, quote(name))
		}
	}
	if name == "" || len(name) > maxNameBytes {
		return invalidf("name %s has %d bytes: use 1 to %d, as the name becomes part of a file name", quote(name), len(name), maxNameBytes)
	}
	return nil
}

func nameField(conf map[string]json.RawMessage, fallback string) (string, error) {
	name, err := stringField(conf, "name")
	if err != nil {
		return "", err
	}
	if name == "" {
		name = fallback
	}
	if name == "" {
		return "", invalidf(`no "name": add "name" with the name of the network`)
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	return name, nil
}

// versionField returns the version in effect. With `cniVersions` that is, as in
// libcni, the highest on offer that libcni knows; `cniVersion` is one of the offers.
func versionField(conf map[string]json.RawMessage, fallback string) (string, error) {
	declared, err := stringField(conf, "cniVersion")
	if err != nil {
		return "", err
	}
	offers, err := offeredVersions(conf)
	if err != nil {
		return "", err
	}
	if declared == "" && len(offers) == 0 {
		declared = fallback
	}
	if declared == "" && len(offers) == 0 {
		return "", invalidf(`no "cniVersion": add one of %s`, supportedVersions())
	}
	if len(offers) == 0 {
		return declared, checkVersion(declared)
	}
	if declared != "" {
		offers = append(offers, declared)
	}
	return pickVersion(offers)
}

// pickVersion returns the highest offer that is not above the version of CNI that
// this module implements.
func pickVersion(offers []string) (string, error) {
	picked := ""
	for _, offer := range offers {
		future, err := version.GreaterThan(offer, version.Current())
		if err != nil {
			return "", checkVersion(offer)
		}
		if future {
			continue
		}
		if err := checkVersion(offer); err != nil {
			return "", err
		}
		// Both are known versions, so that comparing them cannot fail.
		if higher, err := version.GreaterThan(offer, picked); err == nil && (picked == "" || higher) {
			picked = offer
		}
	}
	if picked == "" {
		return "", invalidf(`none of "cniVersions" is supported: add one of %s`, supportedVersions())
	}
	return picked, nil
}

func offeredVersions(conf map[string]json.RawMessage) ([]string, error) {
	raw, ok := conf["cniVersions"]
	if !ok {
		return nil, nil
	}
	var values []*string // pointers, to tell null from ""
	if err := json.Unmarshal(raw, &values); err != nil || values == nil || slices.Contains(values, nil) {
		return nil, invalidf(`"cniVersions" is no list of strings: write for example ["0.4.0", "1.0.0"], or leave it out`)
	}
	offers := make([]string, 0, len(values))
	for _, value := range values {
		offers = append(offers, *value)
	}
	return offers, nil
}

func checkVersion(v string) error {
	if !slices.Contains(version.All.SupportedVersions(), v) {
		return invalidf("cniVersion %s is not supported: use one of %s", quote(v), supportedVersions())
	}
	return nil
}

func supportedVersions() string {
	return strings.Join(version.All.SupportedVersions(), ", ")
}
