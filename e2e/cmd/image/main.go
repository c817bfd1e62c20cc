// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command image makes a container image of files, without Docker and without a network.
//
//	image -o plexus.tar -ref example.org/plexus:1 -platforms linux/amd64,linux/arm64 -entrypoint /plexusd bin/{arch}/plexusd=/plexusd
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/plexus-cni/plexus/e2e/image"
)

func main() {
	if err := run(os.Args[0], os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	output := flags.String("o", "", "archive to write, in the format of an OCI image layout")
	reference := flags.String("ref", "", "name and tag of the image")
	platforms := flags.String("platforms", "linux/amd64", "platforms, separated by commas; {arch} in a file's path stands for each one's architecture")
	entrypoint := flags.String("entrypoint", "", "program to start, with its arguments, separated by commas")
	user := flags.String("user", "", "user and group to run as, by number: 65532:65532")
	created := flags.Int64("created", 0, "when the image was made, in seconds since 1970")
	labels := map[string]string{}
	flags.Func("label", "KEY=VALUE, a label of the image and an annotation of its manifests; as often as needed", func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("must be KEY=VALUE")
		}
		labels[key] = value
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *output == "" || *reference == "" {
		return errors.New("-o and -ref must be given")
	}
	spec := image.Spec{Reference: *reference, User: *user, Files: map[string]string{}, Labels: labels}
	if *created > 0 {
		spec.Created = time.Unix(*created, 0).UTC()
	}
	for platform := range strings.SplitSeq(*platforms, ",") {
		parsed, err := v1.ParsePlatform(platform)
		if err != nil {
			return err
		}
		spec.Platforms = append(spec.Platforms, *parsed)
	}
	if *entrypoint != "" {
		spec.Entrypoint = strings.Split(*entrypoint, ",")
	}
	for _, arg := range flags.Args() {
		from, to, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("argument %q: must be FILE=PATH-IN-THE-IMAGE", arg)
		}
		spec.Files[to] = from
	}
	return image.Write(*output, spec)
}
