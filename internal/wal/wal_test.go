package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var tiny = Options{SegmentSize: 8 << 10, Synchronous: true}

func mustOpen(t testing.TB, fs vfs.FS, o Options) *Log {
	t.Helper()
	l, err := Open(fs, "wal", o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// data makes bytes that say which entry they are of; every third has a long
// stretch of zeros.
func data(index, term uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(index, term))
	if index%3 != 0 {
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
	}
	if n >= 16 {
		binary.LittleEndian.PutUint64(b, index)
		binary.LittleEndian.PutUint64(b[8:], term)
	}
	return b
}

func entries(lo, hi, term uint64, size int) []Entry {
	var es []Entry
	for i := lo; i < hi; i++ {
		es = append(es, Entry{Index: i, Term: term, Type: uint8(i), Data: data(i, term, size)})
	}
	return es
}

// model is what a log must hold.
type model struct {
	base    Mark
	entries []Entry // from base.Index+1
	state   State
	mark    Mark
}

func (m *model) last() uint64 { return m.base.Index + uint64(len(m.entries)) }

func (m model) with(batches ...Batch) model {
	m.entries = append([]Entry(nil), m.entries...)
	for _, b := range batches {
		if b.Reset {
			m.base, m.entries = b.Mark, nil
		}
		if len(b.Entries) > 0 {
			m.entries = append(m.entries[:b.Entries[0].Index-m.base.Index-1], b.Entries...)
		}
		if b.Mark != (Mark{}) {
			m.mark = b.Mark
		}
		if b.State != (State{}) {
			m.state = b.State
		}
	}
	return m
}

func (m model) truncated(i uint64) model {
	if i > m.base.Index+1 {
		e := m.entries[i-m.base.Index-2]
		m.entries = m.entries[i-m.base.Index-1:]
		m.base = Mark{e.Index, e.Term}
	}
	return m
}

// diff tells how l differs from m. A log may start earlier than the model when
// lenient: truncation inside a segment is durable with the next append only.
func (m *model) diff(l *Log, lenient bool) error {
	if l.State() != m.state || l.Mark() != m.mark {
		return fmt.Errorf("state %v mark %v, want %v %v", l.State(), l.Mark(), m.state, m.mark)
	}
	if l.LastIndex() != m.last() || l.FirstIndex() > m.base.Index+1 || !lenient && l.FirstIndex() != m.base.Index+1 {
		return fmt.Errorf("entries %d to %d, want %d to %d", l.FirstIndex(), l.LastIndex(), m.base.Index+1, m.last())
	}
	if term, err := l.Term(m.base.Index); err != nil || term != m.base.Term {
		return fmt.Errorf("term of base %d is %d, %v, want %d", m.base.Index, term, err, m.base.Term)
	}
	got, err := l.Entries(m.base.Index+1, m.last()+1, 1<<40)
	if err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	if len(got) != len(m.entries) {
		return fmt.Errorf("%d entries, want %d", len(got), len(m.entries))
	}
	for i := range got {
		g, w := got[i], m.entries[i]
		if g.Index != w.Index || g.Term != w.Term || g.Type != w.Type || !bytes.Equal(g.Data, w.Data) {
			return fmt.Errorf("entry %d differs", w.Index)
		}
		if term, err := l.Term(w.Index); err != nil || term != w.Term {
			return fmt.Errorf("term of %d is %d, %v, want %d", w.Index, term, err, w.Term)
		}
	}
	return nil
}

func TestAppendReopen(t *testing.T) {
	for _, o := range []Options{tiny, {SegmentSize: 16 << 10}, {}} {
		fs := &vfs.Mem{}
		l := mustOpen(t, fs, o)
		var m model
		step := func(bs ...Batch) {
			t.Helper()
			must(t, l.Append(bs...))
			m = m.with(bs...)
			must(t, m.diff(l, false))
		}
		step(Batch{State: State{1, 2, 0}})
		step(Batch{Entries: entries(1, 20, 1, 100), State: State{1, 2, 3}})
		step(Batch{Entries: entries(20, 22, 1, 0)}, Batch{Entries: entries(22, 30, 2, 700), State: State{2, 7, 20}})
		step(Batch{Entries: entries(25, 60, 3, 256)})
		step(Batch{Mark: Mark{20, 1}})
		step(Batch{Entries: entries(60, 62, 3, 30_000)})
		must(t, l.TruncateBefore(15))
		m = m.truncated(15)
		must(t, m.diff(l, false))
		step(Batch{Entries: entries(62, 63, 4, 1)})
		must(t, l.Close())
		l = mustOpen(t, fs, o)
		must(t, m.diff(l, false))
		step(Batch{Mark: Mark{100, 5}, Reset: true, State: State{5, 0, 100}})
		step(Batch{Entries: entries(101, 103, 5, 10)})
		must(t, l.TruncateBefore(101))
		must(t, m.diff(l, false))
		must(t, l.Close())
		r, err := Verify(fs, "wal")
		must(t, err)
		if r.First != 101 || r.Last != 102 || r.Torn || r.State != m.state {
			t.Fatalf("report %+v", r)
		}
		l = mustOpen(t, fs, o)
		must(t, m.diff(l, false))
		must(t, l.Close())
	}
}

func TestWrongBatches(t *testing.T) {
	l := mustOpen(t, &vfs.Mem{}, tiny)
	defer l.Close()
	must(t, l.Append(Batch{Entries: entries(1, 10, 1, 10)}))
	for i, b := range []Batch{
		{Entries: entries(11, 12, 1, 1)},
		{Entries: entries(0, 2, 1, 1)},
		{Entries: append(entries(5, 6, 1, 1), entries(7, 8, 1, 1)...)},
		{Reset: true},
		{Mark: Mark{10, 1}},
	} {
		if err := l.Append(b); err == nil || errors.Is(err, ErrFailed) {
			t.Errorf("batch %d: error is %v", i, err)
		}
	}
	if err := l.TruncateBefore(3); err == nil {
		t.Error("truncated without a snapshot")
	}
	must(t, l.Append(Batch{Entries: entries(10, 11, 1, 10), Mark: Mark{10, 1}}))
	for _, c := range []struct {
		lo, hi uint64
		want   error
	}{{0, 2, ErrCompacted}, {11, 12, ErrUnavailable}, {5, 12, ErrUnavailable}, {5, 5, nil}} {
		if _, err := l.Entries(c.lo, c.hi, 10); !errors.Is(err, c.want) {
			t.Errorf("entries %d to %d: %v, want %v", c.lo, c.hi, err, c.want)
		}
	}
	if es, err := l.Entries(3, 9, 25); err != nil || len(es) != 2 {
		t.Errorf("%d entries of 10 bytes, %v, want 2", len(es), err)
	}
	if es, err := l.Entries(3, 9, 0); err != nil || len(es) != 1 {
		t.Errorf("%d entries, %v, want 1", len(es), err)
	}
}

func walFiles(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.ReadDir("wal")
	must(t, err)
	var files []string
	for _, n := range names {
		if _, ok := parseName(n); ok {
			files = append(files, filepath.Join("wal", n))
		}
	}
	return files
}
