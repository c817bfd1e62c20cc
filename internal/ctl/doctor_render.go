// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"github.com/plexus-cni/plexus/internal/doctor"
	"github.com/plexus-cni/plexus/internal/finding"
)

// doctorKinds are all that the doctor can find.
func doctorKinds() []finding.Kind {
	var kinds []finding.Kind
	for _, c := range doctor.Codes() {
		kinds = append(kinds, finding.Kind(c))
	}
	return kinds
}

// findingsVerdict is an error when one of the findings is as bad as the threshold.
func findingsVerdict(findings finding.List, threshold finding.Severity) error {
	if !findings.Fails(threshold) {
		return nil
	}
	return &verdictError{"something is wrong: " + findings.Summary()}
}
