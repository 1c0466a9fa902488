package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// sampleStore has history, tombstones, leases, several keys a revision.
func sampleStore(t testing.TB) *Store {
	s := New(Options{})
	for i := range 60 {
		tx := s.Begin()
		tx.Put(fmt.Appendf(nil, "key/%02d", i%20), fmt.Appendf(nil, "value %d", i), kv.LeaseID(i%3), kv.Time(i%5))
		if i%4 == 0 {
			tx.Delete(fmt.Appendf(nil, "key/%02d", (i+7)%20))
			tx.Put(fmt.Appendf(nil, "x/%d", i), nil, 0, 0)
		}
		tx.Commit()
		if i == 30 {
			s.SetCompacted(20)
		}
	}
	return s
}

func encode(t testing.TB, s *Store) []byte {
	t.Helper()
	v := s.View()
	defer v.Close()
	var buf bytes.Buffer
	if _, err := v.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestLoadDamaged: every cut is refused; a changed byte is refused or gives a
// store that is whole in itself (the file around it has checksums).
func TestLoadDamaged(t *testing.T) {
	s := sampleStore(t)
	good := encode(t, s)
	s.Close()
	load := func(b []byte) error {
		s := New(Options{})
		defer s.Close()
		err := s.Load(bytes.NewReader(b), 1)
		if err == nil {
			checkStore(t, s)
			again := encode(t, s)
			if len(again) == 0 {
				t.Fatal("nothing written")
			}
		} else if kv.CodeOf(err) != kv.DataLoss {
			t.Fatalf("error %v has code %v", err, kv.CodeOf(err))
		}
		return err
	}
	if err := load(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if load(good[:i]) == nil {
			t.Fatalf("cut at %d of %d: no error", i, len(good))
		}
	}
	for i := range good {
		for _, flip := range []byte{1, 0x80, 0xff} {
			b := bytes.Clone(good)
			b[i] ^= flip
			_ = load(b)
		}
	}
}

func FuzzLoad(f *testing.F) {
	s := sampleStore(f)
	f.Add(encode(f, s))
	s.Close()
	s = New(Options{})
	f.Add(encode(f, s))
	put(s, "a", string(make([]byte, largeRecord)))
	f.Add(encode(f, s)[:1000])
	s.Close()
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Options{})
		defer s.Close()
		if err := s.Load(bytes.NewReader(b), 2); err == nil {
			checkStore(t, s)
			first := encode(t, s)
			c := New(Options{})
			defer c.Close()
			if err := c.Load(bytes.NewReader(first), 1); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encode(t, c)[headerSize:], first[headerSize:]) {
				t.Fatal("what was loaded is not what was written")
			}
		}
		if m := s.Stats().MemoryBytes; m > 1<<40 {
			t.Fatalf("%d bytes", m)
		}
	})
}

// TestLongHistory: an entry longer than a chunk is continued in the next.
func TestLongHistory(t *testing.T) {
	s := New(Options{})
	value := bytes.Repeat([]byte("v"), 1000)
	put(s, "a", "before")
	for i := range 3000 {
		put(s, "hot", string(binary.BigEndian.AppendUint64(value, uint64(i))))
		if i%100 == 0 {
			put(s, "large", string(make([]byte, largeRecord)))
		}
	}
	put(s, "z", "behind")
	first := encode(t, s)
	s.Close()
	s = New(Options{})
	defer s.Close()
	if err := s.Load(bytes.NewReader(first), 2); err != nil {
		t.Fatal(err)
	}
	checkStore(t, s)
	if !bytes.Equal(encode(t, s), first) {
		t.Fatal("what was loaded is not what was written")
	}
	settle(t, s, s.Revision())
	checkStore(t, s)
	if st := s.Stats(); st.Keys != 4 || st.MemoryBytes > 16<<20 {
		t.Fatalf("%+v", st)
	}
}

type brokenWriter struct{ left int }

var errBroken = errors.New("broken")

func (w *brokenWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errBroken
	}
	return len(b), nil
}

func TestSnapshotErrors(t *testing.T) {
	s := sampleStore(t)
	defer s.Close()
	v := s.View()
	defer v.Close()
	n, _ := v.WriteTo(io.Discard)
	for left := range int(n) {
		if _, err := v.WriteTo(&brokenWriter{left}); !errors.Is(err, errBroken) {
			t.Fatalf("after %d bytes: %v", left, err)
		}
	}
	c := New(Options{})
	defer c.Close()
	r, w := io.Pipe()
	w.CloseWithError(errBroken)
	if err := c.Load(r, 1); !errors.Is(err, errBroken) {
		t.Fatalf("a broken reader: %v", err)
	}
}
