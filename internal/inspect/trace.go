// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Event is something that Plexus logged about a pod: a call of a verb, or a remark.
type Event struct {
	// Time is when the call began, or the remark was made.
	Time time.Time `json:"time"`
	// Pod is "namespace/name", empty when the line tells only the container.
	Pod         string `json:"pod,omitempty"`
	ContainerID string `json:"containerID,omitempty"`
	// Verb is empty for a remark.
	Verb string        `json:"verb,omitempty"`
	Took time.Duration `json:"tookNanoseconds,omitempty"`
	// Failed is set for a call that failed, and for a remark that is a warning or an error.
	Failed bool `json:"failed,omitempty"`
	// Text is the error of a call, or the remark with its attributes.
	Text string `json:"text,omitempty"`
	// Steps are the parts of a call, where the log has them.
	Steps []Step `json:"steps,omitempty"`
	// stepsOnly marks what a line "<VERB> steps" tells, which belongs to the line that tells how the call ended.
	stepsOnly bool
}

// Step is a part of a call.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"tookNanoseconds,omitempty"`
	// Text is what the log tells in the place of a duration.
	Text string `json:"text,omitempty"`
}

// Subject is whose trace is asked for.
type Subject struct {
	// Pod is "namespace/name", or only "name" for a pod of any namespace.
	Pod string
	// ContainerIDs are of sandboxes that are known to be the pod's.
	ContainerIDs []string
}

// Trace reads what a log and its backups (see package logfile) tell of a pod, in the order of time; of more than most events the latest.
// Lines that are not Plexus' are passed over.
func Trace(logFile string, s Subject, most int) ([]Event, error) {
	files, err := openLogs(logFile)
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	t := newTracer(s, most)
	if err := scanLogs(files, t.visit); err != nil {
		return nil, err
	}
	return t.result(), nil
}

// tracer picks the lines of one pod.
type tracer struct {
	subject Subject
	// marks are texts of which a line of the pod has at least one: most lines need not be parsed.
	marks  [][]byte
	most   int
	events []Event
}

func newTracer(s Subject, most int) *tracer {
	t := &tracer{subject: s, most: max(most, 1)}
	for _, mark := range append([]string{s.Pod}, s.ContainerIDs...) {
		if mark != "" {
			t.marks = append(t.marks, []byte(mark))
		}
	}
	return t
}

func (t *tracer) visit(text []byte) {
	if !slices.ContainsFunc(t.marks, func(m []byte) bool { return bytes.Contains(text, m) }) {
		return
	}
	l, err := parseLine(text)
	if err != nil {
		return // others may write to the file, and a crash may cut a line
	}
	e := eventOf(l)
	if !t.isAbout(e) {
		return
	}
	t.events = append(t.events, e)
	if len(t.events) >= 2*t.most {
		t.trim()
	}
}

// isAbout reports whether an event is the pod's.
func (t *tracer) isAbout(e Event) bool {
	if e.Pod != "" {
		_, name, _ := strings.Cut(e.Pod, "/")
		return e.Pod == t.subject.Pod || name == t.subject.Pod
	}
	return e.ContainerID != "" && slices.Contains(t.subject.ContainerIDs, e.ContainerID)
}

// trim puts the events together, sorts them and keeps the latest. Calls are logged when they end.
func (t *tracer) trim() {
	t.events = joinSteps(t.events)
	slices.SortStableFunc(t.events, func(a, b Event) int { return a.Time.Compare(b.Time) })
	t.events = slices.Delete(t.events, 0, max(0, len(t.events)-t.most))
}

// joinSteps gives calls the steps that were logged in a line of their own. Those whose call is not there stay as they are.
func joinSteps(events []Event) []Event {
	type call struct {
		containerID, verb string
		took              time.Duration
	}
	calls := map[call]int{}
	for i, e := range events {
		if e.Verb != "" && !e.stepsOnly {
			calls[call{e.ContainerID, e.Verb, e.Took}] = i
		}
	}
	var joined []Event
	for _, e := range events {
		if at, ok := calls[call{e.ContainerID, e.Verb, e.Took}]; ok && e.stepsOnly {
			events[at].Steps = e.Steps
		}
	}
	for _, e := range events {
		if _, ok := calls[call{e.ContainerID, e.Verb, e.Took}]; !ok || !e.stepsOnly {
			joined = append(joined, e)
		}
	}
	return joined
}

func (t *tracer) result() []Event {
	t.trim()
	return t.events
}

// eventOf reads a line: "<VERB> done" and "<VERB> failed" are calls, and "<VERB> steps" is what one of them did.
func eventOf(l *line) Event {
	e := Event{Time: l.time, Pod: l.get("pod"), ContainerID: l.get("containerID")}
	verb, outcome, _ := strings.Cut(l.msg, " ")
	if verb != "" && verb == l.get("verb") && slices.Contains([]string{"done", "failed", "steps"}, outcome) {
		e.call(l, verb, outcome)
		return e
	}
	e.Failed = l.level > slog.LevelInfo
	e.Text = l.msg
	for _, a := range l.attrs {
		if a.key != "pod" && a.key != "containerID" {
			e.Text += fmt.Sprintf(" %s=%s", a.key, a.value)
		}
	}
	return e
}

func (e *Event) call(l *line, verb, outcome string) {
	e.Verb, e.Failed, e.Text = verb, outcome == "failed", l.get("error")
	if took, ok := duration(l.get("took")); ok && took > 0 {
		e.Took = took
		e.Time = l.time.Add(-took)
	}
	for _, a := range l.attrs {
		group, name, ok := strings.Cut(a.key, ".")
		if !ok || (group != "steps" && group != "step") {
			continue
		}
		step := Step{Name: name}
		if took, ok := duration(a.value); ok {
			step.Took = took
		} else {
			step.Text = a.value
		}
		e.Steps = append(e.Steps, step)
	}
	e.stepsOnly = outcome == "steps"
	switch {
	case e.Failed:
		e.Text = cmp.Or(e.Text, "no reason is logged")
	case e.stepsOnly:
		e.Text = "the log does not say how it ended"
	}
}
