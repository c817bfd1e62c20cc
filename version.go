// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package plexus knows which release of the module this is. All programs report it.
package plexus

import (
	_ "embed" // VERSION
	"runtime/debug"
	"strings"
)

//go:embed VERSION
var release string

// Release is the content of the file VERSION: a semantic version, "0.1.0" for example, or "0.2.0-dev" between two releases.
func Release() string { return strings.TrimSpace(release) }

// Version is the release and, where the Go tool recorded it, the commit that the program was built from as build metadata (SemVer
// 2.0.0 §10): "0.1.0+7a218f7c2d5d". Uncommitted changes add ".dirty".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Release()
	}
	return withCommit(Release(), info.Settings)
}

func withCommit(version string, settings []debug.BuildSetting) string {
	vcs := map[string]string{}
	for _, s := range settings {
		vcs[s.Key] = s.Value
	}
	const short = 12
	commit := vcs["vcs.revision"]
	if len(commit) < short {
		return version
	}
	version += "+" + commit[:short]
	if vcs["vcs.modified"] == "true" {
		version += ".dirty"
	}
	return version
}
