// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package retry

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFetchIsTriedAgainAFewTimes(t *testing.T) {
	t.Parallel()
	transient, missing := errors.New("the network is down"), errors.New("no such program")
	for name, test := range map[string]struct {
		errs []error
		want error
		took time.Duration
	}{
		"goes well":          {[]error{nil}, nil, 0},
		"fails twice":        {[]error{transient, transient, nil}, nil, 9 * time.Second},
		"fails always":       {[]error{transient, transient, transient}, transient, 9 * time.Second},
		"cannot be repeated": {[]error{Final(missing)}, missing, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				calls, start := 0, time.Now()
				err := Do(t.Context(), Fetch(), &log, func() error {
					calls++
					return test.errs[calls-1]
				})
				if !errors.Is(err, test.want) || calls != len(test.errs) || time.Since(start) != test.took {
					t.Errorf("got %v after %d calls in %s", err, calls, time.Since(start))
				}
				if got := strings.Count(log.String(), "trying again"); got != calls-1 {
					t.Errorf("said %d times that it tries again:\n%s", got, &log)
				}
			})
		})
	}
}

func TestNobodyWaitsForAFetchThatIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := Do(ctx, Fetch(), t.Output(), func() error { return errors.ErrUnsupported })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errors.ErrUnsupported) || time.Since(start) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}
