// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/finding"
)

// rule says what becomes of one key of Multus.
type rule struct {
	key string
	// apply is nil for keys that defaultNetwork decides about.
	apply func(t *translator, key string, raw json.RawMessage) outcome
}

// rules are all keys of Multus: those of its plugin, which are also those that its daemon hands on, and those of the daemon.
func rules() []rule {
	return []rule{
		{"cniVersion", (*translator).listKey},
		{"name", (*translator).listKey},
		{"type", func(t *translator, _ string, _ json.RawMessage) outcome {
			if t.Target == Kubernetes {
				return ignored("plexusd writes it")
			}
			return outcome{became: Changed, to: "type", value: config.PluginType}
		}},
		{"capabilities", (*translator).capabilities},
		{"clusterNetwork", nil},
		{"delegates", nil},
		{"multusMasterCNI", nil},
		{"defaultNetworks", (*translator).defaultNetworks},
		{"systemNamespaces", (*translator).kept},
		{"multusNamespace", (*translator).kept},
		{"namespaceIsolation", (*translator).kept},
		{"globalNamespaces", (*translator).kept},
		{"kubeconfig", (*translator).kubeconfig},
		{"confDir", (*translator).path},
		{"cniDir", func(t *translator, _ string, raw json.RawMessage) outcome {
			o := t.path("legacyCNIDir", raw)
			if o.became != Refused && o.became != Ignored {
				o.became, o.why = Renamed, "Multus keeps its state there; Plexus keeps its own in "+config.DefaultCNIDir
			}
			return o
		}},
		{"binDir", (*translator).path},
		{"readinessindicatorfile", (*translator).path},
		{"auxiliaryCNIChainName", (*translator).kept},
		{"retryDeleteOnError", because("a DEL always keeps what failed on record")},
		{"logLevel", (*translator).kept},
		{"logToStderr", (*translator).kept},
		{"logFile", (*translator).logFile},
		{"logOptions", (*translator).kept},
		{"runtimeConfig", because("the container runtime writes it for each call")},
		{"prevResult", because("the container runtime writes it for each call")},
		{"args", because("the container runtime writes it for each call")},
		{"ipam", because("a meta-plugin assigns no addresses itself")},
		{"dns", because("a meta-plugin sets no DNS itself")},
		{"cniVersions", (*translator).listKey},
		{"disableCheck", (*translator).listKey},
		{"disableGC", (*translator).listKey},
		{"loadOnlyInlinedPlugins", (*translator).listKey},

		// of the daemon
		{"chrootDir", because("the plugin runs on the node itself, outside of a container")},
		{"cniConfigDir", (*translator).netDir},
		{"multusAutoconfigDir", (*translator).netDir},
		{"multusConfigFile", (*translator).configFile},
		{"socketDir", because("the socket of Multus' daemon; that of plexusd is in " + plexusSocketDir)},
		{"daemonSocketDir", because("the socket of Multus' daemon; in Plexus this key names plexusd's socket, and plexusd sets it")},
		{"metricsPort", (*translator).metricsPort},
		{"perNodeCertificate", because("plexusd uses the token of its pod, which is bound to the node and renewed by the kubelet")},
		{"forceCNIVersion", because("the version of the default network's configuration counts")},
		{"overrideNetworkName", because("the generated network is always called plexus")},
	}
}

// documented is the documented spelling of a key, "" for one that is not known.
func documented(key string) string {
	for _, r := range rules() {
		if strings.EqualFold(r.key, key) {
			return r.key
		}
	}
	return ""
}

func ignored(why string) outcome { return outcome{became: Ignored, why: why} }

func because(why string) func(*translator, string, json.RawMessage) outcome {
	return func(*translator, string, json.RawMessage) outcome { return ignored(why) }
}

// kept is for keys that have the same name and meaning in Plexus.
func (t *translator) kept(key string, raw json.RawMessage) outcome {
	if string(raw) == "null" {
		return ignored("it is null")
	}
	return t.checked(outcome{became: Kept, to: key, value: raw})
}

// checked lets the parser of Plexus judge a value.
func (t *translator) checked(o outcome) outcome {
	conf := map[string]any{"clusterNetwork": "any", o.to: o.value}
	if o.to == "delegates" {
		delete(conf, "clusterNetwork")
	}
	if _, err := config.Parse(encode(conf)); err != nil {
		text, mend := splitMend(strings.TrimPrefix(err.Error(), config.ErrInvalid.Error()+": "))
		return outcome{became: Refused, why: text, mend: mend}
	}
	return o
}

// path is for keys that name a file or folder of the node.
func (t *translator) path(key string, raw json.RawMessage) outcome {
	var path string
	if err := json.Unmarshal(raw, &path); err != nil {
		return t.kept(key, raw) // which says what is wrong
	}
	if path == "" {
		return ignored("it is empty")
	}
	host := t.hostPath(path)
	o := outcome{became: Kept, to: key, value: host}
	if host != path {
		o.became, o.why = Changed, "it was the path in the container of Multus' daemon; this is the node's"
	}
	return t.checked(o)
}

// logFile tells of a log that goes on in the file of Multus.
func (t *translator) logFile(key string, raw json.RawMessage) outcome {
	o := t.path(key, raw)
	if file, ok := o.value.(string); ok && strings.Contains(strings.ToLower(file), "multus") {
		t.find(ConfKeyChanged, finding.Info, key, fmt.Sprintf("Plexus would continue Multus' log %s", file), "name another file; `kubectl plexus trace` with the component deploy/components/inspect reads /var/log/plexus/plexus.log")
	}
	return o
}

