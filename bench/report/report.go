// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package report is what the benchmark found out, as values, and shows it: as tables for a terminal and for a document.
package report

import (
	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/stats"
)

// Report is all that one run found out. Its JSON form is what -json writes.
type Report struct {
	Machine Machine `json:"machine"`
	// Date is the day of the run, in UTC, and Revision the commit that the measured plugin was built from; "" if it does not say.
	Date     string `json:"date"`
	Revision string `json:"revision,omitempty"`
	// Preset is quick or full.
	Preset string `json:"preset"`
	// Seconds is how long the run took.
	Seconds float64 `json:"seconds"`
	// Contenders begin with the floor.
	Contenders []string    `json:"contenders"`
	Starts     []Start     `json:"starts,omitempty"`
	Latencies  []Latency   `json:"latencies,omitempty"`
	Phases     []Phases    `json:"phases,omitempty"`
	Requests   []Requests  `json:"requests,omitempty"`
	Memory     *Memory     `json:"memory,omitempty"`
	Scales     []ScaleCost `json:"scales,omitempty"`
	Soak       *Soak       `json:"soak,omitempty"`
}

// Machine is where the run took place: what decides about the numbers, and nothing that names the machine.
type Machine struct {
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	MemoryMiB  int64  `json:"memoryMiB"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	FileSystem string `json:"fileSystem"`
	// FlushMillis is the time to write and flush a small file in the folder of all state.
	FlushMillis float64 `json:"flushMillis"`
	// RemoveMillis is the time to remove it again.
	RemoveMillis float64 `json:"removeMillis"`
	// APILatencyMillis is what the API server was told to wait before each answer.
	APILatencyMillis float64 `json:"apiLatencyMillis"`
}

// Start is how large a program is and how fast it starts: for CNI_COMMAND=VERSION.
type Start struct {
	Program string        `json:"program"`
	Bytes   int64         `json:"bytes"`
	Version stats.Summary `json:"version"`
	// CPU is the processors' time for that.
	CPU stats.Summary `json:"cpu"`
}

// Latency is the cost of ADD and DEL of one contender, for one kind of pod, so many of them at once.
type Latency struct {
	host.Workload

	Contender string `json:"contender"`
	AtOnce    int    `json:"atOnce"`
	Add       Verb   `json:"add"`
	Del       Verb   `json:"del"`
	// Left is how many interfaces and files were there after all DELs.
	Left int `json:"left"`
}

// Verb is the cost of one verb.
type Verb struct {
	stats.Summary

	// Own is how much longer the calls of a round took than the floor's in the same round, in milliseconds.
	Own stats.Spread `json:"ownMillis"`
	// OwnStarts is the same in calls of VERSION of the reference plugin bridge in the same round: machines differ, and this does not much.
	// It is measured one pod at a time, with delegates that do nothing.
	OwnStarts stats.Spread `json:"ownStarts,omitzero"`
	// Ratio is the median to that of the floor.
	Ratio float64 `json:"ratio"`
	// PerSecond is how many calls of a round were finished in a second.
	PerSecond stats.Spread `json:"perSecond"`
	// CPU is the processors' time for one call, the mean of all.
	CPU host.CPU `json:"cpu"`
}

// Phases is where a contender's time goes, by its own log.
type Phases struct {
	host.Workload

	Contender string  `json:"contender"`
	Verb      string  `json:"verb"`
	Phases    []Phase `json:"phases"`
}

// Phase is the median time of one phase.
type Phase struct {
	Name   string  `json:"name"`
	Millis float64 `json:"millis"`
}

// Requests is what one call costs the API server.
type Requests struct {
	host.Workload

	Contender string `json:"contender"`
	Verb      string `json:"verb"`
	// PerCall counts requests by verb and resource.
	PerCall map[string]float64 `json:"perCall"`
}

// Memory is what the daemon and the plugin have in memory.
type Memory struct {
	host.Scale

	// Idle is the daemon's before, AfterBurst a while after a burst, in which PeakKiB was the most.
	Idle       host.Memory `json:"idle"`
	BurstPods  int         `json:"burstPods"`
	PeakKiB    int64       `json:"burstPeakKiB"`
	AfterBurst host.Memory `json:"afterBurst"`
	// Plugins are the greatest memory of the program that the runtime starts, in KiB.
	Plugins []PluginMemory `json:"plugins,omitempty"`
}

// PluginMemory is the greatest memory of a contender's plugin in an ADD.
type PluginMemory struct {
	Contender string `json:"contender"`
	PeakKiB   int64  `json:"peakKiB"`
}

// ScaleCost is the cost of ADD in a cluster of some size.
type ScaleCost struct {
	host.Scale

	Contender string        `json:"contender"`
	Add       stats.Summary `json:"add"`
	// Daemon is the daemon's memory then; zero for contenders without.
	Daemon host.Memory `json:"daemon,omitzero"`
}

// Soak is a long series of ADD and DEL through one daemon.
type Soak struct {
	Cycles  int     `json:"cycles"`
	Seconds float64 `json:"seconds"`
	// The series begin and end with the medians of their first and last quarter.
	Descriptors Series `json:"descriptors"`
	Goroutines  Series `json:"goroutines"`
	RSSKiB      Series `json:"rssKiB"`
	// LogFiles and LogBytes are what the plugin's log takes on disk at the end, of LogWritten bytes in all.
	LogFiles   int   `json:"logFiles"`
	LogBytes   int64 `json:"logBytes"`
	LogWritten int64 `json:"logWrittenBytes"`
	// Faults are what grew or was not bounded; empty is what is wanted.
	Faults []string `json:"faults,omitempty"`
}

// Series is how a quantity went on.
type Series struct {
	First float64   `json:"first"`
	Last  float64   `json:"last"`
	All   []float64 `json:"all"`
}
