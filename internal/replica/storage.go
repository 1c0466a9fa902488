package replica

import (
	"cmp"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// storage is raft's view of the durable log: a tail of recent entries in memory
// in front of a LogReader.
type storage struct {
	log  LogReader
	conf *raftpb.ConfState // at start

	// first is the first index that raft may ask for, and prevTerm the term of
	// the one before. first never falls.
	first, prevTerm uint64
	last            uint64

	// tail holds the entries up to last; its first head places are spent.
	tail  []*raftpb.Entry
	head  int
	bytes int64
	cap   int64

	// total counts bytes written, samples the total before some indexes.
	total   int64
	samples []sample

	// snapshot is the newest one on disk. While missing, it lacks a member of
	// the configuration, who could not use it.
	snapshot SnapshotInfo
	missing  func(*raftpb.ConfState) bool
	// wanted is set when raft asked for a snapshot that is not there.
	wanted bool
}

// newStorage places the log behind snapshot s.
func newStorage(log LogReader, s SnapshotInfo, cacheBytes int64) (*storage, error) {
	st := &storage{log: log, conf: s.ConfState, snapshot: s, cap: cacheBytes}
	if st.conf == nil {
		st.conf = &raftpb.ConfState{}
	}
	first, last := log.FirstIndex(), log.LastIndex()
	switch {
	case first > s.Index+1 || last < s.Index:
		return nil, fmt.Errorf("replica: the log has entries %d to %d, which do not follow on the snapshot at %d", first, last, s.Index)
	case first == s.Index+1:
		st.first, st.prevTerm = first, s.Term
	default: // the entry at first gives its term and is not used otherwise
		term, err := log.Term(first)
		if err != nil {
			return nil, fmt.Errorf("read term of entry %d: %w", first, err)
		}
		st.first, st.prevTerm = first+1, term
	}
	st.last = last
	return st, nil
}

// InitialState implements raft.Storage. The snapshot is committed whatever the
// hard state on disk says: it may not know the last commit index.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	st := s.log.State()
	if st == (HardState{}) && s.snapshot.Index == 0 {
		return nil, s.conf, nil
	}
	commit, term := max(st.Commit, s.snapshot.Index), max(st.Term, s.snapshot.Term)
	if commit > s.last {
		return nil, nil, fmt.Errorf("replica: the log ends at %d but %d was committed", s.last, commit)
	}
	return &raftpb.HardState{Term: new(term), Vote: new(st.Vote), Commit: new(commit)}, s.conf, nil
}

// FirstIndex implements raft.Storage.
func (s *storage) FirstIndex() (uint64, error) { return s.first, nil }

// LastIndex implements raft.Storage.
func (s *storage) LastIndex() (uint64, error) { return s.last, nil }

// tailFirst is the index of the first entry in the tail.
func (s *storage) tailFirst() uint64 { return s.last + 1 - uint64(len(s.tail)-s.head) }

// Term implements raft.Storage.
func (s *storage) Term(i uint64) (uint64, error) {
	switch first := s.tailFirst(); {
	case i+1 == s.first:
		return s.prevTerm, nil
	case i < s.first:
		return 0, raft.ErrCompacted
	case i > s.last:
		return 0, raft.ErrUnavailable
	case i >= first:
		return s.tail[s.head+int(i-first)].GetTerm(), nil
	}
	return s.log.Term(i)
}

// Entries implements raft.Storage.
func (s *storage) Entries(lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	switch {
	case lo < s.first:
		return nil, raft.ErrCompacted
	case hi > s.last+1 || lo >= hi:
		return nil, raft.ErrUnavailable
	}
	first := s.tailFirst()
	if lo >= first {
		ents := s.tail[s.head+int(lo-first) : s.head+int(hi-first)]
		size := uint64(0)
		for i, e := range ents {
			if size += entryBytes(e); size > maxBytes && i > 0 {
				ents = ents[:i]
				break
			}
		}
		return ents[:len(ents):len(ents)], nil
	}
	read, err := s.log.Entries(lo, min(hi, first), int64(min(maxBytes, 1<<40)))
	if err != nil {
		return nil, err
	}
	ents := make([]*raftpb.Entry, len(read))
	for i := range read {
		e := &read[i]
		ents[i] = &raftpb.Entry{Index: &e.Index, Term: &e.Term, Type: raftpb.EntryType(e.Type).Enum(), Data: e.Data}
	}
	return ents, nil
}

