// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package config reads the network configuration that the container runtime hands to Plexus on stdin: its own keys, with their
// defaults and bounds. Parsing has no side effect; unknown keys are left alone.
package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/nad"
)

// MaxBytes bounds a configuration. Real ones have a few KiB.
const MaxBytes = 4 << 20

// PluginType is the plugin type under which Plexus is installed and named in configurations.
const PluginType = "plexus"

// Defaults of the keys that have one.
const (
	DefaultConfDir         = "/etc/cni/plexus/net.d"
	DefaultCNIDir          = "/var/lib/cni/plexus"
	DefaultLegacyCNIDir    = "/var/lib/cni/multus"
	DefaultBinDir          = "/opt/cni/bin"
	DefaultNamespace       = "kube-system"
	DefaultSystemNamespace = "kube-system"

	// DefaultDelegateTimeout bounds one call of one delegate plugin. kubelet gives the whole sandbox four minutes and a DHCP
	// client may need most of one.
	DefaultDelegateTimeout = 90 * time.Second
	maxDelegateTimeout     = 10 * time.Minute
	// DefaultStatusGrace is more than a DaemonSet takes to replace a pod, its image pulled, and not more than pods are allowed to stay on a
	// node that is not ready.
	DefaultStatusGrace = 5 * time.Minute
	maxStatusGrace     = 24 * time.Hour

	// DefaultMaxParallelDelegates keeps a burst of pods from filling the memory: a plugin takes some 10 MB, its IPAM as much again.
	// It is far above the number of CPUs, because plugins wait for most of their time.
	DefaultMaxParallelDelegates = 64
	mostParallelDelegates       = 1024

	// DefaultMaxNetworks is more than real pods have, and few enough that one of them neither drains a pool nor outlasts the runtime.
	DefaultMaxNetworks = 32
	mostNetworks       = 300
	// DefaultPodNamespace is where containers of runtimes belong that know no namespaces.
	DefaultPodNamespace = "default"
)

// RequestPolicy says what becomes of a pod's request that no plugin of a network declares as capability.
type RequestPolicy string

// The policies. Whatever the policy, what plugins take by CNI_ARGS (a MAC, addresses) can be verified afterwards, all else cannot.
const (
	// VerifyRequests asks by CNI_ARGS, and fails an ADD whose outcome is another; what cannot be verified is refused.
	VerifyRequests RequestPolicy = "verify"
	// RefuseRequests refuses the pod (NPWG v1.3 §4.1.2.1).
	RefuseRequests RequestPolicy = "refuse"
	// IgnoreRequests asks by CNI_ARGS, and does not look what comes of it; what cannot be asked for so is dropped.
	IgnoreRequests RequestPolicy = "ignore"
)

// ErrInvalid marks a configuration that cannot be used; its text names the key and the fix.
var ErrInvalid = errors.New("invalid Plexus configuration")

// errNoNetwork marks a configuration that has no default network.
var errNoNetwork = errors.New(`at least one delegate/clusterNetwork must be specified: name the cluster's default network in "clusterNetwork" or write its configuration into "delegates"`)

