// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// schedule is all that one run does, made from its seed alone.
type schedule struct {
	seed uint64
	// real: with the reference plugins, and not with fabric.
	real bool
	// source is where Plexus learns the pods' networks from.
	source string
	// child: fabric leaves addresses to a child.
	child bool
	// lockTimeout is Plexus' patience with other calls; zero for the product's own.
	lockTimeout time.Duration
	sandboxes   []sandboxPlan
	gcs         []gcPlan
	// daemonKills are moments, in calls.
	daemonKills []float64
	// reboot ends the run with a new boot, later with ADDs of other sandboxes, some time after: those undo what nobody asks for any more.
	reboot, later bool
}

// Sources of cluster knowledge.
const (
	fromManifests = "manifests"
	fromDaemon    = "daemon"
	fromNowhere   = "" // the networks are in the configuration
)

// sandboxPlan is one pod's sandbox, and what is done to it.
type sandboxPlan struct {
	name     string
	networks []string
	calls    []callPlan
	// second: it is another interface, eth1, of the container before it, as runtimes make that attach one to several configurations.
	second bool
	// forgotten: its runtime crashed, and never asks for DEL.
	forgotten bool
	// netnsFirst: the namespace goes before the DEL, or GC.
	netnsFirst bool
	// refusals are calls that one of its plugins refuses, each time.
	refusals []faultPlan
	// outlasted: a refusal of the DEL lasts longer than the sandbox. Plexus lets that go after some minutes, and a later call undoes the rest.
	outlasted bool
}

// callPlan is one call of the plugin.
type callPlan struct {
	verb string
	// after is the pause before it, in calls.
	after float64
	// overlap: it does not wait for the end of the one before.
	overlap bool
	kill    victim
	// at is the moment of the kill, in calls; step is the number of the step.
	at   float64
	step int
	// fault happens to one of fabric's calls, for a network's interface.
	fault *faultPlan
}

// victim is who is killed.
type victim string

const (
	nobody     victim = ""
	atStep     victim = "plexus at a step"
	plexus     victim = "plexus"
	delegate   victim = "plugin"
	ipam       victim = "IPAM plugin"
	everything victim = "plexus and its plugins"
	// told is a plexus that gets SIGTERM, and undoes what it has begun.
	told victim = "plexus, told to stop"
)

// gcPlan is a GC at a moment, in calls.
type gcPlan struct {
	at   float64
	call callPlan
}

// faultPlan is what happens within fabric, in one of its worlds: "<phase> <what>" to the verb of an interface.
type faultPlan struct{ dir, ifName, verb, text string }

// newSchedule makes the schedule of a seed.
func newSchedule(seed uint64) *schedule {
	r := rand.New(rand.NewPCG(seed, 0))
	s := &schedule{seed: seed, real: r.IntN(8) == 0, child: r.IntN(3) == 0}
	s.source = pick(r, fromManifests, fromManifests, fromDaemon, fromNowhere)
	if r.IntN(4) == 0 {
		s.lockTimeout = time.Duration(50+r.IntN(400)) * time.Millisecond
	}
	switch r.IntN(8) {
	case 0:
		s.reboot = true
	case 1, 2:
		s.later = !s.real // without their namespace, reference plugins find not all that they made
	}
	for i := range 1 + min(r.IntN(4), r.IntN(4)) {
		s.sandboxes = append(s.sandboxes, s.newSandbox(r, fmt.Sprintf("p%d", i)))
	}
	if slices.ContainsFunc(s.sandboxes, func(p sandboxPlan) bool { return p.forgotten && p.refusals != nil }) {
		s.later = !s.reboot
	}
	// The plugins of the node's port mappings know a container, and none of its interfaces.
	if !s.real && r.IntN(3) == 0 {
		s.addSecond(r)
	}
	if r.IntN(3) == 0 {
		for _, at := range moments(r, 1+r.IntN(2)) {
			kill := pick(r, nobody, nobody, atStep, plexus, everything)
			s.gcs = append(s.gcs, gcPlan{at: at, call: callPlan{verb: "GC", kill: kill, step: r.IntN(4), at: r.Float64()}})
		}
	}
	if s.source == fromDaemon && r.IntN(2) == 0 {
		s.daemonKills = moments(r, 1+r.IntN(2))
	}
	return s
}

func (s *schedule) newSandbox(r *rand.Rand, name string) sandboxPlan {
	networks := []string{"fab0", "fab1", "fab2", "fab0", "fab3"}
	if s.real {
		networks = []string{"lan", "wan", "p2p", "tag", "ipv", "dum", "wan"} // bandwidth can not be in a sandbox twice under one name
	}
	r.Shuffle(len(networks), func(i, j int) { networks[i], networks[j] = networks[j], networks[i] })
	p := sandboxPlan{
		name: name, networks: networks[:r.IntN(min(4, len(networks)))],
		forgotten: r.IntN(4) == 0, netnsFirst: r.IntN(4) == 0,
	}
	p.calls = append(p.calls, s.newCall(r, &p, "ADD"))
	for range r.IntN(4) {
		p.calls = append(p.calls, s.newCall(r, &p, pick(r, "ADD", "DEL", "DEL", "CHECK")))
	}
	// What bridge masquerades, and what tuning has to set back, both find out from the interface: without it, because the namespace is
	// gone or an earlier DEL was killed halfway, they leave firewall rules and a file in /run.
	if s.real && !p.netnsFirst && !s.partial(&p) && r.IntN(2) == 0 {
		p.networks = append(p.networks, "masq")
	}
	if !s.real && r.IntN(4) == 0 {
		p.refuse(r)
	}
	return p
}

