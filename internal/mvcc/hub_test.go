package mvcc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// TestHubModel compares who is woken with a plain list of ranges.
func TestHubModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	s := New(Options{})
	defer s.Close()
	type watch struct {
		key, end []byte
		w        *Watcher
		want     []kv.Revision
	}
	var watches []*watch
	w := &world{rng: rng, keys: 60}
	for range 5000 {
		switch n := rng.IntN(10); {
		case n < 3:
			key, end := w.span()
			watches = append(watches, &watch{key: key, end: end, w: s.Hub().Register(key, end)})
		case n < 5 && len(watches) > 0:
			i := rng.IntN(len(watches))
			watches[i].w.Close()
			watches[i].w.Close() // harmless
			watches = slices.Delete(watches, i, i+1)
		case n < 6 && len(watches) > 0:
			x := watches[rng.IntN(len(watches))]
			if rev := x.w.Revision(); len(x.want) > 0 && rev != x.want[len(x.want)-1] {
				t.Fatalf("Revision = %d, want the last of %v", rev, x.want)
			}
			woken := len(x.w.C) > 0
			got, all := x.w.Take(nil)
			want := x.want
			if len(want) > rememberedRevisions {
				want = []kv.Revision{want[0], want[len(want)-1]}
			}
			if woken != (len(want) > 0) || all != (len(x.want) <= rememberedRevisions) || !slices.Equal(got, want) {
				t.Fatalf("range %q %q: woken %v, %v, all %v; want %v", x.key, x.end, woken, got, all, x.want)
			}
			x.want = nil
		default:
			tx := s.Begin()
			touched := map[*watch]bool{}
			for range 1 + rng.IntN(3) {
				k := w.key()
				tx.Put(k, nil, 0, 0)
				for _, x := range watches {
					if kv.InRange(k, x.key, x.end) {
						touched[x] = true
					}
				}
			}
			rev := tx.Commit()
			for x := range touched {
				x.want = append(x.want, rev)
			}
		}
	}
	for _, x := range watches {
		x.w.Close()
	}
	if h := s.Hub(); h.active.Load() != 0 || len(h.keys) != 0 || h.ranges.root != nil {
		t.Fatal("the hub is not empty when all are closed")
	}
}

// TestHandOver: watchers that come and go while others write see every change of
// their range once, in order: history first, then what wakes them.
func TestHandOver(t *testing.T) {
	const writes, keys = 20_000, 10
	s := New(Options{})
	defer s.Close()
	var wait sync.WaitGroup
	for n := range 6 {
		wait.Go(func() {
			q := &kv.WatchRequest{Key: fmt.Appendf(nil, "k%d", n)}
			if n%2 == 0 {
				q.End = fmt.Appendf(nil, "k%d", n+2)
			}
			follow(t, s, q, writes+1)
		})
	}
	for i := range writes {
		put(s, fmt.Sprintf("k%d", i%keys), fmt.Sprint(i))
		s.CompactStep(10)
	}
	wait.Wait()
}

// follow is the loop of a watch: a cursor, a wake-up.
func follow(t *testing.T, s *Store, q *kv.WatchRequest, until kv.Revision) {
	cursor := kv.Revision(2)
	count := 0
	read := func(v View, from, to kv.Revision) {
		err := v.Changes(from, to, q, func(rev kv.Revision, ev kv.Event) bool {
			if rev < cursor || !kv.InRange(ev.KV.Key, q.Key, q.End) {
				t.Errorf("change %v at %d, cursor %d", ev, rev, cursor)
			}
			count++
			cursor = rev + 1
			return true
		})
		if err != nil {
			t.Error(err)
		}
	}
	w := s.Hub().Register(q.Key, q.End)
	v := s.View()
	read(v, cursor, 0)
	cursor = v.Revision() + 1
	v.Close()
	want := 0
	for i := range int(until) - 1 {
		if kv.InRange(fmt.Appendf(nil, "k%d", i%10), q.Key, q.End) {
			want++
		}
	}
	for rounds := 0; count < want; rounds++ {
		<-w.C
		revs, all := w.Take(nil)
		v := s.View()
		for _, rev := range revs {
			if rev >= cursor && all {
				read(v, rev, rev)
			}
		}
		if !all {
			read(v, cursor, revs[1])
		}
		v.Close()
		if rounds%10 == 9 { // register anew
			w.Close()
			w = s.Hub().Register(q.Key, q.End)
			v := s.View()
			read(v, cursor, 0)
			v.Close()
		}
	}
	w.Close()
	if count != want {
		t.Errorf("%d changes, want %d", count, want)
	}
}

// BenchmarkWatchedPut is a put while 100,000 others watch other keys.
func BenchmarkWatchedPut(b *testing.B) {
	for _, watchers := range []int{0, 100_000} {
		b.Run(fmt.Sprint(watchers), func(b *testing.B) {
			s := New(Options{})
			defer s.Close()
			for i := range watchers {
				k := fmt.Appendf(nil, "watched/%06d", i)
				if i%2 == 0 {
					s.Hub().Register(k, nil)
				} else {
					s.Hub().Register(k, kv.Prefix(k))
				}
			}
			i := 0
			for b.Loop() {
				tx := s.Begin()
				tx.Put(fmt.Appendf(nil, "key/%d", i%1000), nil, 0, 0)
				tx.Commit()
				if i++; i%100_000 == 0 {
					s.SetCompacted(s.Revision())
				}
				s.CompactStep(4)
			}
		})
	}
}

// With nothing to take, a watcher has seen every change up to Settled: the
// writer must not let a mark overtake a change that it has not woken for yet.
func TestSettledNeverOvertakesAWake(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	w := s.Hub().Register([]byte("k"), nil)
	defer w.Close()
	const puts = 20_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range puts {
			tx := s.Begin()
			tx.Put([]byte("k"), []byte("v"), 0, 0)
			tx.Commit()
		}
	}()
	var seen kv.Revision = 1
	for seen < puts+1 {
		settled := s.Hub().Settled()
		revs, _ := w.Take(nil)
		if len(revs) > 0 {
			seen = max(seen, revs[len(revs)-1])
		}
		if seen < settled {
			t.Fatalf("settled at %d, woken up to %d", settled, seen)
		}
	}
	<-done
}
