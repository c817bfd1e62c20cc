// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/nad"
)

// Plugin types of Multus: the plugin that does the work, and the one that hands it to a daemon.
const (
	typeThin  = "multus"
	typeThick = "multus-shim"
)

// File is a configuration of Multus, taken apart.
type File struct {
	// Path is where it was read, for messages.
	Path string
	// Type is the plugin type; "" for the daemon's configuration.
	Type string
	// Keys are those of the plugin or daemon, known ones in their documented spelling.
	Keys map[string]json.RawMessage
	// List are the keys of the list that the plugin stands in, and Before and After its other plugins; nil for a bare plugin.
	List          map[string]json.RawMessage
	Before, After []json.RawMessage
}

// ParseConf reads the configuration that the container runtime has for Multus: a plugin (00-multus.conf), a list with one, or a ConfigMap
// that has either under one of its keys. Errors match [ErrInvalid].
func ParseConf(path string, data []byte) (*File, error) {
	top, err := parseTop(path, data, "cni-conf.json")
	if err != nil {
		return nil, err
	}
	if _, ok := top["plugins"]; !ok {
		f, err := newFile(path, top)
		if err != nil {
			return nil, err
		}
		return f, f.setType()
	}
	var plugins []json.RawMessage
	if err := json.Unmarshal(top["plugins"], &plugins); err != nil {
		return nil, fmt.Errorf("%w: %s: plugins is not a list: correct it", ErrInvalid, path)
	}
	return fromList(path, top, plugins)
}

// fromList finds the one plugin of Multus in a list.
func fromList(path string, top map[string]json.RawMessage, plugins []json.RawMessage) (*File, error) {
	delete(top, "plugins")
	var found *File
	var before, after []json.RawMessage
	for _, raw := range plugins {
		var plugin map[string]json.RawMessage
		if err := json.Unmarshal(raw, &plugin); err != nil || plugin == nil {
			return nil, fmt.Errorf("%w: %s: plugins has %.64q, which is not an object: correct it", ErrInvalid, path, raw)
		}
		f, err := newFile(path, plugin)
		if err != nil {
			return nil, err
		}
		switch isMultus := f.setType() == nil; {
		case isMultus && found != nil:
			return nil, fmt.Errorf("%w: %s: two plugins of Multus in one list: keep one", ErrInvalid, path)
		case isMultus:
			found = f
		case found == nil:
			before = append(before, raw)
		default:
			after = append(after, raw)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %s: none of its plugins is of type %q or %q: name the file that has one with --conf", ErrInvalid, path, typeThin, typeThick)
	}
	found.List, found.Before, found.After = top, before, after
	return found, nil
}

// setType refuses what is not of Multus.
func (f *File) setType() error {
	// What is no string is no type of Multus either.
	if err := json.Unmarshal(f.Keys["type"], &f.Type); err != nil || (f.Type != typeThin && f.Type != typeThick) {
		return fmt.Errorf("%w: %s: its type is not %q or %q: name the file that has one with --conf", ErrInvalid, f.Path, typeThin, typeThick)
	}
	return nil
}

// ParseDaemon reads the configuration of the thick plugin's daemon: daemon-config.json, or the ConfigMap that has it under that key.
// Errors match [ErrInvalid].
func ParseDaemon(path string, data []byte) (*File, error) {
	top, err := parseTop(path, data, daemonConfigName)
	if err != nil {
		return nil, err
	}
	if raw, ok := top["type"]; ok {
		return nil, fmt.Errorf("%w: %s: it has the type %.64s, so it is the plugin's and not the daemon's: name it with --conf", ErrInvalid, path, raw)
	}
	return newFile(path, top)
}

// parseTop reads a JSON object, or the one in a ConfigMap, which may be YAML.
func parseTop(path string, data []byte, key string) (map[string]json.RawMessage, error) {
	if len(data) > config.MaxBytes {
		return nil, fmt.Errorf("%w: %s: %d bytes, at most %d are accepted", ErrInvalid, path, len(data), config.MaxBytes)
	}
	var top map[string]json.RawMessage
	for doc, err := range manifest.Documents(data) {
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
		}
		if top != nil {
			return nil, fmt.Errorf("%w: %s: more than one document: keep one", ErrInvalid, path)
		}
		if err := json.Unmarshal(doc, &top); err != nil || top == nil {
			return nil, fmt.Errorf("%w: %s: not a JSON object: correct it", ErrInvalid, path)
		}
	}
	if top == nil {
		return nil, fmt.Errorf("%w: %s: it is empty", ErrInvalid, path)
	}
	if !bytes.Equal(top["kind"], []byte(`"ConfigMap"`)) {
		return top, nil
	}
	var values map[string]string
	if err := json.Unmarshal(top["data"], &values); err != nil || values[key] == "" {
		return nil, fmt.Errorf("%w: %s: a ConfigMap without key %q: name the one that has it", ErrInvalid, path, key)
	}
	top = nil
	if err := json.Unmarshal([]byte(values[key]), &top); err != nil || top == nil {
		return nil, fmt.Errorf("%w: %s: key %q is not a JSON object: correct it", ErrInvalid, path, key)
	}
	return top, nil
}

// newFile gives known keys their documented spelling: Multus reads them in any case.
func newFile(path string, top map[string]json.RawMessage) (*File, error) {
	f := &File{Path: path, Keys: map[string]json.RawMessage{}}
	for key, raw := range top {
		name := cmp.Or(documented(key), key)
		if _, twice := f.Keys[name]; twice {
			return nil, fmt.Errorf("%w: %s: key %q appears in two spellings: keep one", ErrInvalid, path, name)
		}
		f.Keys[name] = raw
	}
	return f, nil
}

// Found is what Find has found in the usual places.
type Found struct {
	// Conf and Daemon are nil for what is not there.
	Conf, Daemon *File
	// HasKubeconfig says that there is a kubeconfig of Multus, so that its node is one of Kubernetes.
	HasKubeconfig bool
}

// Find looks for an install of Multus in the usual places under root. Finding none is no error.
func Find(root string) (*Found, error) {
	found := &Found{}
	dir := rooted(root, defaultNetDir)
	entries, err := os.ReadDir(dir) // in the order in which runtimes read them
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find the configuration of Multus: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() || !nad.IsFile(entry.Name()) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		// What cannot be used, the runtime passes over, too.
		if f, e := readConf(path); e == nil {
			found.Conf = f
			break
		}
	}
	path := filepath.Join(dir, multusDir, daemonConfigName)
	data, err := bounded.ReadFile(path, config.MaxBytes)
	if err == nil {
		found.Daemon, err = ParseDaemon(path, data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(dir, multusDir, kubeconfigName))
	found.HasKubeconfig = err == nil
	return found, nil
}

func readConf(path string) (*File, error) {
	data, err := bounded.ReadFile(path, config.MaxBytes)
	if err != nil {
		return nil, err
	}
	return ParseConf(path, data)
}
