// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/internal/doctor"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func TestFindingsAreRendered(t *testing.T) {
	t.Parallel()
	findings := []doctor.Finding{
		{Code: doctor.PoolExhausted, Severity: doctor.Error, Object: "network default/storage", Text: "10.0.0.5-10.0.0.6: 2 of 2 addresses are in use, 0 are free: the next pod gets none", Mend: "widen rangeStart and rangeEnd"},
		{Code: doctor.RecordOrphan, Severity: doctor.Warning, Object: "pod default/web\x1b[2J", Text: "its network namespace is gone, and it still holds 10.0.0.5", Mend: "plexusctl doctor --fix"},
		{Code: doctor.PoolUsage, Severity: doctor.Info, Object: "network cluster", Text: "10.201.0.1-10.201.0.254: 1 of 253 addresses are in use, 252 are free"},
	}
	for name, tc := range map[string]struct {
		format   string
		colour   bool
		findings []doctor.Finding
	}{
		"text":    {format: formatText, findings: findings},
		"colour":  {format: formatText, colour: true, findings: findings},
		"json":    {format: formatJSON, findings: findings},
		"healthy": {format: formatText},
		"none":    {format: formatJSON},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := writeFindings(&out, tc.format, tc.findings, doctorKinds(), Environment{Colour: tc.colour}); err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, "doctor-"+name, out.Bytes())
		})
	}
}

func TestDoctorRefusesFlagsThatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-o", "xml"}, {"--range", "10.0.0.0/8"}, {"--range", "pod=x"}, {"--range", "other=10.0.0.0/8"}, {"--timeout", "0s"}} {
		if err := accepts(Command(Environment{}), append([]string{"doctor"}, args...)); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

// TestProgramDoctor looks at a pod that is well, and then at what breaks it.
func TestProgramDoctor(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	look := func(args ...string) ([]doctor.Finding, string, int) {
		t.Helper()
		for _, dir := range p.binDirs {
			args = append(args, "--cni-bin", dir)
		}
		stdout, stderr, code := p.look(t, append([]string{"doctor", "-o", "json", "web"}, args...)...)
		var found []doctor.Finding
		if err := json.Unmarshal([]byte(stdout), &found); err != nil {
			t.Fatalf("%v: stdout %s, stderr %s", err, stdout, stderr)
		}
		return slices.DeleteFunc(found, func(f doctor.Finding) bool { return f.Severity == doctor.Info }), stderr, code
	}
	if found, stderr, code := look("--probe"); len(found) > 0 || code != 0 || stderr != "" {
		t.Fatalf("a healthy pod: code %d, stderr %s, found %+v", code, stderr, found)
	}
	conf, err := os.ReadFile(p.conf())
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.conf(), strings.Replace(string(conf), `"type":"plexus",`, `"type":"plexus","daemonSocketDir":"`+p.dir+`",`, 1))
	found, stderr, code := look()
	if len(found) != 1 || found[0].Code != doctor.DaemonUnreachable || code != 1 || stderr != "plexusctl: something is wrong: 1 error\n" {
		t.Errorf("without a daemon: code %d, stderr %q, found %+v", code, stderr, found)
	}
	text, _, _ := p.look(t, "doctor")
	for _, want := range []string{"error    daemon-unreachable  daemon socket " + p.dir, "    fix: start plexusd on this node"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
}
