package mvcc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/concord-kv/concord/kv"
)

func put(s *Store, key, value string) kv.Revision {
	tx := s.Begin()
	tx.Put([]byte(key), []byte(value), 0, 0)
	return tx.Commit()
}

// settle compacts to rev and lets everything be given back that can be.
func settle(t testing.TB, s *Store, rev kv.Revision) {
	t.Helper()
	s.SetCompacted(rev)
	for i := 0; s.CompactStep(1000); i++ {
		if i > 10_000_000 {
			t.Fatal("compaction does not end")
		}
	}
}

func TestEmptyStore(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	v := s.View()
	defer v.Close()
	if v.Revision() != 1 || v.CompactRevision() != 0 {
		t.Fatalf("a fresh store is at %d, %d", v.Revision(), v.CompactRevision())
	}
	r, err := v.Range(&kv.Range{Key: []byte{0}, End: []byte{0}, Revision: 1})
	if err != nil || r.Count != 0 || r.KVs != nil || r.Revision != 1 {
		t.Fatalf("Range = %+v, %v", r, err)
	}
	tx := s.Begin()
	if _, existed := tx.Delete([]byte("a")); existed {
		t.Fatal("deleted what is not there")
	}
	if rev := tx.Commit(); rev != 1 {
		t.Fatalf("a transaction without changes made revision %d", rev)
	}
	s.Begin().Discard()
	if m := s.Stats().MemoryBytes; m > 8<<20 {
		t.Fatalf("an empty store takes %d bytes", m)
	}
}

func TestOneKeySeveralTimesInATransaction(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	put(s, "a", "0")
	tx := s.Begin()
	tx.Put([]byte("a"), []byte("1"), 7, 0)
	tx.Put([]byte("b"), []byte("x"), 0, 0)
	tx.Put([]byte("a"), []byte("2"), 0, 9)
	if _, existed := tx.Delete([]byte("b")); !existed {
		t.Fatal("b is not there")
	}
	tx.Put([]byte("c"), []byte("y"), 0, 0)
	tx.Delete([]byte("c"))
	tx.Put([]byte("c"), []byte("z"), 0, 0)
	rev := tx.Commit()
	v := s.View()
	defer v.Close()
	if x, ok := v.Get([]byte("a"), 0); !ok || string(x.Value) != "2" || x.Expires != 9 || x.Lease != 0 || x.CreateRevision != rev-1 {
		t.Fatalf("a = %+v", x)
	}
	if x, ok := v.Get([]byte("c"), 0); !ok || string(x.Value) != "z" || x.Version != 1 || x.CreateRevision != rev {
		t.Fatalf("c = %+v", x)
	}
	var got []string
	err := v.Changes(rev, rev, &kv.WatchRequest{Key: []byte{0}, End: []byte{0}, PrevKV: true}, func(_ kv.Revision, ev kv.Event) bool {
		prev := ""
		if ev.Prev != nil {
			prev = string(ev.Prev.Value)
		}
		got = append(got, fmt.Sprint(ev.Type, string(ev.KV.Key), string(ev.KV.Value), prev))
		return true
	})
	if want := "[PUT a 2 0 DELETE b   PUT c z ]"; err != nil || fmt.Sprint(got) != "[PUTa20 DELETEb PUTcz]" {
		t.Fatalf("changes = %v, %v; want %s", got, err, want)
	}
	checkStore(t, s)
}

func TestExtremes(t *testing.T) {
	s := New(Options{})
	defer func() { s.Close() }()
	long := bytes.Repeat([]byte("k"), maxKey)
	huge := make([]byte, 256<<20)
	for i := range huge {
		huge[i] = byte(i >> 12)
	}
	tx := s.Begin()
	tx.Put(long, nil, 0, 0)
	tx.Put(long[:maxKey-1], []byte("x"), 0, 0)
	tx.Put([]byte{0}, []byte{}, 0, 0)
	tx.Put([]byte("huge"), huge, 1, 2)
	tx.Put([]byte("edge"), huge[:largeRecord-32], 0, 0)
	rev := tx.Commit()
	check := func() {
		t.Helper()
		v := s.View()
		defer v.Close()
		for key, want := range map[string][]byte{string(long): nil, string(long[:maxKey-1]): []byte("x"), "\x00": nil, "huge": huge, "edge": huge[:largeRecord-32]} {
			if x, ok := v.Get([]byte(key), rev); !ok || !bytes.Equal(x.Value, want) || string(x.Key) != key {
				t.Fatalf("key %.20q: found %v, %d bytes", key, ok, len(x.Value))
			}
		}
		if r, err := v.Range(&kv.Range{Key: []byte{0}, End: []byte{0}, KeysOnly: true}); err != nil || r.Count != 5 {
			t.Fatalf("Range = %d, %v", r.Count, err)
		}
	}
	check()
	v := s.View()
	var buf bytes.Buffer
	if _, err := v.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	v.Close()
	s.Close()
	s = New(Options{})
	if err := s.Load(&buf, 2); err != nil {
		t.Fatal(err)
	}
	check()
	tx = s.Begin()
	tx.Delete([]byte("huge"))
	settle(t, s, tx.Commit())
	if m := s.Stats().MemoryBytes; m > 16<<20 {
		t.Fatalf("%d bytes are left when the large value is gone", m)
	}
	checkStore(t, s)
}