// refuse has a plugin of the sandbox refuse ADD, DEL or both, and nothing else happen to its plugins. What a plugin made before it refused
// the ADD would be its own affair if it refused the DEL too: it has made nothing then.
func (p *sandboxPlan) refuse(r *rand.Rand) {
	for i := range p.calls {
		p.calls[i].fault = nil
	}
	at := p.place(r)
	add, del := at, at
	add.verb, add.text = "ADD", pick(r, "begin", "leased", "linked")+" refuse"
	del.verb, del.text = "DEL", pick(r, "begin", "released")+" refuse"
	switch r.IntN(3) {
	case 0:
		p.refusals = []faultPlan{add}
		return
	case 1:
		p.refusals = []faultPlan{del}
	default:
		add.text = "begin refuse"
		p.refusals = []faultPlan{add, del}
	}
	p.outlasted = r.IntN(2) == 0
	p.forgotten = p.forgotten || r.IntN(2) == 0
}

// place chooses a plugin of fabric: one of a network's list.
func (p *sandboxPlan) place(r *rand.Rand) faultPlan {
	i := r.IntN(len(p.networks) + 1)
	if i == 0 {
		return faultPlan{dir: "fabric", ifName: "eth0"}
	}
	return faultPlan{dir: pick(r, worldsOf(p.networks[i-1])...), ifName: fmt.Sprintf("net%d", i)}
}

// worldsOf are the folders of fabric that the plugins of a network's list have, in order.
func worldsOf(network string) []string {
	switch network {
	case "fab1":
		return []string{"fabric", "fabric2"}
	case "fab3":
		return []string{"fabric", "fabric2", "fabric3"}
	}
	return []string{"fabric"}
}

// addSecond adds another interface to the last sandbox. Its namespace stays until both have ended.
func (s *schedule) addSecond(r *rand.Rand) {
	first := &s.sandboxes[len(s.sandboxes)-1]
	first.netnsFirst = false
	p := s.newSandbox(r, first.name+"-second")
	p.networks, p.second, p.netnsFirst = nil, true, false
	for _, c := range p.calls {
		if c.fault != nil {
			c.fault.dir, c.fault.ifName = "fabric", "eth1"
		}
	}
	for i := range p.refusals {
		p.refusals[i].dir, p.refusals[i].ifName = "fabric", "eth1"
	}
	s.sandboxes = append(s.sandboxes, p)
}

func (s *schedule) newCall(r *rand.Rand, p *sandboxPlan, verb string) callPlan {
	c := callPlan{verb: verb, overlap: r.IntN(3) == 0}
	if r.IntN(2) == 0 {
		c.after = r.Float64()
	}
	switch r.IntN(10) {
	case 0, 1, 2:
		c.kill, c.step = atStep, r.IntN(6+2*len(p.networks))
	case 3, 4:
		c.kill = plexus
	case 5:
		c.kill = delegate
	case 6:
		c.kill = ipam
	case 7:
		c.kill = everything
	case 8:
		c.kill = told
	}
	c.at = 1.1 * r.Float64()
	if !s.real && r.IntN(4) == 0 {
		c.fault = s.newFault(r, p)
	}
	return c
}

func (s *schedule) newFault(r *rand.Rand, p *sandboxPlan) *faultPlan {
	f := p.place(r)
	f.verb = pick(r, "ADD", "DEL")
	what := pick(r, "kill", "kill", "kill", "fail")
	if s.hangs() && r.IntN(4) == 0 {
		what = "hang"
	}
	phase := pick(r, "begin", "lease", "leased", "linked", "printed")
	if f.verb == "DEL" {
		phase = pick(r, "begin", "release", "released", "unlinked")
	}
	f.text = phase + " " + what
	return &f
}

// hangs reports whether a plugin may hang, until Plexus or the next call has had enough of it.
func (s *schedule) hangs() bool { return s.lockTimeout > 0 && !s.real }

// partial reports whether a plugin may have been killed halfway in a sandbox.
func (s *schedule) partial(p *sandboxPlan) bool {
	for _, c := range p.calls {
		// Plexus that is told to stop tells its plugin.
		if c.kill == delegate || c.kill == ipam || c.kill == everything || c.kill == told || c.fault != nil {
			return true
		}
	}
	return s.lockTimeout > 0 // Plexus may kill what a killed call left behind
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func moments(r *rand.Rand, n int) []float64 {
	var all []float64
	for range n {
		all = append(all, 3*r.Float64())
	}
	return all
}
