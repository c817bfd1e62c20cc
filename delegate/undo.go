// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"slices"
	"time"
)

const (
	// goneAfter is how long the undo of an attachment whose interface is not there is tried before its sandbox goes without it: what
	// keeps its plugins from it may pass.
	goneAfter = 10 * time.Second
	// giveUpAfter is the same for any other attachment, and how long one is kept on record that never came about.
	giveUpAfter = 5 * time.Minute
)

// Left reports whether anything of the plan is still to be undone.
func (p *Plan) Left() bool { return len(p.Attachments)+len(p.Leftovers) > 0 }

// BeginUndo notes that an undo begins.
func (p *Plan) BeginUndo(now time.Time) {
	if p.Complete {
		p.Complete, p.UndoSince = false, now.UTC().Truncate(time.Second)
	}
}

// Tolerable reports whether a sandbox may go although an undo of it failed: nothing of what is left can be undone with the sandbox that
// could not be undone without it. That is so when the interface is not there and its plugins have refused the DEL for a moment, and
// after a while in any case: every pod can be removed in the end. What is left stays on record, and is tried again.
func (p *Plan) Tolerable(now time.Time) bool {
	since := p.undoingFor(now)
	tolerable := func(a Attachment) bool {
		return a.Tries > 0 && (since > giveUpAfter || (a.Gone && since > goneAfter))
	}
	return !slices.ContainsFunc(slices.Concat(p.Attachments, p.Leftovers), func(a Attachment) bool { return !tolerable(a) })
}

// GiveUp drops what never came about, and returns it: attachments that their plugins refused on ADD, whose interface is not there, and
// whose DEL the plugins have refused for a while. The addresses that their IPAM plugins may have leased are released by then.
func (p *Plan) GiveUp(now time.Time) []Attachment {
	if p.undoingFor(now) <= giveUpAfter {
		return nil
	}
	var dropped []Attachment
	neverWas := func(a Attachment) bool {
		never := a.Refused && a.Gone && a.Tries > 0
		if never {
			dropped = append(dropped, a)
		}
		return never
	}
	p.Attachments = slices.DeleteFunc(p.Attachments, neverWas)
	p.Leftovers = slices.DeleteFunc(p.Leftovers, neverWas)
	return dropped
}

// undoingFor is for how long the plan is to be undone: since its undo began or, when its ADD failed, since that began. A clock that was
// ahead must not keep a pod until then.
func (p *Plan) undoingFor(now time.Time) time.Duration {
	since := p.UndoSince
	if since.IsZero() {
		since = p.Began
	}
	if since.IsZero() {
		return 0
	}
	return now.Sub(since).Abs()
}