// TestTree grows and shrinks the tree over several levels.
func TestTree(t *testing.T) {
	for style := range 4 {
		t.Run(fmt.Sprint(style), func(t *testing.T) {
			s := New(Options{})
			defer s.Close()
			w := &world{rng: rand.New(rand.NewPCG(uint64(style), 1)), keys: 30_000, style: style}
			there := map[string]bool{}
			for round := range 6 {
				for range 15_000 {
					k := string(w.key())
					tx := s.Begin()
					if round%2 == 0 || w.rng.IntN(10) == 0 {
						tx.Put([]byte(k), []byte("v"), 0, 0)
						there[k] = true
					} else {
						if _, existed := tx.Delete([]byte(k)); existed != there[k] {
							t.Fatalf("Delete(%q) = %v", k, existed)
						}
						delete(there, k)
					}
					tx.Commit()
				}
				put(s, "a", "")
				there["a"] = true
				settle(t, s, put(s, "a", ""))
				checkStore(t, s)
				if st := s.Stats(); st.Keys != int64(len(there)) {
					t.Fatalf("%d keys, want %d", st.Keys, len(there))
				}
			}
			tx := s.Begin()
			for k := range there {
				tx.Delete([]byte(k))
			}
			tx.Commit()
			settle(t, s, put(s, "b", ""))
			put(s, "b", "")
			settle(t, s, put(s, "b", ""))
			checkStore(t, s)
			if _, height := s.tree.rootAndHeight(); s.hash.live.Load() != 1 || height > 1 {
				t.Fatalf("%d keys at height %d are left", s.hash.live.Load(), height)
			}
		})
	}
}

func fill256(s *Store, keys, from int) {
	value := bytes.Repeat([]byte("v"), 256)
	var key []byte
	for i := from; i < keys; i++ {
		key = benchKey(key, i)
		tx := s.Begin()
		tx.Put(key, value, 0, 0)
		tx.Commit()
	}
}

// TestMemoryComesBack: history and deletes give their memory back.
func TestMemoryComesBack(t *testing.T) {
	const keys = 200_000
	s := New(Options{})
	defer s.Close()
	fill256(s, keys, 0)
	fresh := s.Stats()
	for range 5 {
		fill256(s, keys, 0)
	}
	full := s.Stats()
	if full.HistoryBytes < 5*keys*256 || full.MemoryBytes < 4*fresh.MemoryBytes {
		t.Fatalf("history takes %d of %d bytes", full.HistoryBytes, full.MemoryBytes)
	}
	settle(t, s, s.Revision())
	settle(t, s, put(s, "x", ""))
	checkStore(t, s)
	after := s.Stats()
	if after.MemoryBytes > fresh.MemoryBytes*13/10 || after.HistoryBytes != 0 || after.Versions != keys+1 {
		t.Fatalf("fresh %+v, after compaction %+v", fresh, after)
	}
	// Leave every twentieth key, at random.
	rng := rand.New(rand.NewPCG(3, 4))
	var key []byte
	tx := s.Begin()
	for i := range keys {
		if rng.IntN(20) > 0 {
			key = benchKey(key, i)
			tx.Delete(key)
		}
	}
	tx.Commit()
	put(s, "x", "")
	settle(t, s, s.Revision())
	put(s, "x", "")
	settle(t, s, s.Revision())
	for range 5000 {
		put(s, "x", "") // the hash shrinks and pages stuck are tried again
	}
	settle(t, s, s.Revision())
	checkStore(t, s)
	last := s.Stats()
	if last.MemoryBytes > fresh.MemoryBytes/20+24<<20 {
		t.Fatalf("fresh %+v, with a twentieth of the keys %+v", fresh, last)
	}
}