// Config is the parsed configuration, defaults filled in.
type Config struct {
	CNIVersion string
	Name       string
	// Type is the plugin type by which the runtime found the program.
	Type string

	// Delegates are the inline cluster networks, each a CNI plugin configuration or list; index 0 is the cluster default
	// network. Empty when ClusterNetwork is set, which wins.
	Delegates []json.RawMessage
	// ClusterNetwork is the default network by reference: a path when it has a "/", else a name.
	ClusterNetwork string
	// DefaultNetworks are further networks for every pod outside the system namespaces, by reference.
	DefaultNetworks []string
	// SystemNamespaces get no default networks, and a network status only if they select networks themselves.
	SystemNamespaces []string
	// NetworksNamespace holds the NADs that ClusterNetwork and DefaultNetworks name (key multusNamespace).
	NetworksNamespace string

	// NamespaceIsolation refuses networks of other namespaces; GlobalNamespaces (comma list, nil = unset) are exempt.
	NamespaceIsolation bool
	GlobalNamespaces   *string

	ConfDir      string // configurations on disk for NADs with an empty spec
	CNIDir       string // records and libcni's result cache
	LegacyCNIDir string // state of the meta-plugin that ran here before; read, and cleaned, by DEL, CHECK and GC
	BinDir       string // searched for delegates before CNI_PATH

	// Where cluster knowledge comes from; at most one is used, in this order.
	DaemonSocketDir string
	Kubeconfig      string
	ManifestDir     string
	// KubeletRootDir is the kubelet's root directory for lookups by Kubeconfig; "" for the usual one. A daemon has flags for that.
	KubeletRootDir string

	ReadinessIndicatorFile string
	AuxiliaryCNIChainName  string

	// UnsupportedRequests is the key unsupportedRequests; "fail", as it was called, is RefuseRequests.
	UnsupportedRequests RequestPolicy
	// AllowedPlugins are the only plugin types that networks of the cluster may call, IPAM included; nil for all.
	AllowedPlugins []string
	// MaxNetworks bounds the attachments of a pod (key maxNetworksPerPod).
	MaxNetworks int
	// DefaultNetworkAnnotation lets a pod's annotation replace a default network that is inline or a file.
	DefaultNetworkAnnotation bool
	// DefaultNetworkPortMappings lets that annotation ask for port mappings.
	DefaultNetworkPortMappings bool
	// PodNamespace is the namespace of pods of runtimes that send none.
	PodNamespace string

	DelegateTimeout time.Duration
	// StatusGrace is how long STATUS bears a source that is away (key statusGraceSeconds).
	StatusGrace time.Duration
	// CheckAll has a CHECK ask all networks of a sandbox, not only the default one (key checkNetworks: "default" or "all").
	CheckAll bool
	// MaxParallelDelegates bounds the delegate plugins that run at a time, of all calls that share CNIDir; 0 is no limit.
	MaxParallelDelegates int

	// RuntimeConfig is the runtime's own, for the default network.
	RuntimeConfig map[string]json.RawMessage

	Log Log
}

// Log says where the plugin logs to. The result of a call, and its error, go to stdout in any case.
type Log struct {
	Level    slog.Level
	ToStderr bool
	File     string
	// Rotation of File; zero stands for the defaults of package logfile.
	MaxSizeMB, MaxBackups, MaxAgeDays int
	Compress                          bool
}