func (t *translator) listKey(key string, raw json.RawMessage) outcome {
	if t.Target == Kubernetes {
		return ignored("plexusd writes it: the default network's version, and the name plexus")
	}
	return outcome{became: Kept, to: "", why: "of the list: " + key + " " + clip(string(raw))}
}

func (t *translator) capabilities(key string, raw json.RawMessage) outcome {
	var claimed map[string]bool
	if err := json.Unmarshal(raw, &claimed); err != nil {
		return outcome{became: Refused, why: `capabilities is not an object of true and false`, mend: `write {"portMappings": true} for example`}
	}
	if t.Target == Kubernetes && t.out.Network != nil {
		has := t.out.Network.Capabilities()
		all := true
		for capability, on := range claimed {
			all = all && (!on || has[capability])
		}
		if all {
			return ignored("plexusd declares what the default network supports")
		}
	}
	return outcome{became: Kept, to: key, value: raw}
}

func (t *translator) defaultNetworks(key string, raw json.RawMessage) outcome {
	var names []string
	if err := json.Unmarshal(raw, &names); err != nil {
		return t.kept(key, raw) // which says what is wrong
	}
	if len(names) == 0 {
		return ignored("it is empty")
	}
	o := outcome{became: Kept, to: key}
	for i, name := range names {
		if host := t.hostPath(name); strings.Contains(name, "/") && host != name {
			names[i] = host
			o.became, o.why = Changed, "paths in the daemon's container became those on the node"
		}
	}
	o.value = names
	return t.checked(o)
}

func (t *translator) kubeconfig(key string, raw json.RawMessage) outcome {
	switch {
	case t.Target == Kubernetes:
		return ignored("plexusd reads pods and networks with the token of its own service account")
	case t.ManifestDir != "":
		return ignored("pods and networks come from manifestDir")
	}
	o := t.path(key, raw)
	if o.became == Kept || o.became == Changed {
		t.find(ConfKeyChanged, finding.Warning, key, "it is Multus' kubeconfig, which stops working when Multus' service account is deleted; plexusd lookup uses it for each call",
			"write one for an account of Plexus that can get pods and NetworkAttachmentDefinitions, or install with deploy/base (--for kubernetes)")
	}
	return o
}

// netDir is for the daemon's names of the runtime's folder of configurations.
func (t *translator) netDir(key string, raw json.RawMessage) outcome {
	var path string
	if err := json.Unmarshal(raw, &path); err != nil {
		return t.kept("confDir", raw) // which says that it is no string
	}
	host := filepath.Clean(t.hostPath(path))
	switch {
	case path == "" || host == defaultNetDir:
		return ignored("plexusd reads " + defaultNetDir + " as it is mounted in its DaemonSet")
	case key == "multusAutoconfigDir" && t.text("clusterNetwork") != "":
		return ignored("Multus found clusterNetwork there")
	case key == "multusAutoconfigDir":
		t.find(ConfKeyChanged, finding.Warning, key, fmt.Sprintf("the default network's file is in %s, and plexusd looks in %s", host, defaultNetDir),
			"name the file in clusterNetwork, and mount its folder into the DaemonSet of plexusd at the same path")
	default:
		t.find(ConfKeyChanged, finding.Warning, key, fmt.Sprintf("the container runtime reads %s, and the DaemonSet of plexusd mounts %s", host, defaultNetDir),
			"set the path of the volume conf in deploy/base/daemonset.yaml")
	}
	return ignored("a volume of the DaemonSet of plexusd replaces it")
}

func (t *translator) configFile(key string, raw json.RawMessage) outcome {
	switch file := t.text(key); {
	case file == "auto" || file == "":
		return ignored("plexusd always writes the configuration itself")
	case t.Conf == nil:
		t.find(ConfKeyChanged, finding.Warning, key, fmt.Sprintf("keys of the plugin are in the file %s of the daemon's container, which was not read", clip(string(raw))), "give that file, or its copy in "+defaultNetDir+", with --conf")
		return ignored("plexusd writes the configuration itself; the keys of that file were not read")
	}
	return ignored("plexusd writes the configuration itself; the keys of " + t.Conf.Path + " were read")
}

func (t *translator) metricsPort(key string, raw json.RawMessage) outcome {
	t.find(ConfKeyChanged, finding.Info, key, fmt.Sprintf("Multus serves metrics on port %s of all addresses; plexusd serves its own on 127.0.0.1:9652, under other names", clip(string(raw))), "add deploy/components/metrics, and have Prometheus scrape its Service")
	return ignored("see deploy/components/metrics")
}

// splitMend takes a message of one line apart: by the style of the house, what follows the last ": " outside of quotes and brackets
// is the fix. Keys of JSON that the fix shows do not count.
func splitMend(message string) (string, string) {
	depth, quoted, at := 0, false, -1
	for i := range len(message) {
		switch c := message[i]; {
		case c == '"' && (i == 0 || message[i-1] != '\\'):
			quoted = !quoted
		case quoted:
		case strings.IndexByte("({[", c) >= 0:
			depth++
		case strings.IndexByte(")}]", c) >= 0:
			depth--
		case c == ':' && depth == 0 && i+2 < len(message) && message[i+1] == ' ' && !strings.ContainsRune(`"{[`, rune(message[i+2])):
			at = i
		}
	}
	if at < 0 || !strings.Contains(message[:at], " ") {
		return message, "" // a word alone says nothing: it is what the rest is about
	}
	return message[:at], message[at+2:]
}

// clip shortens a value for a message.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
