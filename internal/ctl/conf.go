// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/nad"
)

// confName is the CNI configuration that a folder of manifests may bring along.
const confName = "plexus.conflist"

// loadConf reads the CNI configuration and makes it one for the manifests in dir.
func loadConf(given, dir, stateDir string) ([]byte, error) {
	file, data, err := readConf(given, dir)
	if err != nil {
		return nil, err
	}
	conf, err := prepareConf(data, dir, stateDir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return conf, nil
}

// readConf reads the first configuration that is there: the given one and no other, or that of the folder, or the node's.
func readConf(given, dir string) (string, []byte, error) {
	files := []string{filepath.Join(dir, confName), defaultConf}
	if given != "" {
		files = []string{given}
	}
	for _, file := range files {
		data, err := bounded.ReadFile(file, config.MaxBytes)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return file, data, err
		}
	}
	if given != "" {
		return "", nil, fmt.Errorf("no CNI configuration %s: correct --conf", given)
	}
	return "", nil, fmt.Errorf("no CNI configuration, neither %s nor %s: write one, or name one with --conf, for example examples/business-and-mgmt/%s", files[0], files[1], confName)
}

// prepareConf lets Plexus take pods and networks from dir, and from nowhere else. stateDir becomes the place of its records.
func prepareConf(data []byte, dir, stateDir string) ([]byte, error) {
	list, err := nad.Normalize(data, nad.Defaults{})
	if err != nil {
		return nil, err
	}
	found := false
	list, err = list.EditPlugins(func(plugin map[string]json.RawMessage) error {
		var pluginType string
		if e := json.Unmarshal(plugin["type"], &pluginType); e != nil || pluginType != config.PluginType {
			return e
		}
		found = true
		return redirect(plugin, dir, stateDir)
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("no plugin of type %q in it: name a CNI configuration that has one with --conf", config.PluginType)
	}
	return list.Bytes(), nil
}

func redirect(plugin map[string]json.RawMessage, dir, stateDir string) error {
	// These sources would come first.
	delete(plugin, "daemonSocketDir")
	delete(plugin, "kubeconfig")
	if err := set(plugin, "cniDir", stateDir); err != nil {
		return err
	}
	return set(plugin, "manifestDir", dir)
}

func set(plugin map[string]json.RawMessage, key, value string) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	plugin[key] = raw
	return nil
}
