// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"slices"
	"strings"
	"time"
)

const (
	// goneAfter is how long the undo of an attachment whose interface is not there is tried before its sandbox goes without it: what
	// keeps its plugins from it may pass.
	goneAfter = 10 * time.Second
	// tolerableTries is how often it has to have failed by then: one try may take that long by itself.
	tolerableTries = 2
	// giveUpAfter is the same for any other attachment, and how long one is kept on record that never came about.
	giveUpAfter = 5 * time.Minute
	// forgetAfter is when an attachment is forgotten that did come about: its interface is not there, its addresses are released, and what its
	// plugins still refuse to undo they refuse for good.
	forgetAfter = 24 * time.Hour
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
		return a.Tries >= tolerableTries && (since > giveUpAfter || (a.Gone && since > goneAfter))
	}
	return !slices.ContainsFunc(slices.Concat(p.Attachments, p.Leftovers), func(a Attachment) bool { return !tolerable(a) })
}

// GiveUp drops what never came about, and returns it: attachments that a plugin refused on ADD, whose interface is not there, and whose
// DEL that plugin has refused for a while. Those before it are undone by then, and the addresses that its IPAM plugin may have leased are
// released.
func (p *Plan) GiveUp(now time.Time) []Attachment {
	if p.undoingFor(now) <= giveUpAfter {
		return nil
	}
	var dropped []Attachment
	neverWas := func(a Attachment) bool {
		never := a.neverWas() || (p.undoingFor(now) > forgetAfter && a.released())
		if never {
			dropped = append(dropped, a)
		}
		return never
	}
	p.Attachments = slices.DeleteFunc(p.Attachments, neverWas)
	p.Leftovers = slices.DeleteFunc(p.Leftovers, neverWas)
	return dropped
}

// neverWas reports whether nothing of an attachment can be left.
func (a *Attachment) neverWas() bool {
	if !a.Refused || !a.Gone || len(a.Undo) == 0 {
		return false
	}
	refusing := len(a.Undo) - 1
	if a.Begun != nil {
		refusing = min(refusing, *a.Begun-1)
	}
	for i, u := range a.Undo {
		if !u.Done && (i != refusing || !u.Released) {
			return false
		}
	}
	return true
}

// released reports whether the interface of an attachment is not there, and none of its addresses is leased, as far as that can be told.
func (a *Attachment) released() bool {
	return a.Gone && len(a.Undo) > 0 && !slices.ContainsFunc(a.Undo, func(u PluginUndo) bool { return !u.Done && !u.Released })
}

// Recover completes what an older Plexus recorded: it did not say whether a plugin had refused an ADD, or was cut short.
func (p *Plan) Recover() {
	for i := range p.Attachments {
		a := &p.Attachments[i]
		cut := strings.Contains(a.AddError, "killed") || strings.Contains(a.AddError, "did not finish within") || strings.Contains(a.AddError, ErrBadOutput.Error())
		if a.AddError != "" && a.Begun == nil && !cut {
			a.Refused = true
		}
	}
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
