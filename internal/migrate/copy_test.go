package migrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func model() *kvtest.Model { return kvtest.NewModel(kv.Limits{}) }

// put writes KEY=VALUE.
func put(t testing.TB, s kv.Store, line string, opts ...kv.PutOption) {
	t.Helper()
	key, value, _ := strings.Cut(line, "=")
	if _, err := kv.Put(t.Context(), s, key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

func grant(t testing.TB, s kv.Store, id kv.LeaseID) {
	t.Helper()
	if _, err := s.Grant(t.Context(), kv.Grant{ID: id, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
}

// scatter writes some of the keys that there may be.
func scatter(t testing.TB, s kv.Store, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	grant(t, s, 7)
	grant(t, s, kv.LeaseID(10+seed))
	for range 900 {
		key := fmt.Sprintf("%c/%03d", 'a'+rng.IntN(3), rng.IntN(400))
		var opts []kv.PutOption
		if rng.IntN(5) == 0 {
			opts = append(opts, kv.WithLease(7))
		}
		put(t, s, key+"="+strings.Repeat("v", rng.IntN(3)), opts...)
	}
}

func state(t testing.TB, s kv.Store, prefix string) map[string]string {
	t.Helper()
	key, end := []byte{0}, []byte{0}
	if prefix != "" {
		key, end = []byte(prefix), kv.Prefix([]byte(prefix))
	}
	res, err := s.Range(t.Context(), kv.Range{Key: key, End: end})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, k := range res.KVs {
		out[string(k.Key)] = fmt.Sprintf("%s %d", k.Value, k.Lease)
	}
	return out
}

func copyAll(t testing.TB, from, to kv.Store, p Plan) Summary {
	t.Helper()
	var err error
	if p.From, err = Live(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	p.To = to
	c := New(p)
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.Summary()
}

// A copy makes the target equal where it may, and nothing the second time.
func TestCopy(t *testing.T) {
	for _, prefix := range []string{"", "b/"} {
		for _, deletes := range []bool{false, true} {
			from, to := model(), model()
			scatter(t, from, 1)
			scatter(t, to, 2)
			want, before := state(t, from, prefix), state(t, to, "")
			p := Plan{Prefix: []byte(prefix), Delete: deletes}
			sum := copyAll(t, from, to, p)
			if sum.Keys != int64(len(want)) || sum.Written+sum.Unchanged != sum.Keys || sum.Unchanged == 0 || sum.Deleted > 0 != deletes {
				t.Errorf("%+v", sum)
			}
			got := state(t, to, "")
			for key, value := range got {
				source, there := want[key]
				switch inside := prefix == "" || key[:2] == prefix; {
				case inside && there:
					if value != source {
						t.Errorf("%s is %s instead of %s", key, value, source)
					}
					delete(want, key)
				case inside && deletes:
					t.Errorf("%s is there", key)
				case value != before[key]:
					t.Errorf("%s was changed", key)
				}
			}
			if len(want) > 0 {
				t.Errorf("%d keys are missing", len(want))
			}
			head := func() kv.Revision {
				res, err := to.Range(t.Context(), kv.Range{Key: []byte("x")})
				if err != nil {
					t.Fatal(err)
				}
				return res.Revision
			}
			rev := head()
			again := copyAll(t, from, to, p)
			if again.Written != 0 || again.Deleted != 0 || again.Granted != 0 || again.Unchanged != sum.Keys || head() != rev {
				t.Errorf("the second copy: %+v, revisions %d and %d", again, rev, head())
			}
		}
	}
}

// Leases come along: all of them with all keys, else those that are used.
func TestLeases(t *testing.T) {
	for prefix, want := range map[string][]kv.LeaseID{"": {7, 8, 9}, "a": {7}} {
		from, to := model(), model()
		for id := range kv.LeaseID(3) {
			grant(t, from, 7+id)
		}
		put(t, from, "a=1", kv.WithLease(7))
		put(t, from, "b=1", kv.WithLease(8))
		copyAll(t, from, to, Plan{Prefix: []byte(prefix)})
		got, err := to.Leases(t.Context())
		if err != nil || fmt.Sprint(got.IDs) != fmt.Sprint(want) {
			t.Errorf("prefix %q: leases %v, %v", prefix, got.IDs, err)
		}
		l, err := to.TimeToLive(t.Context(), 7, true)
		if err != nil || l.TTL != time.Hour || len(l.Keys) != 1 {
			t.Errorf("%+v, %v", l, err)
		}
	}
}

// failing refuses transactions after some.
type failing struct {
	kv.Store
	left int
}

func (f *failing) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	if f.left--; f.left < 0 {
		return kv.TxnResult{}, kv.ErrNoLeader
	}
	return f.Store.Txn(ctx, t)
}

// A copy that was interrupted goes on where it was.
func TestInterrupted(t *testing.T) {
	from, to := model(), model()
	scatter(t, from, 1)
	source, err := Live(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Plan{From: source, To: &failing{to, 2}})
	if err := c.Run(t.Context()); !errors.Is(err, kv.ErrNoLeader) {
		t.Fatalf("got %v", err)
	}
	sum := copyAll(t, from, to, Plan{})
	if sum.Unchanged != 2*batchOps || fmt.Sprint(state(t, from, "")) != fmt.Sprint(state(t, to, "")) {
		t.Errorf("%+v", sum)
	}
}

// The source is read at one revision, whatever is written meanwhile, and what
// is written then is followed.
func TestFollow(t *testing.T) {
	from, to := model(), model()
	scatter(t, from, 1)
	source, err := Live(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	put(t, from, "a/000=late")
	c := New(Plan{From: source, To: to})
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state(t, to, "")["a/000"] == "late 0" {
		t.Error("a later write was copied")
	}
	grant(t, from, 99)
	put(t, from, "z=1", kv.WithLease(99))
	if _, err := kv.DeleteRange(t.Context(), from, kv.Op{Key: []byte("b"), End: []byte("c")}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := 0
	err = c.Follow(ctx, func() {
		if told++; c.Summary().Revision >= source.Revision()+3 {
			cancel()
		}
	})
	if err != nil || fmt.Sprint(state(t, from, "")) != fmt.Sprint(state(t, to, "")) {
		t.Errorf("%v after %d revisions", err, told)
	}
	if l, err := to.TimeToLive(t.Context(), 99, true); err != nil || len(l.Keys) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
}