// document is the JSON form. Key names are those of Multus. The comments of its fields
// are the documentation (docs/configuration.md is made from them); [Name] stands for the value of that constant.
type document struct {
	// CNI version of the result; the container runtime sets it.
	CNIVersion string `json:"cniVersion"`
	// Name of the network, as the container runtime and the log know it.
	Name string `json:"name"`
	// The name of the program in the runtime's plugin folder: plexus.
	Type string `json:"type"`
	// CNI configurations instead of clusterNetwork: the first is the default network, the i-th gets the interface net<i>.
	Delegates []json.RawMessage `json:"delegates"`
	// The default network: a name (a NAD in multusNamespace, else a configuration in confDir with that name), or the absolute path of a
	// file or folder. It takes precedence over delegates; one of the two is needed.
	ClusterNetwork string `json:"clusterNetwork"`
	// Further networks for every pod outside systemNamespaces, by name or path.
	DefaultNetworks []string `json:"defaultNetworks"`
	// Namespaces whose pods get no defaultNetworks, and a network-status only if they select networks. Default: [DefaultSystemNamespace].
	SystemNamespaces []string `json:"systemNamespaces"`
	// Namespace of the NADs of clusterNetwork, defaultNetworks and the default-network annotation. Default: [DefaultNamespace].
	MultusNamespace string `json:"multusNamespace"`
	// Refuse networks of another namespace than the pod's, on every path by which a pod can select one.
	NamespaceIsolation bool `json:"namespaceIsolation"`
	// Comma-separated namespaces that isolation exempts, "default" if left out. If you set it, include default to keep it exempt.
	GlobalNamespaces *string `json:"globalNamespaces"`
	// Configurations of NADs with an empty spec, and of names without a NAD. Default: [DefaultConfDir].
	ConfDir string `json:"confDir"`
	// Records, locks, and libcni's result cache. Default: [DefaultCNIDir].
	CNIDir string `json:"cniDir"`
	// State of Multus, from which Plexus detaches the sandboxes that Multus attached. Default: [DefaultLegacyCNIDir].
	LegacyCNIDir string `json:"legacyCNIDir"`
	// Searched for plugins before the runtime's CNI_PATH. Default: [DefaultBinDir].
	BinDir string `json:"binDir"`
	// Folder of the daemon's socket. The daemon says who the pod is and what it selects.
	DaemonSocketDir string `json:"daemonSocketDir"`
	// Ask the API server for each call, by plexusd lookup. Counts where daemonSocketDir is not set.
	Kubeconfig string `json:"kubeconfig"`
	// Folder of Pods and NADs in YAML. Counts where neither daemonSocketDir nor kubeconfig is set.
	ManifestDir string `json:"manifestDir"`
	// The kubelet's root folder, where it is not the usual one; with kubeconfig. The daemon has a flag for it.
	KubeletRootDir string `json:"kubeletRootDir"`
	// A file that the default network writes when it is ready: ADD waits up to 30 s for it, STATUS fails without it, DEL never waits.
	ReadinessIndicatorFile string `json:"readinessindicatorfile"`
	// A last network, made of the *.conf in the folder of that name beside clusterNetwork (a path then).
	AuxiliaryCNIChainName string `json:"auxiliaryCNIChainName"`
	// What to do with a request that no plugin of the network declares as a capability. "verify" passes mac and ips in CNI_ARGS, and fails
	// the ADD if the pod did not get them; it refuses all other requests. "refuse" refuses all ("fail" is an old name of it). "ignore" passes
	// mac and ips as well, does not check the outcome, and drops the others. Default: verify.
	UnsupportedRequests string `json:"unsupportedRequests"`
	// Which networks a CHECK asks: "default", only the default network, or "all". CRI-O calls CHECK while a pod starts, and many IPAM
	// plugins have none. Default: default.
	CheckNetworks string `json:"checkNetworks"`
	// The only plugins that networks from the cluster may call, by type: those of their configurations, of their IPAM and of plugins that
	// they delegate to. It does not restrict networks in this configuration, or in files that it names. All if left out.
	AllowedPlugins []string `json:"allowedPlugins"`
	// How many networks a pod may have in all, 1 to [mostNetworks]. Default: [DefaultMaxNetworks].
	MaxNetworksPerPod *int `json:"maxNetworksPerPod"`
	// Whether the annotation v1.multus-cni.io/default-network may replace a default network that is in this configuration or in a file.
	// The daemon reports the annotation, so with daemonSocketDir the default is false: a compromised daemon must not choose the default
	// network. Otherwise it is true. A clusterNetwork that is a NAD can always be replaced.
	DefaultNetworkAnnotation *bool `json:"defaultNetworkAnnotation"`
	// Let that annotation ask for portMappings, which are added to those of the container runtime. Neither Pod Security nor quotas nor the
	// scheduler see them.
	DefaultNetworkPortMappings bool `json:"defaultNetworkPortMappings"`
	// The namespace of containers whose runtime names a pod and no namespace, as Podman does. Default: [DefaultPodNamespace].
	PodNamespace string `json:"podNamespace"`
	// How long one call of one plugin may take before it is killed, with its children; 1 to [maxDelegateTimeout]. Default:
	// [DefaultDelegateTimeout].
	DelegateTimeoutSeconds *int `json:"delegateTimeoutSeconds"`
	// How long STATUS still succeeds while plexusd (without a daemon: the API server) is away, counted from when it was last seen ready; 0 to
	// [maxStatusGrace]. When STATUS fails, the runtime makes the node NotReady, and the kubelet starts no pod and restarts no container
	// there, so this must be longer than an update of plexusd. Default: [DefaultStatusGrace].
	StatusGraceSeconds *int `json:"statusGraceSeconds"`
	// How many plugins run at a time on the node, in all calls together: a call runs one at a time, and holds a slot from its first plugin
	// to its last. Further calls wait, up to 40 s. 0 for no limit. Allow more if plugins wait for a long time, as for DHCP. Default:
	// [DefaultMaxParallelDelegates].
	MaxParallelDelegates *int `json:"maxParallelDelegates"`
	// Accepted, without effect: a DEL always keeps on record what failed.
	RetryDeleteOnError bool `json:"retryDeleteOnError"`
	// "error", "warn", "info" or "debug"; "panic" and "verbose" are accepted too. Default: info.
	LogLevel string `json:"logLevel"`
	// Log to stderr as well.
	LogToStderr bool `json:"logToStderr"`
	// File to log to, one line for each call; no log if left out.
	LogFile string `json:"logFile"`
	// Rotation of logFile.
	LogOptions logOptions `json:"logOptions"`
	// What the container runtime requests of the default network, for the capabilities that the configuration declares.
	RuntimeConfig map[string]json.RawMessage `json:"runtimeConfig"`
}

