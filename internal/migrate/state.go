// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/legacy"
)

// State is what the old plugin left on this node.
type State struct {
	// Dir is its folder, without the root.
	Dir string `json:"dir"`
	// Sandboxes and Attachments are taken down by Plexus, when their pods end.
	Sandboxes   int `json:"sandboxes"`
	Attachments int `json:"attachments"`
	// Unreadable are the containers whose state cannot be used.
	Unreadable []string `json:"unreadable,omitempty"`
}

// ReadState reads the old plugin's state in dir under root, as a DEL of Plexus will.
func ReadState(root, dir string) (State, []finding.Finding) {
	s := State{Dir: dir}
	ids, err := legacy.Containers(rooted(root, dir))
	if err != nil {
		return s, []finding.Finding{{
			Code: StateUnreadable, Severity: finding.Error, Object: "state " + dir, Text: err.Error(), Mend: "run as root, and make it a folder",
		}}
	}
	var findings []finding.Finding
	for _, id := range ids {
		// The interface of the default network is eth0 with every runtime; it only names what the state has no name for.
		plan, err := legacy.Load(rooted(root, dir), delegate.Sandbox{ContainerID: id, IfName: "eth0"})
		switch {
		case err != nil:
			s.Unreadable = append(s.Unreadable, id)
			findings = append(findings, finding.Finding{
				Code: StateUnreadable, Severity: finding.Warning, Object: "container " + id, Field: dir,
				Text: fmt.Sprintf("its state cannot be used, so its DEL fails: %v", err), Mend: "drain the node before you remove Multus, or remove the file once you know that what the container had is free",
			})
		case plan != nil:
			s.Sandboxes++
			s.Attachments += len(plan.Attachments)
		}
	}
	return s, findings
}
