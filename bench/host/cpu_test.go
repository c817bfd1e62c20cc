// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package host

import "testing"

func TestTimeOfAllProcessors(t *testing.T) {
	t.Parallel()
	busy, idle, err := parseStat("cpu  100 20 30 1000 500 4 6 70 8 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if err != nil || busy != 1600 || idle != 15000 {
		t.Errorf("parseStat = %v busy, %v idle, %v; want 1600 and 15000 ms", busy, idle, err)
	}
	for _, text := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu 1 2 three 4 5 6 7 8"} {
		if _, _, err := parseStat(text); err == nil {
			t.Errorf("parseStat(%q): no error", text)
		}
	}
}

func TestTimeOfAProcess(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"usual":                        "42 (plexusd) S 1 42 42 0 -1 4194560 900 0 1 0 7 3 100 200 20 0",
		"a name with blanks and a )":   "42 (a) S (b c) S 1 42 42 0 -1 4194560 900 0 1 0 7 3 100 200 20 0",
		"with nothing after its times": "42 (plexusd) S 1 42 42 0 -1 4194560 900 0 1 0 7 3",
	}
	for name, text := range tests {
		if got, err := parseProcessStat(text); err != nil || got != 100 {
			t.Errorf("%s: %v ms, %v; want 100", name, got, err)
		}
	}
	for _, text := range []string{"", "42 (plexusd) S 1", "42 plexusd S 1 42 42 0 -1 4194560 900 0 1 0 7 3", "42 (x) S 1 42 42 0 -1 4194560 900 0 1 0 seven 3"} {
		if _, err := parseProcessStat(text); err == nil {
			t.Errorf("parseProcessStat(%q): no error", text)
		}
	}
}

func TestTimesAreAddedUp(t *testing.T) {
	t.Parallel()
	before, after := CPU{1, 2, 3, 4, 5}, CPU{11, 22, 33, 44, 55}
	if got, want := after.Plus(before.Times(-1)), (CPU{10, 20, 30, 40, 50}); got != want || got.Busy() != 100 {
		t.Errorf("the time in between is %+v, busy %v; want %+v, busy 100", got, got.Busy(), want)
	}
}