type logOptions struct {
	// Days after which a rotated file is deleted; 0 for never.
	MaxAge int `json:"maxAge"`
	// MB at which the file is rotated; 0 stands for 100.
	MaxSize int `json:"maxSize"`
	// How many rotated files are kept; 0 stands for 5.
	MaxBackups int `json:"maxBackups"`
	// Compress rotated files with gzip.
	Compress bool `json:"compress"`
}

// Parse reads and checks a configuration. Its errors match [ErrInvalid].
func Parse(data []byte) (*Config, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrInvalid, len(data), MaxBytes)
	}
	var d document
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&d); err != nil {
		return nil, decodeError(err)
	}
	if dec.More() {
		return nil, fmt.Errorf("%w: more than one JSON document; leave one", ErrInvalid)
	}
	c := &Config{
		CNIVersion:             d.CNIVersion,
		Name:                   d.Name,
		Type:                   d.Type,
		Delegates:              d.Delegates,
		ClusterNetwork:         strings.TrimSpace(d.ClusterNetwork),
		DefaultNetworks:        d.DefaultNetworks,
		SystemNamespaces:       d.SystemNamespaces,
		NetworksNamespace:      cmp.Or(d.MultusNamespace, DefaultNamespace),
		NamespaceIsolation:     d.NamespaceIsolation,
		GlobalNamespaces:       d.GlobalNamespaces,
		ConfDir:                cmp.Or(d.ConfDir, DefaultConfDir),
		CNIDir:                 cmp.Or(d.CNIDir, DefaultCNIDir),
		LegacyCNIDir:           cmp.Or(d.LegacyCNIDir, DefaultLegacyCNIDir),
		BinDir:                 cmp.Or(d.BinDir, DefaultBinDir),
		DaemonSocketDir:        d.DaemonSocketDir,
		Kubeconfig:             d.Kubeconfig,
		ManifestDir:            d.ManifestDir,
		KubeletRootDir:         d.KubeletRootDir,
		ReadinessIndicatorFile: d.ReadinessIndicatorFile,
		AuxiliaryCNIChainName:  d.AuxiliaryCNIChainName,
		DelegateTimeout:        DefaultDelegateTimeout,
		StatusGrace:            DefaultStatusGrace,
		MaxParallelDelegates:   DefaultMaxParallelDelegates,
		AllowedPlugins:         d.AllowedPlugins,
		MaxNetworks:            DefaultMaxNetworks,
		PodNamespace:           cmp.Or(d.PodNamespace, DefaultPodNamespace),

		DefaultNetworkAnnotation:   d.DaemonSocketDir == "",
		DefaultNetworkPortMappings: d.DefaultNetworkPortMappings,
		RuntimeConfig:              d.RuntimeConfig,
		Log: Log{
			ToStderr: d.LogToStderr, File: d.LogFile,
			MaxSizeMB: d.LogOptions.MaxSize, MaxBackups: d.LogOptions.MaxBackups, MaxAgeDays: d.LogOptions.MaxAge, Compress: d.LogOptions.Compress,
		},
	}
	if d.SystemNamespaces == nil {
		c.SystemNamespaces = []string{DefaultSystemNamespace}
	}
	if c.ClusterNetwork != "" {
		c.Delegates = nil
	}
	if err := c.setChoices(d); err != nil {
		return nil, err
	}
	return c, c.validate()
}

