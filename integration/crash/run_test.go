// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// scheduleLimit is far more than a schedule takes on a busy machine: one that takes longer hangs.
	scheduleLimit = 3 * time.Minute
	// deleteLimit bounds the tries of a DEL or GC, cleanLimit the wait for what the kernel does in the background.
	deleteLimit = time.Minute
	cleanLimit  = 20 * time.Second
)

// sandbox is a sandbox of the schedule that is under way.
type sandbox struct {
	plan *sandboxPlan
	id   string
	path string
	// gone: the namespace is no more. A runtime then names none, or the path all the same.
	gone, silent bool
	// shared: the container has two interfaces, and the namespace ends after both.
	shared bool
}

// ifName is the interface of the runtime.
func (b *sandbox) ifName() string {
	if b.plan.second {
		return "eth1"
	}
	return "eth0"
}

func (b *sandbox) netns() string {
	if b.gone && b.silent {
		return ""
	}
	return b.path
}

// attachment is what a runtime knows of a sandbox.
type attachment struct{ id, ifName string }

// roster is what the runtime holds to be alive. While a GC goes by it, no sandbox begins, as in CRI-O.
type roster struct {
	gc  sync.RWMutex
	mu  sync.Mutex
	all map[attachment]bool
}

// begin adds a sandbox.
func (r *roster) begin(b *sandbox) {
	r.gc.RLock()
	defer r.gc.RUnlock()
	r.set(b, true)
}

// end takes a sandbox out.
func (r *roster) end(b *sandbox) { r.set(b, false) }

func (r *roster) set(b *sandbox, alive bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[attachment]bool{}
	}
	r.all[attachment{b.id, b.ifName()}] = alive
}

func (r *roster) alive() []attachment {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []attachment
	for a, alive := range r.all {
		if alive {
			all = append(all, a)
		}
	}
	return all
}

// run carries a schedule out and looks at what is left.
func (w *world) run(ctx context.Context, s *schedule) error {
	w.mu.Lock()
	w.log, w.began = nil, time.Now()
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, scheduleLimit)
	defer cancel()
	w.note("schedule 0x%x: %d sandboxes, real %t, source %q, lock timeout %v, reboot %t", s.seed, len(s.sandboxes), s.real, s.source, s.lockTimeout, s.reboot)
	w.count(map[bool]string{true: "schedules with the reference plugins", false: "schedules with fabric"}[s.real])
	err := w.play(ctx, s)
	if err == nil {
		err = w.awaitClean(ctx, s)
	}
	leftovers, globErr := filepath.Glob(root + "/manifests/network-status/*")
	for _, f := range leftovers {
		err = errors.Join(err, os.Remove(f))
	}
	return errors.Join(err, globErr)
}