// TestChurn: keys that come and go take no more memory as time goes by.
func TestChurn(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	at := int64(0)
	for i := range 200_000 {
		tx := s.Begin()
		tx.Put(benchKey(nil, i), []byte("value"), 0, 0)
		if i >= 1000 {
			tx.Delete(benchKey(nil, i-1000))
		}
		tx.Commit()
		if i%1000 == 999 {
			s.SetCompacted(s.Revision())
		}
		s.CompactStep(20)
		if i == 50_000 {
			at = s.Stats().MemoryBytes
		}
	}
	checkStore(t, s)
	if m := s.Stats().MemoryBytes; m > at+2*pageSize || m > 40<<20 {
		t.Fatalf("%d bytes after 50,000 changes, %d after 200,000", at, m)
	}
}

// TestHeldView: a view sees the same until it is closed, and holds memory only
// that long.
func TestHeldView(t *testing.T) {
	const keys = 50_000
	s := New(Options{})
	defer s.Close()
	fill256(s, keys, 0)
	fresh := s.Stats().MemoryBytes
	v := s.View()
	whole := &kv.Range{Key: []byte{0}, End: []byte{0}}
	before, err := v.Range(whole)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for i := range keys {
			tx := s.Begin()
			if i%3 == 0 {
				tx.Delete(benchKey(nil, i))
			} else {
				tx.Put(benchKey(nil, i), []byte("new"), 0, 0)
			}
			tx.Commit()
		}
		settle(t, s, s.Revision())
	}
	after, err := v.Range(whole)
	if err != nil || !sameResult(before, after) {
		t.Fatalf("the view changed: %d keys, then %d, %v", before.Count, after.Count, err)
	}
	if r, err := v.Range(&kv.Range{Key: []byte{0}, End: []byte{0}, Revision: 100}); err != nil || r.Count != 99 {
		t.Fatalf("at 100: %d, %v", r.Count, err)
	}
	v.Close()
	settle(t, s, put(s, "x", ""))
	settle(t, s, put(s, "x", ""))
	checkStore(t, s)
	if st := s.Stats(); st.MemoryBytes > fresh || st.PinnedBytes != 0 {
		t.Fatalf("%+v, fresh %d", st, fresh)
	}
}

func TestCloseWithOpenView(t *testing.T) {
	s := New(Options{})
	put(s, "a", "1")
	v, w := s.View(), s.View()
	s.Close()
	if s.unmapped.Load() {
		t.Fatal("memory was taken from an open view")
	}
	if x, ok := v.Get([]byte("a"), 0); !ok || string(x.Value) != "1" {
		t.Fatalf("Get = %v, %v", x, ok)
	}
	v.Close()
	late := s.View()
	if _, err := late.Range(&kv.Range{Key: []byte("a")}); err != kv.ErrClosed {
		t.Fatalf("Range after Close: %v", err)
	}
	if _, ok := s.Get([]byte("a")); ok {
		t.Fatal("Get after Close found something")
	}
	late.Close()
	if s.unmapped.Load() {
		t.Fatal("memory was taken from an open view")
	}
	w.Close()
	if !s.unmapped.Load() {
		t.Fatal("memory is still mapped")
	}
}

// TestConcurrentReaders moves money between accounts while readers sum it up, at
// the current revision and at older ones; keys come and go, the hash grows, and
// pages are emptied all the time. Every value names its key and revision.
func TestConcurrentReaders(t *testing.T) {
	const accounts, total, rounds = 500, 500 * 1000, 4000
	s := New(Options{})
	defer s.Close()
	w := &world{t: t, rng: rand.New(rand.NewPCG(1, 1)), s: s}
	account := func(i int) []byte { return fmt.Appendf(nil, "account/%04d", i) }
	value := func(key []byte, rev kv.Revision, amount uint64) []byte {
		b := binary.BigEndian.AppendUint64(nil, amount)
		return append(binary.BigEndian.AppendUint64(b, uint64(rev)), key...)
	}
	tx := s.Begin()
	for i := range accounts {
		tx.Put(account(i), value(account(i), tx.Revision(), total/accounts), 0, 0)
	}
	tx.Commit()
	var stop atomic.Bool
	var wait sync.WaitGroup
	for n := range 3 {
		wait.Go(func() { (&accountReader{s, n, total, &stop}).run(t) })
	}
	wait.Go(func() { copyAccounts(t, s, total, &stop) })
	extra := 0
	for round := range rounds {
		tx := s.Begin()
		a, b := account(w.rng.IntN(accounts)), account(w.rng.IntN(accounts))
		x, _ := tx.Get(a)
		if amount := binary.BigEndian.Uint64(x.Value); amount > 0 && !bytes.Equal(a, b) {
			move := w.rng.Uint64N(amount)
			y, _ := tx.Get(b)
			other := binary.BigEndian.Uint64(y.Value)
			tx.Put(a, value(a, tx.Revision(), amount-move), 0, 0)
			tx.Put(b, value(b, tx.Revision(), other+move), 0, 0)
		}
		for range w.rng.IntN(8) {
			k := fmt.Appendf(nil, "account/%04d/%d", w.rng.IntN(accounts), extra)
			extra++
			tx.Put(k, value(k, tx.Revision(), 0), 0, 0)
			if w.rng.IntN(2) == 0 {
				tx.Delete(fmt.Appendf(nil, "account/%04d/%d", w.rng.IntN(accounts), w.rng.IntN(extra)))
			}
		}
		tx.Commit()
		if round%50 == 0 && s.Revision() > s.CompactRevision()+100 {
			s.SetCompacted(s.Revision() - 50)
		}
		s.CompactStep(50)
		if round%20 == 0 {
			w.forceEmpty()
		}
	}
	stop.Store(true)
	wait.Wait()
	checkStore(t, s)
}

