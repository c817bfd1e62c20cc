// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"pault.ag/go/debian/version"
)

// Names of the packages of one kernel. What a release is called differs among the releases of Debian: "6.1.0-56-amd64",
// "6.12.117+deb12-amd64".
const (
	imagePrefix   = "linux-image-"
	headersPrefix = "linux-headers-"
	kbuildPrefix  = "linux-kbuild-"
	sourcePrefix  = "linux-source-"
	metaImage     = imagePrefix + architecture
)

// kernelSet is a kernel and the packages that a module for it is built from.
type kernelSet struct {
	release string // As of uname -r: "6.1.0-56-amd64".
	series  string // "6.1".
	version version.Version
	image   *debPackage // Nil if the archives lack it.
	headers *debPackage
	common  *debPackage
	kbuild  *debPackage
	source  *debPackage
	missing []string // What the archives lack, if the set is not whole.
}

func (k kernelSet) String() string { return fmt.Sprintf("%s%s %s", imagePrefix, k.release, k.version) }

// packages are all of a set that is whole, each "name version".
func (k kernelSet) packages() []string {
	var all []string
	for _, p := range []*debPackage{k.image, k.headers, k.common, k.kbuild, k.source} {
		all = append(all, p.name+" "+p.version.String())
	}
	return all
}

// sources are the packages that a module is built from.
func (k kernelSet) sources() []string {
	return []string{k.headers.String(), k.common.String(), k.kbuild.String(), k.source.String()}
}

// kernelSets lists the kernels of the archives, those to take first coming first: the series of the release's own kernel goes
// before others, and the newest of a series first.
//
// Images are signed after they are built, so the archives have an image days after the packages that come from the same source, and
// of some of these they keep only the newest version. Whether packages fit together is what their dependencies say: linux-kbuild of
// a later version fits the headers of an earlier one.
func kernelSets(a archive) []kernelSet {
	var sets []kernelSet
	seen := map[string]bool{}
	for name, versions := range a {
		for _, prefix := range []string{imagePrefix, headersPrefix} {
			release, ok := strings.CutPrefix(name, prefix)
			if !ok || !isKernelRelease(release) {
				continue
			}
			for _, p := range versions {
				key := release + "=" + p.version.String()
				if !seen[key] {
					seen[key] = true
					sets = append(sets, a.kernelSet(release, p.version))
				}
			}
		}
	}
	own := a.ownSeries()
	slices.SortFunc(sets, func(x, y kernelSet) int {
		if x, y := x.series == own, y.series == own; x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Or(version.Compare(y.version, x.version), cmp.Compare(x.release, y.release))
	})
	return sets
}

// isKernelRelease tells the release of a kernel for any PC from that of a special one, as for clouds, and from a series: "6.12-amd64".
func isKernelRelease(release string) bool {
	return regexp.MustCompile(`^\d+\.\d+\.[^-]+(-\d+)?-` + architecture + `$`).MatchString(release)
}

// ownSeries is the series of the release's own kernel: security updates and backports only add newer ones.
func (a archive) ownSeries() string {
	meta := a[metaImage]
	if len(meta) == 0 {
		return ""
	}
	oldest := slices.MinFunc(meta, func(x, y debPackage) int { return version.Compare(x.version, y.version) })
	return series(oldest.version)
}

// series is "6.1" of 6.1.192-2.
func series(v version.Version) string { return regexp.MustCompile(`^\d+\.\d+`).FindString(v.Version) }

func (a archive) kernelSet(release string, v version.Version) kernelSet {
	k := kernelSet{release: release, series: series(v), version: v}
	need := func(name string) *debPackage {
		p := a.find(name, v)
		if p == nil {
			k.missing = append(k.missing, fmt.Sprintf("%s (= %s)", name, v))
		}
		return p
	}
	k.image, k.headers, k.source = need(imagePrefix+release), need(headersPrefix+release), need(sourcePrefix+k.series)
	if k.headers == nil {
		return k
	}
	needed := func(prefix string) *debPackage {
		relations := k.headers.dependsOn(prefix)
		if len(relations) == 0 {
			k.missing = append(k.missing, fmt.Sprintf("%s… among what %s depends on", prefix, k.headers.name))
			return nil
		}
		p := a.satisfy(relations[0])
		if p == nil {
			k.missing = append(k.missing, relation(relations[0]))
		}
		return p
	}
	k.common, k.kbuild = needed(headersPrefix), needed(kbuildPrefix)
	return k
}
