// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExitStatus: commands that examine something tell what they found from what they could not do.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const definition = "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: lab}\nspec: {config: '{\"cniVersion\":\"1.0.0\",\"type\":\"loopback\"%s}'}\n"
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	write(t, good, strings.Replace(definition, "%s", "", 1))
	write(t, bad, strings.Replace(definition, "%s", `,"ipam":[`, 1))
	state, conf := filepath.Join(dir, "state"), filepath.Join(dir, "multus.conf")
	if err := os.MkdirAll(filepath.Join(state, "records"), 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(state, "records", "c-eth0.json"), "{")
	write(t, conf, `{"cniVersion":"0.3.1","name":"m","type":"multus","delegates":7}`)
	for args, want := range map[string]int{
		"nad lint " + good:                           0,
		"nad lint " + bad:                            1,
		"nad lint " + filepath.Join(dir, "absent"):   2,
		"nad lint":                                   2,
		"nad lint --fail-on=x " + good:               2,
		"migrate --for plain --conf " + conf:         1,
		"migrate --conf " + filepath.Join(dir, "no"): 2,
		"migrate --no-such-flag":                     2,
		"status --recorded --state-dir " + dir:       0,
		"status --recorded --state-dir " + state:     1,
		"status --conf /nowhere/x":                   2,
		"doctor -o xml":                              2,
		"capture":                                    1,
		"attach":                                     1,
		"no-such-command":                            1,
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			root := Command(Environment{})
			root.SetArgs(strings.Fields(args))
			root.SetOut(&bytes.Buffer{})
			root.SetErr(&bytes.Buffer{})
			cmd, err := root.ExecuteContextC(t.Context())
			if got := ExitCode(cmd, err); got != want {
				t.Errorf("exit status %d after %v; want %d", got, err, want)
			}
		})
	}
}

func TestTraceWithoutItsLogIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing := filepath.Join(dir, "plexus.log")
	conf, generated := filepath.Join(dir, "a.conflist"), filepath.Join(dir, "b.conflist")
	write(t, conf, `{"name":"n","plugins":[{"type":"plexus","logFile":"`+missing+`"}]}`)
	write(t, generated, `{"name":"n","plugins":[{"type":"plexus","daemonSocketDir":"/run/plexus"}]}`)
	for args, says := range map[string]string{
		"--log-file " + missing:                 "--log-file: there is no log " + missing,
		"--conf " + conf:                        "there is no log " + missing + ", nor a backup of it, although " + conf + ` names it as "logFile"`,
		"--conf " + generated:                   `set "logFile" in key plugin.json of ConfigMap plexus`,
		"--log-file " + dir + " --conf " + conf: "is a directory",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			if _, err := run(t, append([]string{"trace", "web", "--state-dir", dir}, strings.Fields(args)...)...); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("error %v; want one that says %q", err, says)
			}
		})
	}
}
