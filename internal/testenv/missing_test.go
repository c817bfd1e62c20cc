// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// verdict is a test that notes how it ends.
type verdict struct {
	testing.TB
	said string
}

func (v *verdict) Helper() {}

func (v *verdict) Skipf(format string, args ...any) { v.end("skip: "+format, args) }

func (v *verdict) Fatalf(format string, args ...any) { v.end("fail: "+format, args) }

func (v *verdict) end(format string, args []any) {
	v.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestWhatIsMissingSkipsATestAndFailsItInCI(t *testing.T) {
	for value, want := range map[string]string{
		"": "skip", "false": "skip", "0": "skip", "true": "fail", "1": "fail", "some service": "fail",
	} {
		t.Setenv("CI", value)
		v, done := &verdict{TB: t}, make(chan struct{})
		go func() {
			defer close(done)
			Missing(v, "no %s", "nft")
		}()
		<-done
		if !strings.HasPrefix(v.said, want+": ") || !strings.HasSuffix(v.said, "no nft") {
			t.Errorf("CI=%q: got %q, want %s", value, v.said, want)
		}
	}
}

// TestWithoutPrivilege runs this package's tests where the system allows neither network namespaces nor user namespaces to make them in.
func TestWithoutPrivilege(t *testing.T) {
	t.Parallel()
	RequireRoot(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		Missing(t, "no setpriv, which is in util-linux")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for ci, want := range map[string]string{"": "--- SKIP: TestNetNSEndsWithItsTest", "true": "--- FAIL: TestNetNSEndsWithItsTest"} {
		// In a user namespace of its own, the sysctl can be set for what is in it. Without a bounding set even its root has no capability.
		const script = `echo 0 >/proc/sys/user/max_user_namespaces || exit 77; exec setpriv --bounding-set=-all --inh-caps=-all -- "$@"`
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", self, "-test.v", "-test.run", "^TestNetNSEndsWithItsTest$")
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, usernsEnv+"=") }), "CI="+ci)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		exit, ended := errors.AsType[*exec.ExitError](err)
		if err != nil && !ended {
			t.Fatal(err)
		}
		if ended && exit.ExitCode() == 77 {
			t.Skipf("the sysctls are read-only here: %s", out)
		}
		if (err != nil) != (ci != "") || !strings.Contains(string(out), want) || !strings.Contains(string(out), "no CAP_SYS_ADMIN") {
			t.Errorf("CI=%q: %v, want %q in:\n%s", ci, err, want, out)
		}
	}
}