// setChoices reads the keys whose text stands for something else.
func (c *Config) setChoices(d document) error {
	switch d.UnsupportedRequests {
	case "", string(VerifyRequests):
		c.UnsupportedRequests = VerifyRequests
	case string(RefuseRequests), "fail":
		c.UnsupportedRequests = RefuseRequests
	case string(IgnoreRequests):
		c.UnsupportedRequests = IgnoreRequests
	default:
		return invalid("unsupportedRequests", d.UnsupportedRequests, `use "verify", "refuse" or "ignore"`)
	}
	if n := d.MaxNetworksPerPod; n != nil {
		if *n < 1 || *n > mostNetworks {
			return invalid("maxNetworksPerPod", fmt.Sprint(*n), fmt.Sprintf("use 1 to %d", mostNetworks))
		}
		c.MaxNetworks = *n
	}
	if d.DefaultNetworkAnnotation != nil {
		c.DefaultNetworkAnnotation = *d.DefaultNetworkAnnotation
	}
	if !nad.IsLabel(c.PodNamespace) {
		return invalid("podNamespace", c.PodNamespace, "use the name of a namespace, in lower-case letters, digits and \"-\"")
	}
	switch d.CheckNetworks {
	case "", "default":
	case "all":
		c.CheckAll = true
	default:
		return invalid("checkNetworks", d.CheckNetworks, `use "default" or "all"`)
	}
	if s := d.DelegateTimeoutSeconds; s != nil {
		most := int(maxDelegateTimeout.Seconds())
		if *s < 1 || *s > most {
			return invalid("delegateTimeoutSeconds", fmt.Sprint(*s), fmt.Sprintf("use 1 to %d", most))
		}
		c.DelegateTimeout = time.Duration(*s) * time.Second
	}
	if s := d.StatusGraceSeconds; s != nil {
		most := int(maxStatusGrace.Seconds())
		if *s < 0 || *s > most {
			return invalid("statusGraceSeconds", fmt.Sprint(*s), fmt.Sprintf("use 0 to %d", most))
		}
		c.StatusGrace = time.Duration(*s) * time.Second
	}
	if n := d.MaxParallelDelegates; n != nil {
		if *n < 0 || *n > mostParallelDelegates {
			return invalid("maxParallelDelegates", fmt.Sprint(*n), fmt.Sprintf("use 1 to %d, or 0 for no limit", mostParallelDelegates))
		}
		c.MaxParallelDelegates = *n
	}
	level, err := parseLevel(d.LogLevel)
	c.Log.Level = level
	return err
}

// parseLevel accepts slog's names and those of the meta-plugin in use today.
func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "", "info", "verbose":
		return slog.LevelInfo, nil
	case "panic", "error":
		return slog.LevelError, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "debug":
		return slog.LevelDebug, nil
	}
	return 0, invalid("logLevel", s, `use "error", "warn", "info" or "debug" ("panic" and "verbose" are understood too)`)
}

