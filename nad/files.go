// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// FindFile returns the configuration in dir whose `name` is name: a ".conflist"
// before a ".conf" or ".json", then in lexical order; plugins that belong to a
// ".conflist" are appended as by [LoadPath]. A broken file of another or of no
// known name is skipped, with a warning that says why; a broken file of this name
// is an error, because a pod must not get something else in its place.
//
// The error is an [ErrNotFound] if there is none, or an [ErrInvalid].
func FindFile(dir, name string, d Defaults) (*List, []string, error) {
	if err := checkName(name); err != nil {
		return nil, nil, err
	}
	paths, err := listFiles(dir, IsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("find network %s: %w", quote(name), err)
	}
	slices.SortStableFunc(paths, func(a, b string) int {
		switch {
		case isConflist(a) == isConflist(b):
			return 0
		case isConflist(a):
			return -1
		default:
			return 1
		}
	})

	var warnings []string
	for _, path := range paths {
		conf, err := readObject(path)
		if err == nil {
			var found string
			if found, err = stringField(conf, "name"); err == nil && found != name {
				continue
			}
		}
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("skip %v", inFile(path, err)))
			continue
		}
		list, err := fromFile(path, conf, d)
		return list, warnings, err
	}
	return nil, warnings, fmt.Errorf(`network %s: %w: no .conflist, .conf or .json file in %s has this "name" (%d could not be read): add one, or correct the name`,
		quote(name), ErrNotFound, dir, len(warnings))
}

// LoadPath returns the configuration that clusterNetwork or defaultNetworks give as
// a path: of a directory the lexically first usable ".conflist", ".conf" or ".json"
// file; a ".conflist" file as a list; any other file as a bare plugin with `type`.
// Unless a ".conflist" has `loadOnlyInlinedPlugins`, all "*.conf" of the directory
// beside it that has the network's name are appended to its plugins, in lexical
// order (CNI 1.1.0 §1).
//
// ownType is the plugin type of Plexus itself, which a network cannot be made of: in
// a directory such files are passed over, and those of the loopback interface, which is
// nobody's pod network; a file of Plexus that is given by name is refused. Files in
// a directory that are not usable are skipped, each with a warning.
//
// The error is an [ErrNotFound] if there is no such file or none that is usable, or
// an [ErrInvalid].
func LoadPath(path, ownType string, d Defaults) (*List, []string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("path %s: %w: create it, or correct the path in the configuration", path, ErrNotFound)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read network configuration: %w", err)
	}
	if info.IsDir() {
		return firstUsable(path, ownType, d)
	}
	list, err := loadFile(path, d)
	if err != nil {
		return nil, nil, err
	}
	if list.Calls(ownType) {
		return nil, nil, inFile(path, invalidf("it is made of plugin %q, which would call itself for ever: name the file of the network itself", ownType))
	}
	return list, nil, nil
}

func firstUsable(dir, ownType string, d Defaults) (*List, []string, error) {
	paths, err := listFiles(dir, IsFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read network configurations: %w", err)
	}
	var warnings []string
	for _, path := range paths {
		list, err := loadFile(path, d)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("skip %v", err))
			continue
		}
		if !list.Calls(ownType) && !list.IsLoopback() {
			return list, warnings, nil
		}
	}
	return nil, warnings, fmt.Errorf("directory %s: %w: no usable .conflist, .conf or .json file of a network other than plugin %q (%d are not usable): install the cluster's network there",
		dir, ErrNotFound, ownType, len(warnings))
}

// AuxiliaryChain returns the list named chain of a first plugin of type "passthru"
// and of all "*.conf" in <dir>/<chain>, in lexical order. It returns nil if there
// are none. The error is an [ErrInvalid] if chain is no network name or if one of
// the files is not usable.
func AuxiliaryChain(dir, chain string, d Defaults) (*List, error) {
	if err := checkName(chain); err != nil {
		return nil, fmt.Errorf("auxiliaryCNIChainName: %w", err)
	}
	chained, err := chainedPlugins(dir, chain)
	if err != nil || len(chained) == 0 {
		return nil, err
	}
	top := map[string]json.RawMessage{}
	passThrough := json.RawMessage(`{"type":"passthru"}`)
	list, err := newList(top, append([]json.RawMessage{passThrough}, chained...), Defaults{Name: chain, CNIVersion: d.CNIVersion})
	if err == nil {
		err = list.refused
	}
	if err != nil {
		return nil, fmt.Errorf("auxiliary chain %s: %w", quote(chain), err)
	}
	return list, nil
}

