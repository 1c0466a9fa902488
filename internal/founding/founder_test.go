package founding

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// street is where the founders live: it carries calls by address.
type street struct {
	mu   sync.Mutex
	at   map[string]*Founder
	lost func() bool // whether the next answer is lost
}

func (s *street) Call(ctx context.Context, addr string, question []byte) ([]byte, error) {
	s.mu.Lock()
	f := s.at[addr]
	s.mu.Unlock()
	if f == nil {
		return nil, errors.New("connection refused")
	}
	answer, err := f.Answer(question)
	if s.lost != nil && s.lost() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return answer, err
}

// drawer keeps a record.
type drawer struct {
	rec  Record
	fail error
}

func (d *drawer) SaveFounding(r Record) error {
	if d.fail == nil {
		d.rec = r
	}
	return d.fail
}

func (s *street) move(t *testing.T, name string, peers map[string][]string, d *drawer) *Founder {
	t.Helper()
	f, err := New(Config{Settings: Settings{Name: name, Peers: peers}, Record: d.rec, Caller: s, Store: d})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.at[peers[name][0]] = f
	s.mu.Unlock()
	return f
}

func TestFoundersStartedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := map[string][]string{"a": {"1"}, "b": {"wrong", "2"}, "c": {"3"}}
		s := &street{at: map[string]*Founder{}}
		drawers := map[string]*drawer{"a": {rec: Record{ID: 30}}, "b": {rec: Record{ID: 20}}, "c": {rec: Record{ID: 10}}}
		results := make(chan *Proposal, 3)
		for _, name := range []string{"a", "b", "c"} {
			<-time.After(time.Second)
			f := s.move(t, name, peers, drawers[name])
			go func() {
				p, err := f.Run(t.Context())
				if err != nil {
					t.Error(err)
				}
				results <- p
			}()
		}
		began := time.Now()
		first := <-results
		for range 2 {
			if p := <-results; !p.same(first) {
				t.Errorf("%+v and %+v", p, first)
			}
		}
		if d := time.Since(began); d > 500*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if len(first.Members) != 3 || first.Proposer != 10 || first.Members[2].Name != "a" {
			t.Errorf("founded %+v", first)
		}
		for name, d := range drawers {
			if d.rec.Phase != Founded {
				t.Errorf("%s kept %+v", name, d.rec)
			}
			p, err := s.move(t, name, peers, d).Run(t.Context())
			if err != nil || !p.same(first) {
				t.Errorf("%s again: %v, %v", name, p, err)
			}
		}
		d := &drawer{rec: Record{ID: 5}} // b came back without its disk
		var founded *FoundedError
		if _, err := s.move(t, "b", peers, d).Run(t.Context()); !errors.As(err, &founded) || founded.Cluster != first.Cluster {
			t.Errorf("a wiped member: %v", err)
		}
	})
}

// TestFailedFounderStays: whoever was told of a cluster promises nothing any
// more, though the one who told it comes back without its disk.
func TestFailedFounderStays(t *testing.T) {
	peers := map[string][]string{"a": {"1"}, "b": {"2"}}
	s := &street{at: map[string]*Founder{}}
	d := &drawer{rec: Record{ID: 2}}
	b := s.move(t, "b", peers, d)
	s.move(t, "a", peers, &drawer{rec: MemberOf(0xabc, 1, "a")})
	var founded *FoundedError
	if _, err := b.Run(t.Context()); !errors.As(err, &founded) || founded.Cluster != 0xabc {
		t.Fatalf("got %v", err)
	}
	a := s.move(t, "a", peers, &drawer{rec: Record{ID: 1}})
	question := a.machine.Status()
	question.Record = Record{ID: 1, Seq: 1, Phase: Proposed, Proposal: &Proposal{Cluster: 9, Proposer: 1, Seq: 1,
		Members: []Member{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}}}}
	if _, err := b.Answer(question.encode()); err != nil || d.rec.Phase != Free {
		t.Errorf("it keeps %+v, %v", d.rec, err)
	}
}

func TestFounderAlone(t *testing.T) {
	d := &drawer{rec: Record{ID: 7}}
	f, err := New(Config{Settings: Settings{Name: "a", Peers: map[string][]string{"a": nil}}, Record: d.rec, Store: d})
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Run(t.Context())
	if err != nil || p.Proposer != 7 || d.rec.Seq != 1 || d.rec.Phase != Founded {
		t.Errorf("%+v, %v, kept %+v", p, err, d.rec)
	}
}

// TestAnswersAreLost: half of the answers never come, and the callers time out.
func TestAnswersAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := map[string][]string{"a": {"1"}, "b": {"2"}}
		n := 0
		var mu sync.Mutex
		s := &street{at: map[string]*Founder{}, lost: func() bool { mu.Lock(); defer mu.Unlock(); n++; return n%2 == 1 }}
		a := s.move(t, "a", peers, &drawer{rec: Record{ID: 1}})
		b := s.move(t, "b", peers, &drawer{rec: Record{ID: 2}})
		hurried := func(f *Founder) *Proposal {
			f.cfg.Caller = callerFunc(func(ctx context.Context, addr string, q []byte) ([]byte, error) {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return s.Call(ctx, addr, q)
			})
			p, err := f.Run(t.Context())
			if err != nil {
				t.Error(err)
			}
			return p
		}
		other := make(chan *Proposal)
		go func() { other <- hurried(b) }()
		if p, q := hurried(a), <-other; !p.same(q) {
			t.Errorf("%+v and %+v", p, q)
		}
	})
}

type callerFunc func(ctx context.Context, addr string, question []byte) ([]byte, error)

func (f callerFunc) Call(ctx context.Context, addr string, question []byte) ([]byte, error) {
	return f(ctx, addr, question)
}

func TestRunEndsWithItsContextAndItsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := map[string][]string{"a": {"1"}, "b": {"2"}}
		s := &street{at: map[string]*Founder{}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := s.move(t, "a", peers, &drawer{rec: Record{ID: 1}}).Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("alone: %v", err)
		}
		full := fmt.Errorf("disk full")
		a := s.move(t, "a", peers, &drawer{rec: Record{ID: 1}, fail: full})
		b := s.move(t, "b", peers, &drawer{rec: Record{ID: 2}})
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go b.Run(ctx)
		if _, err := a.Run(ctx); !errors.Is(err, full) {
			t.Errorf("store failed: %v", err)
		}
		b.mu.Lock()
		question := b.machine.Status().encode()
		b.mu.Unlock()
		if _, err := a.Answer(question); !errors.Is(err, full) {
			t.Errorf("it still answers: %v", err)
		}
		<-ctx.Done()
		synctest.Wait()
		if r := b.machine.rec; r.Phase != Free {
			t.Errorf("the other has %+v of what was never kept", r)
		}
	})
}

func TestAnswerRefusesOtherVersions(t *testing.T) {
	s := &street{at: map[string]*Founder{}}
	f := s.move(t, "a", map[string][]string{"a": {"1"}}, &drawer{rec: Record{ID: 1}})
	var v *VersionError
	if _, err := f.Answer([]byte(`{"version":7}`)); !errors.As(err, &v) || !strings.Contains(err.Error(), "version 7") {
		t.Errorf("got %v", err)
	}
	if _, err := f.Answer([]byte(strings.Repeat(" ", maxBytes+1))); !errors.Is(err, errMessage) {
		t.Errorf("got %v", err)
	}
}
