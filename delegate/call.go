// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/nad"
)

// Marker is the name of an environment variable that every delegate gets. Plexus refuses to run where it is set: Plexus within Plexus
// would run what a network's author wrote as if the operator had.
const Marker = "PLEXUS_DELEGATE"

// CNI's parameters (CNI 1.1.0 §2).
const (
	envCommand     = "CNI_COMMAND"
	envContainerID = "CNI_CONTAINERID"
	envNetNS       = "CNI_NETNS"
	envIfName      = "CNI_IFNAME"
	envArgs        = "CNI_ARGS"
	envPath        = "CNI_PATH"
)

// plugin is one plugin of a list, with what Plexus has to know of its configuration.
type plugin struct {
	name         string // its type
	capabilities map[string]bool
	// program is set when its configuration wants the program, not what Plexus has built in ("builtin": false).
	program bool
	// ipam is the type of its IPAM plugin, "" for none.
	ipam string
	conf map[string]json.RawMessage
}

// pluginsOf reads the plugins of a list.
func pluginsOf(l *nad.List) ([]plugin, error) {
	raw := l.Plugins()
	plugins := make([]plugin, 0, len(raw))
	for i, text := range raw {
		var known struct {
			Type         string          `json:"type"`
			Capabilities map[string]bool `json:"capabilities"`
			Builtin      any             `json:"builtin"`
			IPAM         struct {
				Type string `json:"type"`
			} `json:"ipam"`
		}
		conf, err := object(text)
		if err == nil {
			err = json.Unmarshal(text, &known)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: plugins[%d] of network %s: %w", nad.ErrInvalid, i, l.Name(), err)
		}
		plugins = append(plugins, plugin{
			name: known.Type, capabilities: known.Capabilities, program: known.Builtin == false, ipam: known.IPAM.Type, conf: conf,
		})
	}
	return plugins, nil
}

// config is what the plugin reads on stdin (CNI 1.1.0 §1, deriving execution configuration): its own configuration with the network's
// name and version, the capability arguments that it declares, and more keys.
func (p *plugin) config(l *nad.List, capabilityArgs, more map[string]json.RawMessage) ([]byte, error) {
	conf := maps.Clone(p.conf)
	for key, value := range map[string]string{"name": l.Name(), "cniVersion": l.CNIVersion()} {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		conf[key] = raw
	}
	granted := map[string]json.RawMessage{}
	for capability, declared := range p.capabilities {
		if value, ok := capabilityArgs[capability]; ok && declared {
			granted[capability] = value
		}
	}
	if len(granted) > 0 {
		raw, err := json.Marshal(granted)
		if err != nil {
			return nil, err
		}
		conf["runtimeConfig"] = raw
	}
	maps.Copy(conf, more)
	return json.Marshal(conf)
}

// environ is what a plugin gets of the environment: that of Plexus, and CNI's parameters.
func (e *Executor) environ(command string, s Sandbox, ifName string, args [][2]string) []string {
	// What a runtime meant for Plexus is not for its delegates. Other keys are handed on, as CNI_NETNS_OVERRIDE.
	environ := slices.DeleteFunc(slices.Clone(e.Environ), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{envCommand, envContainerID, envNetNS, envIfName, envArgs, envPath}, key)
	})
	pairs := make([]string, 0, len(args))
	for _, kv := range args {
		pairs = append(pairs, kv[0]+"="+kv[1])
	}
	return append(environ, Marker+"=1", envCommand+"="+command, envContainerID+"="+s.ContainerID, envNetNS+"="+s.NetNS,
		envIfName+"="+ifName, envArgs+"="+strings.Join(pairs, ";"), envPath+"="+strings.Join(e.BinDirs, ":"))
}
