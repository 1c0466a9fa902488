package lease

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func (s *set) all() []string {
	var all []string
	for e := range s.from("") {
		all = append(all, string(e))
	}
	return all
}

// check asserts the invariants of the layout.
func (s *set) check(t *testing.T) {
	t.Helper()
	const longest = 5000
	n, last := 0, ""
	s.pages.Scan(func(bound string, p *page) bool {
		if bound != "" && len(p.data) == 0 {
			t.Errorf("page %q is empty", bound)
		}
		entries := 0
		for at := 0; at < len(p.data); entries++ {
			size, w := entry(p.data[at:])
			e := string(p.data[at+w : at+w+size])
			if e < bound || n > 0 && e <= last {
				t.Errorf("%q after %q in page %q", e, last, bound)
			}
			n, last, at = n+1, e, at+w+size
		}
		if len(p.data) > pageBytes+2*longest && entries > 1 {
			t.Errorf("page %q has %d bytes in %d entries", bound, len(p.data), entries)
		}
		return true
	})
	if n != s.n {
		t.Errorf("the set says it has %d entries, it has %d", s.n, n)
	}
}

// A set behaves as a sorted list does, and its copies never change.
func TestSetModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := newSet()
		model := map[string]bool{}
		type frozen struct {
			set  *set
			want []string
		}
		var copies []frozen
		for range 5000 {
			e := fmt.Sprintf("%04d", rng.IntN(3000))
			if rng.IntN(50) == 0 {
				e += strings.Repeat("x", rng.IntN(4990))
			}
			switch {
			case rng.IntN(500) == 0:
				copies = append(copies, frozen{s.copy(), s.all()})
			case rng.IntN(5) < 3:
				s.insert(e)
				model[e] = true
			default:
				if s.remove(e) != model[e] {
					t.Fatalf("seed %d: remove %q", seed, e)
				}
				delete(model, e)
			}
		}
		var want []string
		for e := range model {
			want = append(want, e)
		}
		slices.Sort(want)
		if !slices.Equal(s.all(), want) {
			t.Fatalf("seed %d: sets differ", seed)
		}
		s.check(t)
		from := fmt.Sprintf("%04d", rng.IntN(3000))
		at, _ := slices.BinarySearch(want, from)
		var got []string
		for e := range s.from(from) {
			got = append(got, string(e))
		}
		if !slices.Equal(got, want[at:]) {
			t.Fatalf("seed %d: from %q differs", seed, from)
		}
		for _, c := range copies {
			if !slices.Equal(c.set.all(), c.want) {
				t.Fatalf("seed %d: a copy changed", seed)
			}
			c.set.check(t)
		}
	}
}
