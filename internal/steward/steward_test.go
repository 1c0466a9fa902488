package steward

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster gives views and notes what is done to it.
type cluster struct {
	view  View
	leads bool
	err   error
	// stuck changes wait for their context.
	stuck bool
	began time.Time
	at    []time.Duration
	terms []kv.Term
}

func (c *cluster) View(context.Context) (View, bool) { return c.view, c.leads }

func (c *cluster) Change(ctx context.Context, term kv.Term, a Action) error {
	c.at, c.terms = append(c.at, time.Since(c.began)), append(c.terms, term)
	if c.stuck {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if c.err == nil {
		c.view.Members = slices.DeleteFunc(c.view.Members, func(m Member) bool { return slices.Contains(a.Remove, m.ID) })
	}
	return c.err
}

func run(t *testing.T, c *cluster, d time.Duration) *Steward {
	c.began = time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	s := New(Config{Cluster: c})
	if err := s.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return s
}

const second = time.Second

func TestRun(t *testing.T) {
	dead := "v1 v2 v3 l4:2m l5:2m"
	for name, c := range map[string]struct {
		cluster
		want []time.Duration
	}{
		"one change at a time":      {cluster{leads: true}, []time.Duration{second, 2 * second}},
		"only the leader":           {cluster{}, nil},
		"failures slow it down":     {cluster{leads: true, err: kv.ErrNoLeader}, []time.Duration{second, 2 * second, 4 * second, 8 * second, 16 * second, 32 * second, 62 * second, 92 * second}},
		"a change that gets stuck":  {cluster{leads: true, stuck: true}, []time.Duration{second, 12 * second, 24 * second, 38 * second, 56 * second, 82 * second}},
		"a leader that is replaced": {cluster{leads: true, err: kv.ErrNotLeader}, []time.Duration{second, 2 * second, 4 * second, 8 * second, 16 * second, 32 * second, 62 * second, 92 * second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			c.view = parse(t, 3, dead)
			s := run(t, &c.cluster, 100*second)
			if !slices.Equal(c.at, c.want) {
				t.Errorf("%s: changes at %v, want %v", name, c.at, c.want)
			}
			for _, term := range c.terms {
				if term != c.view.Term {
					t.Errorf("%s: a change in term %d", name, term)
				}
			}
			r := s.Report()
			if wants := c.leads && (c.err != nil || c.stuck); wants != (len(r.Judgement) > 0) || c.leads != (r.Term == c.view.Term) {
				t.Errorf("%s: report %+v", name, r)
			}
		})
	}
}
