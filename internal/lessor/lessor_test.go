package lessor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// member is a leader with leases that cost nothing to expire. Its clock starts
// at the first use.
type member struct {
	began    time.Time
	term     kv.Term
	leads    bool
	due      []kv.Time
	err      error
	proposed []string
	ended    []time.Duration
	// beats counts those of which the last was at beat.
	beats int
	beat  kv.Time
}

// Beat brings the time into the log while something is due some time.
func (m *member) Beat(term kv.Term, since kv.Time) []byte {
	if len(m.due) == 0 || m.beat > since {
		return nil
	}
	return fmt.Appendf(nil, "term %d: beat", term)
}

func (m *member) Leading() (kv.Term, time.Duration, bool) {
	return m.term, time.Since(m.began), m.leads
}

func (m *member) ClusterTime() kv.Time { return kv.Time(time.Since(m.began).Milliseconds()) }

func (m *member) NextDeadline() kv.Time {
	if len(m.due) == 0 {
		return math.MaxInt64
	}
	return slices.Min(m.due)
}

func (m *member) Expiry(term kv.Term, now kv.Time, max int) ([]byte, bool) {
	n, over := 0, 0
	for _, at := range m.due {
		if at <= now {
			over++
		}
	}
	if n = min(over, max); n == 0 {
		return nil, false
	}
	return fmt.Appendf(nil, "term %d: %d", term, n), over > n
}

func (m *member) ProposeLocal(_ context.Context, term kv.Term, command []byte) (any, error) {
	if string(command) == fmt.Sprintf("term %d: beat", term) {
		m.beats, m.beat = m.beats+1, m.ClusterTime()
		return nil, m.err
	}
	m.proposed = append(m.proposed, string(command))
	if m.err != nil {
		return nil, m.err
	}
	var n int
	if _, err := fmt.Sscanf(string(command), fmt.Sprintf("term %d: %%d", term), &n); err != nil {
		return nil, err
	}
	slices.Sort(m.due)
	m.due = m.due[n:]
	m.ended = append(m.ended, time.Since(m.began))
	return nil, nil
}

// run lets a Lessor work for d of fake time.
func run(m *member, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return New(Config{Leader: m, Deadlines: m}).Run(ctx)
}

func TestExpiresInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), term: 3, leads: true, due: []kv.Time{1500, 1500, 4321}}
		if err := run(m, 10*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		want := []time.Duration{1500 * time.Millisecond, 4321 * time.Millisecond}
		if !slices.Equal(m.ended, want) {
			t.Fatalf("ended at %v, want %v", m.ended, want)
		}
		if !slices.Equal(m.proposed, []string{"term 3: 2", "term 3: 1"}) {
			t.Fatalf("proposed %q", m.proposed)
		}
	})
}

// A new leader lets an election timeout pass before it ends anything, however
// late it is by then.
func TestNewLeaderIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), term: 9, leads: true, due: []kv.Time{1}}
		_ = run(m, 999*time.Millisecond)
		if len(m.proposed) != 0 {
			t.Fatalf("proposed %q", m.proposed)
		}
		_ = run(m, 2*time.Second)
		if !slices.Equal(m.ended, []time.Duration{time.Second}) {
			t.Fatalf("ended at %v", m.ended)
		}
	})
}

func TestFollowerProposesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), due: []kv.Time{1}}
		_ = run(m, time.Minute)
		if len(m.proposed) != 0 {
			t.Fatalf("proposed %q", m.proposed)
		}
	})
}

func TestBatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), term: 1, leads: true, due: make([]kv.Time, 2500)}
		_ = run(m, 2*time.Second)
		if !slices.Equal(m.proposed, []string{"term 1: 1000", "term 1: 1000", "term 1: 500"}) {
			t.Fatalf("proposed %q", m.proposed)
		}
	})
}

// The time comes into the log every second for as long as something will be due,
// and not otherwise.
func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), term: 1, leads: true, due: []kv.Time{30_500}}
		_ = run(m, 30*time.Second)
		if m.beats < 28 || m.beats > 30 || m.ClusterTime()-m.beat > 1100 {
			t.Errorf("%d beats, the last at %d", m.beats, m.beat)
		}
		_ = run(m, time.Second)
		before := m.beats
		if _ = run(m, 10*time.Second); len(m.due) != 0 || m.beats != before {
			t.Errorf("%d beats of one who waits for nothing", m.beats-before)
		}
	})
}

// A proposal that fails is tried again, but not in a tight loop.
func TestFailureWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), term: 1, leads: true, due: []kv.Time{1}, err: kv.ErrNotLeader}
		_ = run(m, 1950*time.Millisecond)
		if len(m.proposed) != 10 {
			t.Fatalf("proposed %d times", len(m.proposed))
		}
	})
}
