// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/plexus-cni/plexus/internal/record"
)

// holdSlot plays a process that has the only slot of dir until its standard input ends.
func holdSlot(dir string) error {
	l, err := record.OpenSlots(dir, 1).Take(context.Background())
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, l.Unlock())
}

func TestNoMoreThanSoManyHaveASlotAtATime(t *testing.T) {
	t.Parallel()
	const n, takers = 3, 60
	slots := record.OpenSlots(filepath.Join(t.TempDir(), "slots"), n)
	var inside, most atomic.Int64
	var all sync.WaitGroup
	for range takers {
		all.Go(func() {
			l, err := slots.Take(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if now := inside.Add(1); now > most.Load() {
				most.Store(now)
			}
			for range 1000 { // others run meanwhile
				_ = os.Getpid()
			}
			inside.Add(-1)
			if err := l.Unlock(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := most.Load(); got > n || got < 1 {
		t.Errorf("%d had a slot at a time, want at most %d", got, n)
	}
}

func TestWhicheverSlotComesFreeIsTaken(t *testing.T) {
	t.Parallel()
	slots := record.OpenSlots(t.TempDir(), 2)
	var held []*record.Slot
	for range 2 {
		l, err := slots.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
	}
	short, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := slots.Take(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("with both slots taken: %v, want the deadline's error", err)
	}
	for _, free := range []int{1, 0} {
		got := make(chan *record.Slot)
		go func() {
			ctx, stop := context.WithTimeout(t.Context(), late)
			defer stop()
			l, err := slots.Take(ctx)
			got <- l
			if err != nil {
				t.Errorf("slot %d was free: %v", free, err)
			}
		}()
		waiting, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		select {
		case <-got:
			t.Fatal("a slot was taken that nobody had given back")
		case <-waiting.Done(): // it waits, or soon will
		}
		if err := held[free].Unlock(); err != nil {
			t.Fatal(err)
		}
		if held[free] = <-got; held[free] == nil {
			return
		}
	}
}

func TestTheSlotOfAKilledProcessIsFree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	holder, _ := start(t, "slot", dir, nil)
	got := make(chan error)
	go func() {
		ctx, stop := context.WithTimeout(t.Context(), late)
		defer stop()
		l, err := record.OpenSlots(dir, 1).Take(ctx)
		if err == nil {
			err = l.Unlock()
		}
		got <- err
	}()
	waiting, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	select {
	case err := <-got:
		t.Fatalf("while another process has the slot: %v", err)
	case <-waiting.Done():
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("after the other process was killed: %v", err)
	}
}

// BenchmarkSlots is what each call of a plugin pays for the bound on plugins while there are places.
func BenchmarkSlots(b *testing.B) {
	slots := record.OpenSlots(b.TempDir(), 64)
	for b.Loop() {
		slot, err := slots.Take(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := slot.Unlock(); err != nil {
			b.Fatal(err)
		}
	}
}
