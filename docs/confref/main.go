// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command confref writes docs/configuration.md of the code: keys, types, defaults and meanings are those of the structs that the
// configurations are parsed into, and of the flags as plexusd declares them. So the page can not differ from the programs.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
)

//go:generate go run . -root ../.. -o ../configuration.md

func main() {
	root := flag.String("root", ".", "the module's `FOLDER`")
	out := flag.String("o", "docs/configuration.md", "the `FILE` to write")
	flag.Parse()
	if err := run(*root, *out); err != nil {
		log.Fatal("confref: ", err)
	}
}

func run(root, out string) error {
	r, err := read(root)
	if err != nil {
		return err
	}
	page, err := render(r)
	if err != nil {
		return err
	}
	if err = os.WriteFile(out, page, 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// read finds all that the page has in the sources of the module.
func read(root string) (*reference, error) {
	config, err := parseFolder(root, "internal/config")
	if err != nil {
		return nil, err
	}
	sriov, err := parseFolder(root, "sriov")
	if err != nil {
		return nil, err
	}
	kube, err := parseFolder(root, "internal/kube")
	if err != nil {
		return nil, err
	}
	annotations, err := parseFolder(root, "annotations")
	if err != nil {
		return nil, err
	}
	plexusd, err := parseFolder(root, "cmd/plexusd")
	if err != nil {
		return nil, err
	}
	var r reference
	if r.Plexus, err = config.keys("document"); err != nil {
		return nil, err
	}
	if r.SRIOV, err = sriov.keys("rawConfig"); err != nil {
		return nil, err
	}
	if r.Annotations, err = annotations.annotationKeys(); err != nil {
		return nil, err
	}
	r.Flags, err = plexusd.flags(config, kube)
	return &r, err
}