func loadFile(path string, d Defaults) (*List, error) {
	conf, err := readObject(path)
	if err != nil {
		return nil, inFile(path, err)
	}
	return fromFile(path, conf, d)
}

// fromFile makes a list of the configuration in a file. Here the extension decides
// what it has to be, as for libcni.
func fromFile(path string, conf map[string]json.RawMessage, d Defaults) (*List, error) {
	var list *List
	var err error
	if isConflist(path) {
		list, err = fromListFile(filepath.Dir(path), conf, d)
	} else {
		list, err = fromPluginFile(conf, d)
	}
	if err == nil {
		err = list.refused
	}
	if err != nil {
		return nil, inFile(path, err)
	}
	return list, nil
}

func fromPluginFile(conf map[string]json.RawMessage, d Defaults) (*List, error) {
	pluginType, err := stringField(conf, "type")
	if err != nil {
		return nil, err
	}
	if pluginType == "" {
		return nil, invalidf(`no "type": add "type" with the name of a CNI plugin, or call the file .conflist if it has "plugins"`)
	}
	return fromPlugin(conf, d)
}

func fromListFile(dir string, conf map[string]json.RawMessage, d Defaults) (*List, error) {
	plugins, err := pluginsField(conf)
	if err != nil {
		return nil, err
	}
	inlineOnly, err := boolField(conf, "loadOnlyInlinedPlugins")
	if err != nil {
		return nil, err
	}
	if !inlineOnly {
		name, err := nameField(conf, d.Name)
		if err != nil {
			return nil, err
		}
		chained, err := chainedPlugins(dir, name)
		if err != nil {
			return nil, err
		}
		plugins = append(plugins, chained...)
	}
	// A list has no type. One that stays would make a bare plugin of it for the next
	// reader.
	delete(conf, "type")
	return newList(conf, plugins, d)
}

// chainedPlugins returns the plugins in <dir>/<network>/*.conf, none if there is no
// such directory. The caller has checked that network is a network name. One bad
// file fails all: a chain with a link left out may lack what protects the pod.
func chainedPlugins(dir, network string) ([]json.RawMessage, error) {
	paths, err := listFiles(filepath.Join(dir, network), func(name string) bool { return filepath.Ext(name) == ".conf" })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read chained plugins of network %s: %w", quote(network), err)
	}
	var plugins []json.RawMessage
	for _, path := range paths {
		conf, err := readObject(path)
		if err != nil {
			return nil, inFile(path, err)
		}
		raw, err := encode(conf)
		if err != nil {
			return nil, inFile(path, err)
		}
		if _, _, _, err := parsePlugin(raw); err != nil {
			return nil, inFile(path, err)
		}
		plugins = append(plugins, raw)
	}
	return plugins, nil
}

// IsFile reports whether a container runtime takes a file of that name for a network
// configuration: ".conflist", ".conf" or ".json".
func IsFile(name string) bool {
	return slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(name))
}

// listFiles returns the paths in dir whose names are taken, in lexical order,
// directories left out.
func listFiles(dir string, takes func(name string) bool) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range entries {
		if !entry.IsDir() && takes(entry.Name()) {
			paths = append(paths, filepath.Join(dir, entry.Name()))
		}
	}
	return paths, nil
}

func isConflist(path string) bool { return filepath.Ext(path) == ".conflist" }

func readObject(path string) (map[string]json.RawMessage, error) {
	// To open a FIFO would wait for its writer, so look first. Links are followed:
	// files of a mounted ConfigMap are links.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, invalidf("not a regular file but %s: put a file there", info.Mode().Type())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// One byte more than allowed shows that the file is too long.
	data, err := io.ReadAll(io.LimitReader(file, MaxConfigBytes+1))
	if err != nil {
		return nil, err
	}
	return parseObject(data)
}

func inFile(path string, err error) error {
	return fmt.Errorf("file %s: %w", path, err)
}
