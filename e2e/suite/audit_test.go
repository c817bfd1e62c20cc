// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
)

// request is a line of the API server's audit log: audit.k8s.io/v1 Event, as far as it is used.
type request struct {
	Verb string `json:"verb"`
	URI  string `json:"requestURI"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Stage string `json:"stage"`
}

// audit reads what the API server was asked for since it was made.
type audit struct {
	path   string
	offset int64
}

// newAudit starts an audit. It skips the test if the provider of the cluster has no audit log.
func newAudit(t *testing.T) *audit {
	t.Helper()
	logged, ok := env.cluster.(interface{ AuditLog() string })
	if !ok {
		t.Skip("the provider of the cluster has no audit log: use the provider local")
	}
	info, err := os.Stat(logged.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	return &audit{path: logged.AuditLog(), offset: info.Size()}
}

// requests are those that have been answered, a watch with its end, of the user.
func (a *audit) requests(t *testing.T, user string) []request {
	t.Helper()
	file, err := os.Open(a.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(a.offset, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var found []request
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return found // Of the last line, without its end, the rest is not written yet.
		}
		if err != nil {
			t.Fatal(err)
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("audit log: %v:\n%s", err, line)
		}
		if r.Stage == "ResponseComplete" && r.User.Username == user {
			found = append(found, r)
		}
	}
}
