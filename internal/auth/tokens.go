package auth

import (
	"bytes"
	"cmp"

	"github.com/tidwall/btree"

	"github.com/concord-kv/concord/kv"
)

// MaxTokens is how many tokens are kept: some 20 MiB of them.
const MaxTokens = 1 << 17

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
	byID *btree.BTreeG[*Bearer]
	due  *btree.BTreeG[*Bearer]
}

// NewTokens returns none.
func NewTokens() *Tokens {
	options := btree.Options{NoLocks: true}
	return &Tokens{
		byID: btree.NewBTreeGOptions(func(a, b *Bearer) bool { return bytes.Compare(a.ID[:], b.ID[:]) < 0 }, options),
		due: btree.NewBTreeGOptions(func(a, b *Bearer) bool {
			return cmp.Or(cmp.Compare(a.Deadline, b.Deadline), bytes.Compare(a.ID[:], b.ID[:])) < 0
		}, options),
	}
}

// Copy returns what later changes of t leave as it is. The copy must not be
// changed.
func (t *Tokens) Copy() *Tokens { return &Tokens{byID: t.byID.Copy(), due: t.due.Copy()} }

// Len counts the tokens, with those that are over and not forgotten yet.
func (t *Tokens) Len() int { return t.byID.Len() }

// Find returns a token that is good at now.
func (t *Tokens) Find(id kv.TokenID, now kv.Time) (*Bearer, bool) {
	b, ok := t.byID.Get(&Bearer{ID: id})
	return b, ok && now < b.Deadline
}

// Put adds a token, in the place of one with that id, and forgets some that are
// over at now. It returns [kv.ErrTooManyTokens].
func (t *Tokens) Put(b Bearer, now kv.Time) error {
	for range forgetAtOnce {
		oldest, ok := t.due.Min()
		if !ok || oldest.Deadline > now {
			break
		}
		t.Delete(oldest.ID)
	}
	t.Delete(b.ID)
	if t.Len() >= MaxTokens {
		return kv.ErrTooManyTokens
	}
	t.byID.Set(&b)
	t.due.Set(&b)
	return nil
}

// Delete forgets a token.
func (t *Tokens) Delete(id kv.TokenID) {
	if b, ok := t.byID.Delete(&Bearer{ID: id}); ok {
		t.due.Delete(b)
	}
}