// play does all of a schedule.
func (w *world) play(ctx context.Context, s *schedule) error {
	var sandboxes []*sandbox
	alive := &roster{}
	for i := range s.sandboxes {
		p := &s.sandboxes[i]
		b := &sandbox{plan: p, id: fmt.Sprintf("%x-%s", s.seed, p.name), silent: (s.seed>>7)&1 == 0}
		var err error
		if p.second {
			first := sandboxes[i-1]
			b.id, b.path = first.id, first.path
			first.shared, b.shared = true, true
			w.count("second interfaces of a container")
		} else if b.path, err = makeNetNS(b.id); err != nil {
			return err
		}
		if err = writePod(p.name, strings.Join(p.networks, ",")); err != nil {
			return err
		}
		defer func() { _ = removeNetNS(b.path) }() // after the end of a schedule that failed
		sandboxes = append(sandboxes, b)
	}
	if s.source == fromDaemon {
		stopDaemon, err := w.keepDaemon(ctx, s)
		if err != nil {
			return err
		}
		defer stopDaemon()
	}

	errs := make(chan error)
	for _, p := range s.gcs {
		go func() { errs <- w.gcAt(ctx, s, p, alive) }()
	}
	for _, b := range sandboxes {
		go func() { errs <- w.live(ctx, s, b, alive) }()
	}
	var all []error
	for range len(s.gcs) + len(sandboxes) {
		all = append(all, <-errs)
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	if err := clearFaults(); err != nil {
		return err
	}
	if s.reboot {
		return w.reboot(ctx, s, sandboxes)
	}
	if err := w.endShared(s, sandboxes); err != nil {
		return err
	}
	if s.later || slices.ContainsFunc(sandboxes, func(b *sandbox) bool { return b.plan.outlasted }) {
		if err := w.later(ctx, s, sandboxes); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(sandboxes, func(b *sandbox) bool { return b.plan.forgotten }) {
		return w.until(ctx, "GC", func() (*call, error) { return w.startCall(ctx, s, "GC", nobodysSandbox(), callPlan{}, alive.alive()) })
	}
	return nil
}

// endShared ends the namespaces of containers with two interfaces, once both have had their DEL or are forgotten.
func (w *world) endShared(s *schedule, sandboxes []*sandbox) error {
	for i, b := range sandboxes {
		if !b.plan.second {
			continue
		}
		first := sandboxes[i-1]
		left, err := inSandbox(b.path)
		if err != nil {
			return err
		}
		if forgotten := first.plan.forgotten || b.plan.forgotten; len(left) > 0 && !forgotten && !s.partial(first.plan) && !s.partial(b.plan) {
			return fmt.Errorf("after both DELs, the sandbox of %s still has the links %q", first.plan.name, left)
		}
		if first.plan.forgotten || b.plan.forgotten {
			continue // the GC that follows may need it
		}
		if err := removeNetNS(b.path); err != nil {
			return err
		}
	}
	return nil
}

// nobodysSandbox is for calls that are about none.
func nobodysSandbox() *sandbox { return &sandbox{plan: &sandboxPlan{name: "all"}} }

// keepDaemon runs the daemon, kills it at its moments and starts it again, until it is stopped.
func (w *world) keepDaemon(ctx context.Context, s *schedule) (func(), error) {
	d, err := w.startDaemon(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { w.killDaemon(d) }()
		for _, at := range s.daemonKills {
			if w.pause(ctx, s, at) != nil {
				return
			}
			w.note("daemon killed")
			w.count("daemon killed")
			w.killDaemon(d)
			next, err := w.startDaemon(ctx)
			if err != nil {
				return // the schedule is over
			}
			d = next
		}
		<-ctx.Done()
	}()
	return func() { cancel(); <-done }, nil
}

// pause waits for so many calls.
func (w *world) pause(ctx context.Context, s *schedule, calls float64) error {
	return wait(ctx, time.Duration(calls*float64(w.took[s.real])))
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// gcAt is a GC while others are at work.
func (w *world) gcAt(ctx context.Context, s *schedule, p gcPlan, alive *roster) error {
	if err := w.pause(ctx, s, p.at); err != nil {
		return err
	}
	alive.gc.Lock()
	defer alive.gc.Unlock() // a killed one's plugins may go on: what they were told is not what lives from here on
	c, err := w.startCall(ctx, s, "GC", nobodysSandbox(), p.call, alive.alive())
	if err != nil {
		return err
	}
	<-c.done
	return c.broken // a plugin that died, or a lock that is not free, may have failed it: another one follows
}

// live is the life of one sandbox: its calls, and its end.
func (w *world) live(ctx context.Context, s *schedule, b *sandbox, alive *roster) error {
	attached, err := w.calls(ctx, s, b, alive)
	if err != nil {
		return err
	}
	if attached && s.lockTimeout == 0 {
		if err = w.stays(ctx, s, b); err != nil {
			return err
		}
	}
	if s.reboot {
		return nil
	}
	if b.plan.netnsFirst {
		w.note("namespace of %s removed", b.plan.name)
		if err = removeNetNS(b.path); err != nil {
			return err
		}
		b.gone = true
	}
	if err = w.refusedDELs(ctx, s, b); err != nil {
		return err
	}
	if b.plan.forgotten {
		w.note("%s forgotten", b.plan.name)
		alive.end(b)
		return nil
	}
	if err = w.endRefusals(b); err != nil {
		return err
	}
	if err = w.until(ctx, "DEL of "+b.plan.name, func() (*call, error) { return w.startCall(ctx, s, "DEL", b, callPlan{}, nil) }); err != nil {
		return err
	}
	alive.end(b)
	if b.gone || b.shared {
		return nil
	}
	left, err := inSandbox(b.path)
	switch {
	case err != nil:
		return err
	case len(left) > 0 && !s.partial(b.plan):
		return fmt.Errorf("after DEL, the sandbox of %s still has the links %q", b.plan.name, left)
	case len(left) > 0:
		w.count("links in a sandbox that a killed reference plugin left, until its end")
	}
	return removeNetNS(b.path)
}

// refusedDELs are DELs of a sandbox one of whose plugins refuses something; some of them the runtime cuts short.
func (w *world) refusedDELs(ctx context.Context, s *schedule, b *sandbox) error {
	if len(b.plan.refusals) == 0 {
		return nil
	}
	for i := range s.seed >> 11 & 3 {
		p := callPlan{at: float64(s.seed>>13&15) / 16}
		if s.seed>>(17+i)&1 == 0 {
			p.kill = plexus
		}
		c, err := w.startCall(ctx, s, "DEL", b, p, nil)
		if err != nil {
			return err
		}
		if <-c.done; c.broken != nil {
			return fmt.Errorf("%s: %w", c.what, c.broken)
		}
		w.count("DELs while a plugin refuses ADD or DEL")
	}
	return nil
}

// endRefusals has a plugin think better of what it refuses or, where that outlasts the sandbox, minutes go by.
func (w *world) endRefusals(b *sandbox) error {
	if b.plan.outlasted {
		w.count("DELs that a refusal outlasts")
		return w.letMinutesPass(b)
	}
	var errs []error
	for _, f := range b.plan.refusals {
		errs = append(errs, os.Remove(f.file(b)))
	}
	return errors.Join(errs...)
}

// letMinutesPass has the undo of a sandbox have begun ten minutes ago. Who edits a record takes out its checksum.
func (w *world) letMinutesPass(b *sandbox) error {
	path := fmt.Sprintf("%s/state/records/%s-%s.json", root, b.id, b.ifName())
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var plan object
	if err = errors.Join(err, json.Unmarshal(text, &plan)); err != nil {
		return err
	}
	delete(plan, "crc32")
	delete(plan, "complete")
	plan["undoSince"] = time.Now().Add(-10 * time.Minute).UTC().Format(time.RFC3339)
	if text, err = json.Marshal(plan); err != nil {
		return err
	}
	w.note("minutes pass for %s", b.plan.name)
	return errors.Join(os.WriteFile(path+".aged", text, 0o600), os.Rename(path+".aged", path))
}

// later is some time after: ADDs of other sandboxes undo what has been tried before and, where its namespace is gone, whatever is not complete.
// The namespaces of what a runtime has forgotten may still be there.
func (w *world) later(ctx context.Context, s *schedule, sandboxes []*sandbox) error {
	w.count("later ADDs that undo what is left")
	gone := s.seed>>21&1 == 0
	for _, b := range sandboxes {
		if !gone {
			break
		}
		if err := removeNetNS(b.path); err != nil {
			return err
		}
		b.gone = true
	}
	again := *s
	again.lockTimeout = 0
	const rounds = 5 // of a busy machine, where a repair does not come to its end in one
	var left []string
	for i := range rounds {
		if err := waitForLocks(); err != nil {
			return err
		}
		longAgo := time.Now().Add(-time.Hour)
		if err := os.Chtimes(root+"/state/boot-id", longAgo, longAgo); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := forgetTries(); err != nil {
			return err
		}
		if err := w.oneMore(ctx, &again, fmt.Sprintf("later%d", i)); err != nil {
			return err
		}
		var err error
		if left, err = repairable(gone); err != nil || len(left) == 0 {
			return err
		}
	}
	return fmt.Errorf("%d later ADDs have not undone what is on record: %s", rounds, strings.Join(left, "\n"))
}

// forgetTries makes the last tries of all undos long ago.
func forgetTries() error {
	files, err := filepath.Glob(root + "/state/records/*.json")
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		var plan object
		if readErr != nil || json.Unmarshal(text, &plan) != nil || plan["tried"] == nil {
			continue // it is gone, or was damaged
		}
		delete(plan, "crc32")
		delete(plan, "tried")
		text, marshalErr := json.Marshal(plan)
		err = errors.Join(err, marshalErr, os.WriteFile(file+".aged", text, 0o600), os.Rename(file+".aged", file))
	}
	return err
}

// oneMore is the life of a sandbox that nothing happens to.
func (w *world) oneMore(ctx context.Context, s *schedule, name string) error {
	b := &sandbox{plan: &sandboxPlan{name: name}, id: fmt.Sprintf("%x-%s", s.seed, name)}
	var err error
	if b.path, err = makeNetNS(b.id); err != nil {
		return err
	}
	defer func() { _ = removeNetNS(b.path) }() // it may be gone
	if err = writePod(name, ""); err != nil {
		return err
	}
	for _, verb := range []string{"ADD", "DEL"} {
		c, err := w.startCall(ctx, s, verb, b, callPlan{}, nil)
		if err != nil {
			return err
		}
		if <-c.done; c.err != nil || c.broken != nil {
			return fmt.Errorf("%s: %w", c.what, errors.Join(c.err, c.broken))
		}
	}
	return nil
}

// repairable are the records that a later ADD has to undo. gone: no sandbox has its namespace any more.
func repairable(gone bool) ([]string, error) {
	files, err := filepath.Glob(root + "/state/records/*.json")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var plan struct {
			Complete bool
			Tried    time.Time
		}
		if err = json.Unmarshal(text, &plan); err != nil {
			return nil, err
		}
		if !plan.Complete && (gone || !plan.Tried.IsZero()) {
			all = append(all, string(text))
		}
	}
	return all, nil
}

// stays makes sure that nothing is taken from a sandbox that is attached, whatever happens to others.
func (w *world) stays(ctx context.Context, s *schedule, b *sandbox) error {
	if err := w.pause(ctx, s, float64(s.seed>>5&15)/8); err != nil {
		return err
	}
	c, err := w.startCall(ctx, s, "CHECK", b, callPlan{}, nil)
	if err != nil {
		return err
	}
	if <-c.done; c.err != nil || c.broken != nil {
		return fmt.Errorf("attached, but %s fails: %w", c.what, errors.Join(c.err, c.broken))
	}
	return nil
}

// calls makes the calls of a sandbox's plan, and tells whether it is attached after them.
func (w *world) calls(ctx context.Context, s *schedule, b *sandbox, alive *roster) (bool, error) {
	var open []*call
	attached := false
	for i := range b.plan.refusals {
		if err := planFault(b, &b.plan.refusals[i]); err != nil {
			return false, err
		}
	}
	for i, p := range b.plan.calls {
		if p.fault != nil {
			if err := planFault(b, p.fault); err != nil {
				return false, err
			}
		}
		if err := w.pause(ctx, s, p.after); err != nil {
			return false, err
		}
		if i == 0 {
			alive.begin(b)
		}
		alone := !slices.ContainsFunc(open, func(c *call) bool { return !c.ended() })
		c, err := w.startCall(ctx, s, p.verb, b, p, nil)
		if err != nil {
			return false, err
		}
		open = append(open, c)
		if i+1 < len(b.plan.calls) && b.plan.calls[i+1].overlap {
			attached = false
			continue
		}
		for _, o := range open {
			<-o.done
			if o.broken != nil {
				return false, fmt.Errorf("%s: %w", o.what, o.broken)
			}
		}
		// What nothing was done to has to succeed.
		calm := alone && len(open) == 1 && p.kill == nobody && s.lockTimeout == 0 && b.plan.refusals == nil && !slices.ContainsFunc(b.plan.calls, func(c callPlan) bool { return c.fault != nil })
		if calm && c.err != nil && (p.verb != "CHECK" || attached) {
			return false, fmt.Errorf("%s fails without a cause: %w", c.what, c.err)
		}
		// Which of several calls at the same time came last is not known.
		attached = len(open) == 1 && (p.verb == "ADD" || attached && p.verb == "CHECK") && c.err == nil && !c.killed
		open = nil
	}
	return attached, nil
}

func (c *call) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// until makes a call again and again until it succeeds, as runtimes do with DEL.
func (w *world) until(ctx context.Context, what string, start func() (*call, error)) error {
	deadline := time.Now().Add(deleteLimit)
	for try := 1; ; try++ {
		c, err := start()
		if err != nil {
			return err
		}
		<-c.done
		switch {
		case c.broken != nil:
			return fmt.Errorf("%s: %w", what, c.broken)
		case c.err == nil && !c.killed:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%s, try %d, still fails: %w", what, try, c.err)
		}
		w.count(strings.Fields(what)[0] + " tried again")
		if err := wait(ctx, time.Duration(min(try, 20))*5*time.Millisecond); err != nil {
			return err
		}
	}
}

func planFault(b *sandbox, f *faultPlan) error {
	return os.WriteFile(f.file(b), []byte(f.text), 0o600)
}

// file is where fabric looks for a fault.
func (f *faultPlan) file(b *sandbox) string {
	return fmt.Sprintf("%s/%s/faults/%s-%s-%s", root, f.dir, b.id, f.ifName, f.verb)
}

// clearFaults takes back the faults that nobody met.
func clearFaults() error {
	left, err := filepath.Glob(root + "/fabric*/faults/*")
	for _, f := range left {
		// A plugin that outlives its killed call may meet it in between.
		if removeErr := os.Remove(f); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

// reboot starts the machine again: what was in memory is gone. The first ADD gives back what is left on disk.
func (w *world) reboot(ctx context.Context, s *schedule, sandboxes []*sandbox) error {
	w.note("reboot")
	w.count("reboots")
	if err := w.killOrphans(ctx); err != nil {
		return err
	}
	for _, b := range sandboxes {
		if err := removeNetNS(b.path); err != nil {
			return err
		}
		b.gone = true
	}
	if err := w.forgetMemory(ctx, s); err != nil {
		return err
	}
	w.boots++ // the seed does not tell one boot from another when a schedule is replayed
	if err := setBoot(fmt.Sprintf("boot-%d", w.boots)); err != nil {
		return err
	}
	p := &sandboxPlan{name: "fresh", networks: []string{"fab0", "fab1", "fab2"}}
	if s.real {
		p.networks = []string{"lan", "masq", "wan"}
	}
	b := &sandbox{plan: p, id: fmt.Sprintf("%x-fresh", s.seed)}
	var err error
	if b.path, err = makeNetNS(b.id); err != nil {
		return err
	}
	defer func() { _ = removeNetNS(b.path) }() // after the end of a schedule that failed
	if err = writePod(p.name, strings.Join(p.networks, ",")); err != nil {
		return err
	}
	again := *s
	again.lockTimeout = 0
	if s.seed>>9&1 == 0 {
		// A kill amidst the repair, which the next ADD goes on with.
		c, startErr := w.startCall(ctx, &again, "ADD", b, callPlan{kill: plexus, at: float64(s.seed>>10&255) / 256}, nil)
		if startErr != nil {
			return startErr
		}
		<-c.done
		// What the call was undoing stays locked until its plugin has ended: an ADD does not wait for that, but leaves it to a later one.
		if err = waitForLocks(); err != nil {
			return err
		}
	}
	for _, verb := range []string{"ADD", "CHECK"} {
		c, startErr := w.startCall(ctx, &again, verb, b, callPlan{}, nil)
		if startErr != nil {
			return startErr
		}
		if <-c.done; c.err != nil || c.broken != nil {
			return fmt.Errorf("after a reboot, %s: %w", c.what, errors.Join(c.err, c.broken))
		}
	}
	records, err := filepath.Glob(root + "/state/records/*.json")
	if err != nil {
		return err
	}
	if len(records) != 1 {
		return fmt.Errorf("after a reboot and an ADD there are the records %q, want one", records)
	}
	for _, old := range append(sandboxes, b) {
		if old.plan.forgotten {
			continue
		}
		if err := w.until(ctx, "DEL of "+old.plan.name, func() (*call, error) { return w.startCall(ctx, &again, "DEL", old, callPlan{}, nil) }); err != nil {
			return err
		}
	}
	return removeNetNS(b.path)
}

// waitForLocks waits until nobody holds the lock of a record.
func waitForLocks() error {
	files, err := filepath.Glob(root + "/state/records/*.lock")
	for _, path := range files {
		f, openErr := os.Open(path)
		if openErr != nil {
			continue // it ended in between
		}
		// A plugin that hangs would hold it for ever. A repair ends those that had the time of a call, which is more than a schedule has.
		hung := time.AfterFunc(hungAfter, func() { killHolders(path) })
		err = errors.Join(err, unix.Flock(int(f.Fd()), unix.LOCK_EX), f.Close())
		hung.Stop()
	}
	return err
}

// hungAfter is how long a plugin may hold the lock of a killed call.
const hungAfter = 10 * time.Second

// killHolders kills the processes that have a file open, but for this one.
func killHolders(path string) {
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*") // what has ended in between is not there
	for _, fd := range files {
		pid, err := strconv.Atoi(strings.Split(fd, "/")[2])
		if target, linkErr := os.Readlink(fd); err == nil && linkErr == nil && target == path && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have just ended
		}
	}
}

// forgetMemory takes away what a reboot takes: links, firewall rules, files in memory.
func (w *world) forgetMemory(ctx context.Context, s *schedule) error {
	for _, dir := range []string{"/run/cni", "/run/k8s.cni.cncf.io"} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if !s.real {
		return nil
	}
	found, err := dump(netlink.LinkList)
	if err != nil {
		return err
	}
	for _, l := range found {
		if t := l.Type(); (t == "veth" && !strings.HasPrefix(l.Attrs().Name, "nic")) || t == "ifb" {
			_ = netlink.LinkDel(l) // its namespace may be faster
		}
	}
	if w.nft == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, w.nft, "flush", "ruleset")
	if err := w.start(cmd); err != nil {
		return err
	}
	return w.wait(cmd)
}

// killOrphans ends what was left running.
func (w *world) killOrphans(ctx context.Context) error {
	for {
		pids, err := w.orphans()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have just ended
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// awaitClean waits until all is as it was at the start: the kernel ends namespaces in the background.
func (w *world) awaitClean(ctx context.Context, s *schedule) error {
	deadline := time.Now().Add(cleanLimit)
	for {
		now, err := w.snapshot(ctx, s.real)
		if err != nil {
			return err
		}
		diff := cmp.Diff(w.clean[s.real], now)
		switch {
		case diff == "":
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("something is left (-before +after):\n%s", diff)
		}
		if err := wait(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// warmUp attaches to all networks of a kind and takes off again, measures an ADD, and notes what stays for good.
func (w *world) warmUp(ctx context.Context, isReal bool) error {
	s := &schedule{real: isReal, source: fromManifests}
	p := &sandboxPlan{name: "warm", networks: []string{"fab0", "fab1", "fab2"}}
	if isReal {
		p.networks = []string{"lan", "masq", "wan", "p2p", "tag", "ipv", "dum"}
	}
	b := &sandbox{plan: p, id: "warm"}
	var err error
	if b.path, err = makeNetNS(b.id); err != nil {
		return err
	}
	if err = writePod(p.name, strings.Join(p.networks, ",")); err != nil {
		return err
	}
	for range 2 {
		for _, verb := range []string{"ADD", "CHECK", "DEL"} {
			began := time.Now()
			c, startErr := w.startCall(ctx, s, verb, b, callPlan{}, nil)
			if startErr != nil {
				return startErr
			}
			if <-c.done; c.err != nil || c.broken != nil {
				return fmt.Errorf("%s: %w", c.what, errors.Join(c.err, c.broken))
			}
			if verb == "ADD" {
				w.took[isReal] = time.Since(began)
			}
		}
	}
	if err = removeNetNS(b.path); err != nil {
		return err
	}
	if err = os.RemoveAll(root + "/manifests/network-status"); err != nil {
		return err
	}
	w.clean[isReal], err = w.snapshot(ctx, isReal)
	return err
}
