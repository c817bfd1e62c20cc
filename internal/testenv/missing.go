// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"os"
	"strconv"
	"testing"
)

// Missing ends a test that lacks something which the machine's owner can give it: privilege, a program, a device. The test is skipped,
// and the reason, which is formatted as by fmt.Sprintf, says what to do. In CI it fails: nobody reads there what was skipped, and a
// machine that lost the privilege would pass without having tested anything.
//
// What a kernel was built without stays a skip, even in CI.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if inCI(os.Getenv("CI")) {
		tb.Fatalf("in CI, where CI is set, nothing may be missing: "+format, args...)
	}
	tb.Skipf(format, args...)
}

// inCI tells whether the environment variable CI, which every CI service sets, says so. To unset it, people also give it a false value.
func inCI(value string) bool {
	if yes, err := strconv.ParseBool(value); err == nil {
		return yes
	}
	return value != ""
}