// Snapshot implements raft.Storage.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	if s.snapshot.Index == 0 || s.missing(s.snapshot.ConfState) {
		s.wanted = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return raftSnapshot(s.snapshot), nil
}

func raftSnapshot(s SnapshotInfo) *raftpb.Snapshot {
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: s.ConfState, Index: new(s.Index), Term: new(s.Term)}}
}

// append takes entries that are durable now.
func (s *storage) append(ents []*raftpb.Entry) {
	if len(ents) == 0 {
		return
	}
	from := ents[0].GetIndex()
	if from > s.last+1 || from < s.first {
		panic(fmt.Sprintf("replica: entry %d written to a log from %d to %d", from, s.first, s.last))
	}
	if first := s.tailFirst(); from < first {
		s.tail, s.head, s.bytes = nil, 0, 0
	} else if from <= s.last {
		cut := s.head + int(from-first)
		for _, e := range s.tail[cut:] {
			s.bytes -= int64(entryBytes(e))
		}
		// Slices of the tail are out there: what is appended must not show
		// in them.
		s.tail = s.tail[:cut:cut]
	}
	for n := len(s.samples); n > 0 && s.samples[n-1].index >= from; n-- {
		s.samples = s.samples[: n-1 : n-1]
	}
	if n := len(s.samples); n == 0 || s.total-s.samples[n-1].before >= 64<<10 {
		s.samples = append(s.samples, sample{from, s.total})
	}
	s.tail = append(s.tail, ents...)
	s.last = ents[len(ents)-1].GetIndex()
	for _, e := range ents {
		s.bytes += int64(entryBytes(e))
		s.total += int64(entryBytes(e))
	}
	s.shrink()
}

// shrink keeps the tail within its bytes, but always the last entry.
func (s *storage) shrink() {
	for s.bytes > s.cap && len(s.tail)-s.head > 1 || s.head < len(s.tail) && s.tailFirst() < s.first {
		s.bytes -= int64(entryBytes(s.tail[s.head]))
		s.head++
	}
	if s.head > len(s.tail)/2 {
		// A fresh array, as slices of the old one are out there; it costs less
		// than one copy of a pointer an entry.
		s.tail = append(make([]*raftpb.Entry, 0, 2*(len(s.tail)-s.head)), s.tail[s.head:]...)
		s.head = 0
	}
}

// reset makes the log one that goes on after snapshot m.
func (s *storage) reset(m Mark) {
	s.first, s.prevTerm, s.last = m.Index+1, m.Term, m.Index
	s.tail, s.head, s.bytes, s.samples = nil, 0, 0, nil
}

// compact forgets what is below i.
func (s *storage) compact(i uint64) error {
	if i <= s.first {
		return nil
	}
	term, err := s.Term(i - 1)
	if err != nil {
		return err
	}
	s.first, s.prevTerm = i, term
	s.shrink()
	n := 0
	for n < len(s.samples)-1 && s.samples[n+1].index <= i {
		n++
	}
	s.samples = append([]sample(nil), s.samples[n:]...)
	return nil
}

// sample says how many bytes were written before an index.
type sample struct {
	index  uint64
	before int64
}

// bytesFrom is about how large the log is from i on; of what was written before
// the start of the process it knows nothing.
func (s *storage) bytesFrom(i uint64) int64 {
	n, _ := slices.BinarySearchFunc(s.samples, i, func(a sample, i uint64) int { return cmp.Compare(a.index, i+1) })
	if n == 0 {
		return s.total
	}
	return s.total - s.samples[n-1].before
}

// entryBytes is about what an entry takes in a message or on disk.
func entryBytes(e *raftpb.Entry) uint64 { return uint64(len(e.GetData())) + 32 }
