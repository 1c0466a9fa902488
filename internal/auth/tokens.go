package auth

import (
	"bytes"
	"cmp"
	"strings"

	"github.com/tidwall/btree"

	"github.com/concord-kv/concord/kv"
)

// How many tokens are kept: some 20 MiB of them, of which one user cannot have
// more than an eighth. Where one more does not fit, the one goes that would be
// over first: of the same user, or else of the user who has most, so that nobody
// keeps others from logging in.
const (
	MaxTokens     = 1 << 17
	MaxUserTokens = MaxTokens / 8
)

// forgetAtOnce is how many tokens that are over make room when one is added.
const forgetAtOnce = 16

// Bearer is what is kept of a token.
type Bearer struct {
	ID       kv.TokenID
	User     string
	Revision uint64
	// TTL, in milliseconds of cluster time, is how long the token is good
	// after each renewal; Deadline is until when it now is.
	TTL, Deadline kv.Time
}

// Tokens are the bearer tokens that are good. One goroutine changes them; a copy
// costs nothing and may be read by any.
type Tokens struct {
	// byMark is in the order of ids. Two that are different have different
	// marks: the tokens are random.
	byMark *btree.Map[uint64, *Bearer]
	// What a copy does not have, and Latest needs: the same in the order in which they will be
	// over, of all and of each user, and how many each user has.
	due    *btree.BTreeG[*Bearer]
	byUser *btree.BTreeG[*Bearer]
	counts map[string]int
}

// NewTokens returns none.
func NewTokens() *Tokens {
	options := btree.Options{NoLocks: true}
	return &Tokens{
		byMark: new(btree.Map[uint64, *Bearer]),
		due:    btree.NewBTreeGOptions(func(a, b *Bearer) bool { return compareDue(a, b) < 0 }, options),
		byUser: btree.NewBTreeGOptions(func(a, b *Bearer) bool {
			return cmp.Or(strings.Compare(a.User, b.User), compareDue(a, b)) < 0
		}, options),
		counts: map[string]int{},
	}
}

func compareDue(a, b *Bearer) int {
	return cmp.Or(cmp.Compare(a.Deadline, b.Deadline), bytes.Compare(a.ID[:], b.ID[:]))
}

// Copy returns what later changes of t leave as it is. The copy must not be
// changed.
func (t *Tokens) Copy() *Tokens { return &Tokens{byMark: t.byMark.Copy()} }

// Len counts the tokens, with those that are over and not forgotten yet.
func (t *Tokens) Len() int { return t.byMark.Len() }

// Latest is when the last token will be over; 0 where there is none.
func (t *Tokens) Latest() kv.Time {
	if last, ok := t.due.Max(); ok {
		return last.Deadline
	}
	return 0
}

// Find returns a token that is good at now.
func (t *Tokens) Find(id kv.TokenID, now kv.Time) (*Bearer, bool) {
	b := t.Marked(id.Mark())
	return b, b != nil && b.ID == id && now < b.Deadline
}

// Marked returns the token with that [kv.TokenID.Mark], also if it is over, or
// nil.
func (t *Tokens) Marked(mark uint64) *Bearer {
	b, _ := t.byMark.Get(mark)
	return b
}

// Put adds a token, in the place of one with that id, and forgets some that are
// over at now.
func (t *Tokens) Put(b Bearer, now kv.Time) {
	for range forgetAtOnce {
		oldest, ok := t.due.Min()
		if !ok || oldest.Deadline > now {
			break
		}
		t.delete(oldest.ID.Mark())
	}
	t.delete(b.ID.Mark())
	switch {
	case t.counts[b.User] >= MaxUserTokens:
		t.deleteFirst(b.User)
	case t.Len() >= MaxTokens:
		t.deleteFirst(t.richest())
	}
	t.set(&b)
}

func (t *Tokens) set(b *Bearer) {
	t.byMark.Set(b.ID.Mark(), b)
	t.due.Set(b)
	t.byUser.Set(b)
	t.counts[b.User]++
}

// deleteFirst forgets the token of a user that would be over first.
func (t *Tokens) deleteFirst(user string) {
	var first *Bearer
	t.byUser.Ascend(&Bearer{User: user}, func(b *Bearer) bool {
		first = b
		return false
	})
	t.delete(first.ID.Mark())
}

// richest is who has most tokens: of several, the first by name, so that the
// order of the map makes no difference. It looks at all users who have any, which
// is no more than the check of a password takes.
func (t *Tokens) richest() (name string) {
	most := 0
	for user, n := range t.counts { // in any order
		if n > most || n == most && user < name {
			name, most = user, n
		}
	}
	return name
}

// Delete forgets a token.
func (t *Tokens) Delete(id kv.TokenID) {
	if b := t.Marked(id.Mark()); b != nil && b.ID == id {
		t.delete(id.Mark())
	}
}

func (t *Tokens) delete(mark uint64) {
	b, ok := t.byMark.Delete(mark)
	if !ok {
		return
	}
	t.due.Delete(b)
	t.byUser.Delete(b)
	if t.counts[b.User]--; t.counts[b.User] == 0 {
		delete(t.counts, b.User)
	}
}
