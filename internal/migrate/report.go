// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/plexus-cni/plexus/internal/finding"
)

// Report is all that there is to tell.
type Report struct {
	Target Target `json:"target"`
	// Read are the files that the configuration was read from.
	Read []string `json:"read"`
	// Configuration is for key plugin.json of ConfigMap plexus, or the configuration list; absent if there is no equal.
	Configuration json.RawMessage `json:"configuration,omitempty"`
	Keys          []Key           `json:"keys"`
	Changes       []Change        `json:"changes"`
	// Examined counts pods and networks; nil if none were given.
	Examined *Counts      `json:"examined,omitempty"`
	State    State        `json:"state"`
	Findings finding.List `json:"findings"`
	// Steps are what to do next, in order.
	Steps []string `json:"steps"`
}

// NewReport puts together what became of in. objects may be nil for none.
func NewReport(in Input, objects *Objects) (*Report, error) {
	tr, err := Translate(in)
	if err != nil {
		return nil, err
	}
	r := &Report{Target: in.Target, Configuration: tr.Configuration, Keys: tr.Keys, Changes: tr.Changes, Findings: tr.Findings}
	for _, f := range []*File{in.Conf, in.Daemon} {
		if f != nil {
			r.Read = append(r.Read, f.Path)
		}
	}
	if objects != nil {
		findings, counts := Examine(tr, in.Root, objects)
		r.Findings, r.Examined = append(r.Findings, findings...), &counts
	}
	r.Changes = append(r.Changes, pluginChanges(tr, objects)...)
	state, findings := ReadState(in.Root, tr.StateDir)
	r.State, r.Findings = state, append(r.Findings, findings...)
	r.Steps = r.steps(in)
	return r, nil
}

// steps are those of MIGRATION.md, as far as they have to be taken here.
func (r *Report) steps(in Input) []string {
	var steps []string
	if n := r.Findings.Count(finding.Error); n > 0 {
		steps = append(steps, fmt.Sprintf("fix what is refused (%s), and run plexusctl migrate again", finding.Numbered(n, "error")))
	}
	if r.Configuration == nil {
		return steps
	}
	if r.Examined == nil && r.Target == Kubernetes {
		steps = append(steps, "check pods and networks: kubectl get network-attachment-definitions,pods -A -o json | plexusctl migrate -f -")
	}
	old := "00-multus.conf in " + defaultNetDir
	if in.Conf != nil && filepath.Dir(in.Conf.Path) == filepath.Clean(rooted(in.Root, defaultNetDir)) {
		old = filepath.Join(defaultNetDir, filepath.Base(in.Conf.Path)) // of a copy the name says nothing
	}
	if r.Target == Plain {
		steps = append(steps,
			"install the programs: make install",
			"write the configuration to "+defaultNetDir+"/00-plexus.conflist, and remove "+old)
	} else {
		steps = append(steps, "kubectl apply -k deploy/base, with an image that the nodes can pull")
		if string(r.Configuration) != "{}" {
			steps = append(steps,
				"plexusctl migrate --write --out plexus.yaml; kubectl apply -f plexus.yaml; kubectl -n plexus-system rollout restart daemonset/plexusd")
		}
		step := "delete the DaemonSet of Multus, and on each node " + old
		if in.Daemon != nil {
			step += "; do so soon: where Multus' daemon looks for the default network by itself, it takes 00-plexus.conflist for it when it restarts"
		}
		steps = append(steps, step)
	}
	if r.State.Sandboxes > 0 {
		steps = append(steps, fmt.Sprintf("keep %s: Plexus detaches %d sandboxes by it, each when its pod ends", r.State.Dir, r.State.Sandboxes))
	}
	return steps
}
