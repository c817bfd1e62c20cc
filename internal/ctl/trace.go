// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/logfile"
)

const (
	// defaultEvents and maxEvents are how many events of a pod are shown.
	defaultEvents = 50
	maxEvents     = 10000
	// shortID is how much of a container ID is shown in a table, as container runtimes do.
	shortID = 13
)

// traced is what trace tells of a pod.
type traced struct {
	Pod     string          `json:"pod"`
	LogFile string          `json:"logFile,omitempty"`
	Events  []inspect.Event `json:"events"`
	Records []inspect.Pod   `json:"records"`
	// noLog says what to do where there is no log.
	noLog string
}

func traceCommand(env Environment) *cobra.Command {
	o := nodeOptions{recorded: true}
	var output, logFile string
	var last int
	cmd := &cobra.Command{
		Use:   "trace POD",
		Short: "Show what Plexus did for a pod, step by step",
		Long: `Show what Plexus did for a pod (NAME, NAMESPACE/NAME or the beginning of a container ID): each call of the container runtime in Plexus' log, with
its outcome and how long it and its steps took, and what is on record. Rotated and compressed log files are read as well. The log may be text or
JSON. Steps are logged at level debug. Pods that are gone, or that never started, are found by their name in the log.`,
		Example: `  plexusctl trace web
  plexusctl trace shop/web --log-file /var/log/plexus.log -o json`,
		Args:        arguments(1, 1),
		Annotations: map[string]string{RunsOnNode: NeedsFiles},
		PreRunE: func(*cobra.Command, []string) error {
			if output != formatTable && output != formatJSON {
				return fmt.Errorf("--output %q: use %s or %s", output, formatTable, formatJSON)
			}
			if last < 1 || last > maxEvents {
				return fmt.Errorf("--last %d: use 1 to %d", last, maxEvents)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			_, stop, err := o.enter(cmd)
			if err != nil {
				return err
			}
			defer stop()
			return runTrace(cmd, &o, args[0], logFile, last, func(w io.Writer, t *traced) error {
				if output == formatJSON {
					enc := json.NewEncoder(w)
					enc.SetIndent("", "  ")
					return enc.Encode(t)
				}
				return renderTrace(w, t, paint{on: env.Colour})
			})
		},
	}
	o.addTo(cmd)
	flags := cmd.Flags()
	flags.StringVar(&logFile, "log-file", "", "read the log `FILE` and its backups (default the key logFile of the CNI configuration)")
	flags.IntVar(&last, "last", defaultEvents, "show the last `COUNT` calls and remarks")
	flags.StringVarP(&output, "output", "o", formatTable, "print `FORMAT`: table or json")
	completeOutput(cmd, formatTable, formatJSON)
	return cmd
}

func runTrace(cmd *cobra.Command, o *nodeOptions, name, logFile string, last int, show func(io.Writer, *traced) error) error {
	pods, _, err := o.pods(cmd)
	if err != nil {
		return err
	}
	t, err := newTraced(pods, o.namespace, name)
	if err != nil {
		return err
	}
	s, err := o.settings()
	if err != nil {
		return err
	}
	t.LogFile = cmp.Or(logFile, s.logFile)
	noLog := error(nil)
	if t.LogFile != "" {
		files, filesErr := logfile.Files(t.LogFile)
		switch {
		case filesErr != nil:
			return withMend(filesErr)
		case len(files) > 0:
		case logFile != "":
			return fmt.Errorf("--log-file: there is no log %s, nor a backup of it", logFile)
		default:
			noLog = fmt.Errorf("there is no log %s, nor a backup of it, although %s names it as \"logFile\": Plexus creates it with its first call; check that its folder is writable", t.LogFile, o.conf)
		}
		subject := inspect.Subject{Pod: t.Pod}
		for _, p := range t.Records {
			subject.ContainerIDs = append(subject.ContainerIDs, p.ContainerID)
		}
		if t.Events, err = inspect.Trace(t.LogFile, subject, last); err != nil {
			return withMend(err)
		}
		if err = t.settle(); err != nil {
			return err
		}
	}
	switch {
	case len(t.Events) > 0:
	case t.LogFile == "" && len(t.Records) == 0:
		return fmt.Errorf("no pod %s is on record on this node, and Plexus keeps no log here: %s, or name a log with --log-file", t.Pod, s.logHint(o.conf))
	case len(t.Records) == 0 && noLog != nil:
		return fmt.Errorf("no pod %s is on record on this node, and %w", t.Pod, noLog)
	case len(t.Records) == 0:
		return fmt.Errorf("no pod %s is on record on this node, nor in the log %s: it may be on another node, or too old for the log; check the name", t.Pod, t.LogFile)
	}
	t.noLog = s.logHint(o.conf)
	t.Events = present(t.Events)
	t.Records = present(t.Records)
	var out bytes.Buffer
	if err = show(&out, t); err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(out.Bytes())
	return errors.Join(err, noLog)
}

// newTraced picks the records of a pod. One that has none may be in the log.
func newTraced(pods []inspect.Pod, namespace, name string) (*traced, error) {
	if namespace != "" && !strings.Contains(name, "/") {
		name = namespace + "/" + name
	}
	var known []inspect.Pod
	if slices.ContainsFunc(pods, func(p inspect.Pod) bool {
		f, err := filterPods([]inspect.Pod{p}, "", name)
		return err == nil && len(f) > 0
	}) {
		var err error
		if known, err = filterPods(pods, "", name); err != nil {
			return nil, err
		}
		name = known[0].Ref()
	}
	return &traced{Pod: name, Records: known}, nil
}

// settle finds the namespace of a pod that only the log knows.
func (t *traced) settle() error {
	for _, e := range t.Events {
		switch {
		case e.Pod == "" || e.Pod == t.Pod:
		case strings.Contains(t.Pod, "/"):
			return fmt.Errorf("%s matches several pods of the log: name one as %s or %s", t.Pod[strings.LastIndexByte(t.Pod, '/')+1:], t.Pod, e.Pod)
		default:
			t.Pod = e.Pod
		}
	}
	return nil
}

func renderTrace(w io.Writer, t *traced, p paint) error {
	log := "log " + t.LogFile
	if t.LogFile == "" {
		log = "no log: " + t.noLog
	}
	if _, err := fmt.Fprintln(w, p.bold("pod "+printable(t.Pod))+"  "+p.dim(printable(log))); err != nil {
		return err
	}
	if t.LogFile != "" {
		if err := eventTable(t.Events).write(w, p); err != nil {
			return err
		}
	}
	for i := range t.Records {
		if _, err := fmt.Fprintf(w, "\non record since %s: ", moment(t.Records[i].Began)); err != nil {
			return err
		}
		if err := podTables(w, t.Records[i:i+1], p, false, true); err != nil {
			return err
		}
	}
	return nil
}

func eventTable(events []inspect.Event) table {
	t := table{head: []string{"TIME (UTC)", "CONTAINER", "CALL", "TOOK", "OUTCOME"}}
	for _, e := range events {
		r := row{{e.Time.UTC().Format("2006-01-02 15:04:05.000")}, {e.ContainerID[:min(len(e.ContainerID), shortID)]}, {e.Verb}, {took(e.Took)}, {outcome(e)}}
		for _, s := range e.Steps {
			if strings.HasPrefix(s.Name, "attached ") {
				continue // it only marks the end of the step before
			}
			for x, text := range []string{"", "", "  " + s.Name, cmp.Or(s.Text, took(s.Took)), ""} {
				if x >= 2 {
					r[x] = append(r[x], text)
				}
			}
		}
		for x, cell := range r {
			for y, text := range cell {
				if y == 0 {
					text = cmp.Or(text, "-")
				}
				r[x][y] = printable(text)
			}
		}
		t.rows = append(t.rows, r)
	}
	return t
}

func outcome(e inspect.Event) string {
	switch {
	case e.Verb == "" && e.Failed:
		return "warning: " + e.Text
	case e.Failed:
		return "failed: " + e.Text
	}
	return cmp.Or(e.Text, "done")
}

// took shows a duration with three digits or so.
func took(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Nanosecond).String()
}
