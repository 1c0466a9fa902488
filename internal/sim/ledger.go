package sim

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
)

func digest(b []byte) uint64 { return xxhash.Sum64(b) }

// violation is a broken promise, found at the event that broke it.
type violation struct{ what string }

func (v violation) Error() string { return v.what }

func violate(format string, args ...any) { panic(violation{fmt.Sprintf(format, args...)}) }

// slot is a position of the log as some leader filled it.
type slot struct{ index, term uint64 }

// content is what stands in a slot: its digest, and the term of the entry
// before it, so that equal slots mean equal prefixes (log matching, by
// induction).
type content struct{ digest, before uint64 }

// ballot is the one vote that a member has in a term.
type ballot struct{ member, term uint64 }

// ledger is what the whole cluster ever did, kept outside of it. Each method
// is told of one event and panics with a violation where Raft's safety
// (Ongaro, "Consensus: Bridging Theory and Practice", figure 3.2) or one of
// Concord's promises is broken by it.
type ledger struct {
	leaders map[uint64]uint64 // by term
	votes   map[ballot]uint64
	slots   map[slot]content

	// committed holds the slot's term and digest of each committed index;
	// [0] is not used. states are the state hashes after it, 0 where nobody
	// has applied it yet.
	committed []content
	states    []uint64
	times     []int64
	results   []uint64
}

func newLedger() *ledger {
	return &ledger{
		leaders: map[uint64]uint64{}, votes: map[ballot]uint64{}, slots: map[slot]content{},
		committed: make([]content, 1), states: make([]uint64, 1), times: make([]int64, 1), results: make([]uint64, 1),
	}
}

// leads: member is leader of term. There is one a term.
func (l *ledger) leads(member, term uint64) (first bool) {
	if other, ok := l.leaders[term]; ok {
		if other != member {
			violate("two leaders in term %d: %x and %x", term, other, member)
		}
		return false
	}
	l.leaders[term] = member
	return true
}

// voted: member promised its vote of term to a candidate.
func (l *ledger) voted(member, term, candidate uint64) {
	b := ballot{member, term}
	if other, ok := l.votes[b]; ok && other != candidate {
		violate("member %x votes twice in term %d: for %x and for %x", member, term, other, candidate)
	}
	l.votes[b] = candidate
}

// filled: some log holds an entry whose predecessor has the term before.
func (l *ledger) filled(member uint64, s slot, c content) {
	if have, ok := l.slots[s]; !ok {
		l.slots[s] = c
	} else if have != c {
		violate("log matching: index %d of term %d differs at member %x (digest %x after term %d, elsewhere %x after term %d)",
			s.index, s.term, member, c.digest, c.before, have.digest, have.before)
	}
}

// last is the highest index known to be committed.
func (l *ledger) last() uint64 { return uint64(len(l.committed) - 1) }

// commits: member takes index, of that term, for committed. first reports that
// nobody did before; indexes then come without gaps.
func (l *ledger) commits(member uint64, s slot) (first bool) {
	c, ok := l.slots[s]
	if !ok {
		violate("member %x commits index %d of term %d, which no log ever held", member, s.index, s.term)
	}
	want := content{digest: c.digest, before: s.term}
	switch {
	case s.index <= l.last():
		if l.committed[s.index] != want {
			violate("committed entry changed: index %d was of term %d, member %x has term %d there",
				s.index, l.committed[s.index].before, member, s.term)
		}
		return false
	case s.index > l.last()+1:
		violate("member %x commits index %d, but %d was never committed", member, s.index, l.last()+1)
	}
	l.committed = append(l.committed, want)
	l.states = append(l.states, 0)
	l.times = append(l.times, 0)
	l.results = append(l.results, 0)
	return true
}

// applied: after index, member's state has this hash; it is the same on all
// members and in all their lives.
func (l *ledger) applied(member, index, state uint64) {
	if index > l.last() {
		violate("member %x applied index %d, but only %d is committed", member, index, l.last())
	}
	if have := l.states[index]; have == 0 {
		l.states[index] = state
	} else if have != state {
		violate("state at index %d differs: member %x has hash %016x, others had %016x", index, member, state, have)
	}
}

// answered: the results of the commands of an index, digested.
func (l *ledger) answered(member, index, results uint64) {
	if have := l.results[index]; have == 0 {
		l.results[index] = results
	} else if have != results {
		violate("results of index %d differ at member %x", index, member)
	}
}

// stamped: the entry at index carries this cluster time, which never falls.
func (l *ledger) stamped(member, index uint64, now int64) {
	for i := index - 1; i > 0 && i+64 > index; i-- {
		if t := l.times[i]; t != 0 {
			if t > now {
				violate("cluster time fell from %d to %d at index %d (member %x)", t, now, index, member)
			}
			break
		}
	}
	l.times[index] = now
}
