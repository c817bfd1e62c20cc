// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func TestDOT(t *testing.T) {
	t.Parallel()
	golden.Compare(t, "dot", DOT(drawn(t)))
}

func TestSVG(t *testing.T) {
	t.Parallel()
	golden.Compare(t, "svg", SVG(drawn(t)))
}

func TestSVGOfNothing(t *testing.T) {
	t.Parallel()
	checkSVG(t, SVG(nil))
}

// checkSVG sees to it that a drawing is well-formed, and that all of it is within its frame.
func checkSVG(t *testing.T, svg []byte) {
	t.Helper()
	number := func(e xml.StartElement, name string) int {
		at := slices.IndexFunc(e.Attr, func(a xml.Attr) bool { return a.Name.Local == name })
		if at < 0 {
			t.Fatalf("<%s> without %s", e.Name.Local, name)
		}
		n, err := strconv.Atoi(e.Attr[at].Value)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var width, height int
	dec := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, svg)
		}
		e, ok := token.(xml.StartElement)
		switch {
		case !ok:
		case e.Name.Local == "svg":
			width, height = number(e, "width"), number(e, "height")
		case e.Name.Local == "rect" && e.Attr[0].Value != "ground":
			if x, y := number(e, "x"), number(e, "y"); x < 0 || y < 0 || x+number(e, "width") > width || y+number(e, "height") > height {
				t.Errorf("a box at %d, %d leaves the drawing of %d x %d", x, y, width, height)
			}
		}
	}
}

func FuzzSVG(f *testing.F) {
	f.Add("shop", "web", "eth0", "cluster-default", "br0")
	f.Add("<", "\x00&", "]]>", "\xff", "\n\"")
	f.Fuzz(func(t *testing.T, namespace, name, ifName, network, hostLink string) {
		pods := []Pod{{Namespace: namespace, Name: name, State: Failed, Interfaces: []Interface{
			{Name: ifName, Network: network, HostLink: hostLink, State: Failed},
			{Name: name, Network: network, HostLink: ifName, State: Attached, Device: hostLink},
		}}}
		checkSVG(t, SVG(pods))
	})
}
