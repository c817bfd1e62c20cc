// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/plexus-cni/plexus/internal/doctor"
)

func renderFindings(w io.Writer, format string, findings []doctor.Finding, p paint) error {
	if format == formatJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(present(findings))
	}
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%s  %s  %s\n    %s\n", severity(p, f.Severity), p.bold(f.Code), printable(f.Object), printable(f.Text)); err != nil {
			return err
		}
		if f.Mend != "" {
			if _, err := fmt.Fprintf(w, "    mend: %s\n", printable(f.Mend)); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintln(w, p.bold(summary(findings)))
	return err
}

// severity is coloured as operators are used to.
func severity(p paint, s doctor.Severity) string {
	switch s {
	case doctor.Error:
		return p.with("1;31", "error  ")
	case doctor.Warning:
		return p.with("33", "warning")
	}
	return p.dim("info   ")
}

func count(findings []doctor.Finding, s doctor.Severity) int {
	n := 0
	for _, f := range findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

func summary(findings []doctor.Finding) string {
	var parts []string
	for _, s := range []doctor.Severity{doctor.Error, doctor.Warning} {
		switch n := count(findings, s); n {
		case 0:
		case 1:
			parts = append(parts, "1 "+string(s))
		default:
			parts = append(parts, fmt.Sprintf("%d %ss", n, s))
		}
	}
	if len(parts) == 0 {
		return "nothing is wrong"
	}
	return strings.Join(parts, ", ")
}

// doctorVerdict is an error when one is among the findings.
func doctorVerdict(findings []doctor.Finding) error {
	if count(findings, doctor.Error) == 0 {
		return nil
	}
	return errors.New("something is wrong: " + summary(findings))
}