// copyAccounts sums up what a snapshot taken meanwhile holds.
func copyAccounts(t *testing.T, s *Store, total uint64, stop *atomic.Bool) {
	for !stop.Load() {
		var buf bytes.Buffer
		v := s.View()
		_, err := v.WriteTo(&buf)
		v.Close()
		if err != nil {
			t.Error(err)
			return
		}
		c := New(Options{})
		if err := c.Load(&buf, 2); err != nil {
			t.Error(err)
			c.Close()
			return
		}
		checkStore(t, c)
		w := c.View()
		for rev := max(w.CompactRevision(), 2); rev <= w.Revision(); rev += 7 {
			sum := uint64(0)
			c.scan([]byte{0}, []byte{0}, rev, func(found []found) bool {
				for _, f := range found {
					sum += binary.BigEndian.Uint64(c.version(f.version).fields().value)
				}
				return true
			})
			if sum != total || w.Revision() != v.Revision() || w.CompactRevision() != v.CompactRevision() {
				t.Errorf("the copy's sum at %d of %d is %d", rev, w.Revision(), sum)
			}
		}
		w.Close()
		c.Close()
	}
}

type accountReader struct {
	s     *Store
	seed  int
	total uint64
	stop  *atomic.Bool
}

func (a *accountReader) run(t *testing.T) {
	s, total, stop := a.s, a.total, a.stop
	rng := rand.New(rand.NewPCG(uint64(a.seed), 9))
	last := kv.Revision(0)
	for !stop.Load() {
		v := s.View()
		if v.Revision() < last {
			t.Errorf("revision %d after %d", v.Revision(), last)
		}
		last = v.Revision()
		rev := max(v.CompactRevision(), 2)
		rev += kv.Revision(rng.Int64N(int64(v.Revision()-rev) + 1))
		r, err := v.Range(&kv.Range{Key: []byte("account/"), End: []byte("account0"), Revision: rev})
		if err != nil {
			t.Error(err)
		}
		sum := uint64(0)
		for _, x := range r.KVs {
			if len(x.Value) < 16 || !bytes.Equal(x.Value[16:], x.Key) || binary.BigEndian.Uint64(x.Value[8:]) != uint64(x.ModRevision) {
				t.Errorf("key %q has value %q at %d", x.Key, x.Value, x.ModRevision)
				v.Close()
				return
			}
			sum += binary.BigEndian.Uint64(x.Value)
		}
		if sum != total {
			t.Errorf("the sum at %d of %d is %d in %d keys", rev, v.Revision(), sum, r.Count)
			v.Close()
			return
		}
		for _, x := range r.KVs[:min(50, len(r.KVs))] {
			if y, ok := v.Get(x.Key, rev); !ok || !same(x, y) {
				t.Errorf("Get(%q) at %d = %v, %v; Range has %v", x.Key, rev, y, ok, x)
			}
			if y, ok := s.Get(x.Key); ok && (!bytes.Equal(y.Value[16:], x.Key) || binary.BigEndian.Uint64(y.Value[8:]) != uint64(y.ModRevision)) {
				t.Errorf("Get(%q) = %v", x.Key, y)
			}
		}
		at := kv.Revision(0)
		_ = v.Changes(v.CompactRevision(), 0, &kv.WatchRequest{Key: []byte("account/0"), End: []byte("account/1"), PrevKV: true}, func(rev kv.Revision, ev kv.Event) bool {
			if rev < at || ev.Type == kv.PutEvent && !bytes.Equal(ev.KV.Value[16:], ev.KV.Key) {
				t.Errorf("change at %d after %d: %v", rev, at, ev)
			}
			at = rev
			return true
		})
		v.Close()
	}
}
