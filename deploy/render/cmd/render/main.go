// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command render writes the manifests of Plexus as one file, as `kubectl kustomize` or `helm template` render them.
//
//	render -image registry.example/plexus:1.0.0 -components metrics,dra > install.yaml
//	render -chart -set distribution=k3s -set metrics.enabled=true
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"helm.sh/helm/v3/pkg/strvals"

	"github.com/plexus-cni/plexus/deploy/render"
)

func main() {
	if err := run(os.Args[0], os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	deploy := flags.String("deploy", "..", "folder of the manifests")
	chart := flags.Bool("chart", false, "render the chart, and not the kustomizations")
	namespace := flags.String("namespace", "plexus-system", "namespace of what has one")
	image := flags.String("image", "", "image with its tag; empty for the manifests' own")
	components := flags.String("components", "", "components of the kustomization, separated by commas")
	values := map[string]any{}
	flags.Func("set", "a value of the chart, as helm's --set takes it; as often as needed", func(s string) error { return strvals.ParseInto(s, values) })
	if err := flags.Parse(args); err != nil {
		return err
	}
	var out []byte
	var err error
	if *chart {
		out, err = render.Helm(*deploy+"/chart", *namespace, values)
	} else {
		o := render.Overlay{Namespace: *namespace, Image: *image}
		if *components != "" {
			o.Components = strings.Split(*components, ",")
		}
		out, err = render.Kustomize(*deploy, o)
	}
	if err == nil {
		_, err = os.Stdout.Write(out)
	}
	return err
}
