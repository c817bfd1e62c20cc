// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"github.com/plexus-cni/plexus/internal/config"
)

// IsMesh reports whether plugins of a type put themselves behind the plugins of the lexically first configuration, and again when they
// are not there any more: the CNI plugins of service meshes, which descend from istio-cni's installer. istio-cni takes the first file
// (unless cni.cniConfFileName names one), linkerd-cni every file of the folder.
func IsMesh(pluginType string) bool {
	switch pluginType {
	case "linkerd-cni", "kuma-cni", "consul-cni":
		return true
	}
	return pluginType == "istio-cni" || strings.HasPrefix(pluginType, "istio-cni-") // one for each revision
}

// written is a generated configuration as it is in the folder.
type written struct {
	data []byte
	// mesh are the plugins of service meshes that others have put behind ours, strangers the types of all other plugins.
	mesh      []json.RawMessage
	strangers []string
}

// meshTypes are the types of the mesh plugins.
func (w written) meshTypes() []string {
	var types []string
	for _, p := range w.mesh {
		types = append(types, typeOf(p))
	}
	return types
}

func typeOf(plugin json.RawMessage) string {
	var p struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(plugin, &p) // what has no type is a stranger
	return p.Type
}

// readWritten reads what is in the place of the generated configuration. What can not be read as one has nothing in it to keep.
func readWritten(path string) (written, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return written{}, nil
	}
	if err != nil {
		return written{}, denied(path, fmt.Errorf("read %s: %w", ConfName, err))
	}
	w := written{data: data}
	var list struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if json.Unmarshal(data, &list) != nil || len(list.Plugins) == 0 || typeOf(list.Plugins[0]) != config.PluginType {
		return w, nil
	}
	for _, p := range list.Plugins[1:] {
		if t := typeOf(p); IsMesh(t) {
			w.mesh = append(w.mesh, p)
		} else {
			w.strangers = append(w.strangers, t)
		}
	}
	return w, nil
}

// sameJSON reports whether two documents say the same, in whatever form: programs that put a plugin into ours write it anew in theirs,
// and take any other form for a change.
func sameJSON(a, b []byte) bool {
	var left, right any
	return json.Unmarshal(a, &left) == nil && json.Unmarshal(b, &right) == nil && reflect.DeepEqual(left, right)
}
