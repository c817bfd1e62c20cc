// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// A plugin that was told to stop, and its children, have had their grace when it ends: a child that is still there is killed at once.
func TestExecDoesNotWaitTwiceForWhoWasToldToStop(t *testing.T) {
	t.Parallel()
	fifo, isOver := lifeline(t)
	path := script(t, fmt.Sprintf(`(trap '' TERM; exec 9>%[1]s >/dev/null 2>&1; while :; do sleep 1; done) & read -r line <%[1]s.started; sleep 1000`, fifo))
	done := make(chan error, 1)
	go func() {
		_, err := execIt(t, &Exec{Timeout: 200 * time.Millisecond, Grace: time.Hour}, path)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Call: %v, want a time-out", err)
		}
	case <-time.After(30 * time.Second): // of an hour
		t.Error("it waits for the child")
	}
	if !isOver() {
		t.Error("the child is still at work")
	}
}
