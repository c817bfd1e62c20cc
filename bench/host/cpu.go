// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/bench/stats"
)

// CPU is time on the machine's processors, in milliseconds, by who had it.
type CPU struct {
	// Plugins is that of the programs which the container runtime started, and of those that they started.
	Plugins float64 `json:"pluginsMillis"`
	// Daemon is plexusd's, and that of the daemons which contenders of the user have.
	Daemon float64 `json:"daemonMillis"`
	// Runtime is that of the benchmark itself: the container runtime, which starts the plugins, and the API server.
	Runtime float64 `json:"runtimeMillis"`
	// Rest is all else that was busy: threads of the kernel, which take links and namespaces down, and whatever else runs on the machine.
	Rest float64 `json:"restMillis"`
	// Idle had nothing to do.
	Idle float64 `json:"idleMillis"`
}

// Busy is all that was had.
func (c CPU) Busy() float64 { return c.Plugins + c.Daemon + c.Runtime + c.Rest }

// Plus adds times up.
func (c CPU) Plus(d CPU) CPU {
	return CPU{c.Plugins + d.Plugins, c.Daemon + d.Daemon, c.Runtime + d.Runtime, c.Rest + d.Rest, c.Idle + d.Idle}
}

// Times multiplies the times.
func (c CPU) Times(f float64) CPU {
	return CPU{c.Plugins * f, c.Daemon * f, c.Runtime * f, c.Rest * f, c.Idle * f}
}

// CPU is the time so far, since the machine began. Of plugins it knows those that have ended. The kernel counts the whole machine's time in
// ticks, of 10 ms usually.
func (c *Cluster) CPU() (CPU, error) {
	plugins, pluginsErr := rusage(syscall.RUSAGE_CHILDREN)
	own, ownErr := rusage(syscall.RUSAGE_SELF)
	stat, statErr := os.ReadFile("/proc/stat")
	if err := errors.Join(pluginsErr, ownErr, statErr); err != nil {
		return CPU{}, err
	}
	daemon := 0.0
	for _, p := range c.processes {
		took, err := p.cpu()
		if err != nil {
			return CPU{}, err
		}
		daemon += took
	}
	busy, idle, err := parseStat(string(stat))
	if err != nil {
		return CPU{}, err
	}
	return CPU{Plugins: plugins, Daemon: daemon, Runtime: own, Rest: busy - plugins - daemon - own, Idle: idle}, nil
}

func rusage(who int) (float64, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return stats.Millis(time.Duration(r.Utime.Nano() + r.Stime.Nano())), nil
}

// cpu is the CPU time of a process that runs.
func (p *Process) cpu() (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, errors.Join(p.failure(), err)
	}
	return parseProcessStat(string(stat))
}

// tickMillis is the unit of times in /proc, USER_HZ, which is 100 on all machines that Linux runs Go on.
const tickMillis = 10

// parseStat reads the first line of /proc/stat: what the processors did, and how long they did nothing (proc_stat(5)). Time that a hypervisor
// gave to others is neither.
func parseStat(text string) (float64, float64, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat begins with %.64q, which is not the time of all processors", line)
	}
	var ticks [7]float64 // user nice system idle iowait irq softirq
	for i := range ticks {
		var err error
		if ticks[i], err = strconv.ParseFloat(fields[i+1], 64); err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
	}
	return tickMillis * (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]), tickMillis * (ticks[3] + ticks[4]), nil
}

// parseProcessStat reads utime and stime, the 14th and 15th field of /proc/<pid>/stat. The second is the program's name, with anything in it.
func parseProcessStat(text string) (float64, error) {
	name := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[name+1:])
	if name < 0 || len(fields) < 13 {
		return 0, fmt.Errorf("/proc/<pid>/stat is %.64q, which has too few fields", text)
	}
	user, userErr := strconv.ParseFloat(fields[11], 64)
	system, systemErr := strconv.ParseFloat(fields[12], 64)
	return tickMillis * (user + system), errors.Join(userErr, systemErr)
}
