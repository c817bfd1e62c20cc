// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"slices"
)

// Tool is who found it.
type Tool struct {
	Name, Version, URI string
	// Kinds are all that it can find.
	Kinds []Kind
}

// The part of the Static Analysis Results Interchange Format (SARIF 2.1.0) that findings fill.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri,omitempty"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string       `json:"id"`
		ShortDescription sarifText    `json:"shortDescription"`
		Help             sarifText    `json:"help,omitzero"`
		Default          sarifDefault `json:"defaultConfiguration"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
	}
)

// WriteSARIF writes findings as a log of SARIF 2.1.0, as code scanning of GitHub and others read it. A relative File stays relative, to
// the root of the repository if the tool was run there.
func WriteSARIF(w io.Writer, l List, tool Tool) error {
	run := sarifRun{
		Tool:       sarifTool{Driver: sarifDriver{Name: tool.Name, Version: tool.Version, InformationURI: tool.URI, Rules: []sarifRule{}}},
		ColumnKind: "unicodeCodePoints",
		Results:    []sarifResult{},
	}
	for _, k := range tool.Kinds {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: k.Code, ShortDescription: sarifText{k.Meaning}, Help: sarifText{k.Mend}, Default: sarifDefault{level(k.Severity)},
		})
	}
	for _, f := range l {
		run.Results = append(run.Results, sarifResult{
			RuleID:    f.Code,
			RuleIndex: slices.IndexFunc(tool.Kinds, func(k Kind) bool { return k.Code == f.Code }), // -1 is SARIF's own for none
			Level:     level(f.Severity),
			Message:   sarifText{f.sentence()},
			Locations: []sarifLocation{f.location()},
		})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
}

func level(s Severity) string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	}
	return "note"
}

func (f Finding) location() sarifLocation {
	name := f.Object
	if f.Field != "" {
		name += ", " + f.Field
	}
	at := sarifLocation{Logical: []sarifLogical{{name}}}
	if f.File == "" {
		return at
	}
	uri := url.URL{Path: filepath.ToSlash(f.File)}
	if filepath.IsAbs(f.File) {
		uri.Scheme = "file"
	}
	at.Physical = &sarifPhysical{Artifact: sarifArtifact{uri.String()}}
	if f.Line > 0 {
		at.Physical.Region = &sarifRegion{StartLine: f.Line, StartColumn: max(0, f.Column)}
	}
	return at
}