func (c *Config) validate() error {
	if c.ClusterNetwork == "" && len(c.Delegates) == 0 {
		return fmt.Errorf("%w: %w", ErrInvalid, errNoNetwork)
	}
	paths := []struct{ key, value string }{
		{"confDir", c.ConfDir},
		{"cniDir", c.CNIDir},
		{"legacyCNIDir", c.LegacyCNIDir},
		{"binDir", c.BinDir},
		{"daemonSocketDir", c.DaemonSocketDir},
		{"kubeconfig", c.Kubeconfig},
		{"manifestDir", c.ManifestDir},
		{"kubeletRootDir", c.KubeletRootDir},
		{"readinessindicatorfile", c.ReadinessIndicatorFile},
		{"logFile", c.Log.File},
	}
	for _, n := range append([]string{c.ClusterNetwork}, c.DefaultNetworks...) {
		if strings.Contains(n, "/") {
			paths = append(paths, struct{ key, value string }{"clusterNetwork or defaultNetworks", n})
		}
	}
	for _, p := range paths {
		if p.value != "" && (!filepath.IsAbs(p.value) || strings.Contains(p.value, "\x00")) {
			return invalid(p.key, p.value, "use an absolute path")
		}
	}
	if o := c.Log; o.MaxSizeMB < 0 || o.MaxBackups < 0 || o.MaxAgeDays < 0 {
		return fmt.Errorf("%w: logOptions: maxSize, maxBackups and maxAge cannot be negative; leave a key out for its default", ErrInvalid)
	}
	return nil
}

// Inline is the network that stands in the configuration as the i-th of its delegates. Its errors match [ErrInvalid].
func (c *Config) Inline(i int) (*nad.List, error) {
	list, err := nad.Normalize(c.Delegates[i], nad.Defaults{Name: c.Name, CNIVersion: c.CNIVersion})
	if err == nil {
		err = c.CheckNetwork(list)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: delegates[%d]: %w", ErrInvalid, i, err)
	}
	return list, nil
}

// CheckNetwork refuses a network that calls Plexus, directly, as its IPAM or as what its plugins delegate to: Plexus would call itself for
// ever, or with a configuration that the network's author wrote. The error is a [nad.ErrInvalid].
func (c *Config) CheckNetwork(list *nad.List) error {
	if list.Calls(PluginType, c.Type) {
		return fmt.Errorf("%w: it calls the plugin %q, which would call Plexus from Plexus: name a network plugin", nad.ErrInvalid, cmp.Or(c.Type, PluginType))
	}
	return nil
}

// CheckReplacement refuses a network of the default-network annotation in the place of a default network that stands in the configuration, or
// in a file that it names, unless the configuration allows it.
func (c *Config) CheckReplacement(network string) error {
	if c.DefaultNetworkAnnotation || c.ClusterNetwork != "" && !c.ClusterNetworkIsPath() {
		return nil
	}
	return fmt.Errorf("network %s would replace the default network of Plexus' configuration, which does not allow that: remove the annotation, or set \"defaultNetworkAnnotation\" to true there", network)
}

// IsSystemNamespace reports whether pods of namespace ns get no default networks, and no network status for the default network alone.
func (c *Config) IsSystemNamespace(ns string) bool {
	return slices.Contains(c.SystemNamespaces, ns)
}

// ClusterNetworkIsPath reports whether ClusterNetwork names a file or folder rather than a network.
func (c *Config) ClusterNetworkIsPath() bool { return strings.Contains(c.ClusterNetwork, "/") }

func invalid(key, value, mend string) error {
	const most = 64
	if len(value) > most {
		value = value[:most] + "…"
	}
	return fmt.Errorf("%w: %s %q: %s", ErrInvalid, key, value, mend)
}

// jsonName is what the author of JSON calls a Go type.
func jsonName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "a whole number"
	}
}

// decodeError words an error of encoding/json for the author of the configuration.
func decodeError(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return fmt.Errorf("%w: %s: a JSON %s stands where %s is expected", ErrInvalid, wrong.Field, wrong.Value, jsonName(wrong.Type.Kind()))
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}
