package concord

import (
	"context"
	"sync"
	"time"

	"github.com/concord-kv/concord/kv"
)

// What a member remembers of its last minutes: how far its log was committed,
// finely for some seconds and coarsely for ten minutes, and how long writes of
// the log took.
const (
	fineEvery, fineKept     = 100 * time.Millisecond, 64
	coarseEvery, coarseKept = 10 * time.Second, 60
	// How many coarse steps are looked back on for the figure of log writes, and
	// for whether the disk is slow now.
	minuteOfWrites, nowOfWrites = 6, 2
)

// mark says that entries up to Index were committed some time ago.
type mark struct {
	Index kv.Index      `json:"i"`
	Ago   time.Duration `json:"a"`
}

// pulse keeps figures of a member over time. It is written by a loop of its own,
// away from the log and from apply, and allocates nothing.
type pulse struct {
	mu      sync.Mutex
	began   time.Time
	fine    [fineKept]moment // rings: a moment's place is its number
	fines   int
	coarse  [coarseKept]moment
	writes  [coarseKept]kv.Durations // at the same places
	coarses int

	// unled is since when no leader is known; zero while one is.
	unled time.Time
}

// moment is a mark while it is kept.
type moment struct {
	index kv.Index
	at    time.Time
}

// beat fills the pulse for as long as the member runs.
func (n *Node) beat(ctx context.Context) error {
	p := &n.figures.pulse
	tick := time.NewTicker(fineEvery)
	defer tick.Stop()
	for {
		s, now := n.replica.Status(), time.Now()
		p.note(moment{kv.Index(s.Commit), now}, &n.figures.logWrites)
		p.led(s.Leader != 0, now)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// note adds a moment, to the coarse ones too when one is due.
func (p *pulse) note(m moment, writes *kv.DurationCounter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		p.began = m.at
	}
	p.fine[p.fines%fineKept] = m
	p.fines++
	if p.coarses == 0 || m.at.Sub(p.coarse[(p.coarses-1)%coarseKept].at) >= coarseEvery {
		at := p.coarses % coarseKept
		p.coarse[at], p.writes[at] = m, writes.Load()
		p.coarses++
	}
}

// led notes whether a leader is known.
func (p *pulse) led(known bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case known:
		p.unled = time.Time{}
	case p.unled.IsZero():
		p.unled = now
	}
}

// leaderless is for how long no leader has been known, as of the last beat.
func (p *pulse) leaderless(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unled.IsZero() {
		return 0
	}
	return now.Sub(p.unled)
}

// upTime is since when the member runs.
func (p *pulse) upTime(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		return 0
	}
	return now.Sub(p.began)
}

// marks are what is kept, oldest first.
func (p *pulse) marks(now time.Time) []mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]mark, 0, fineKept+coarseKept)
	oldest := now
	if p.fines > 0 {
		oldest = p.fine[max(0, p.fines-fineKept)%fineKept].at
	}
	for i := max(0, p.coarses-coarseKept); i < p.coarses; i++ {
		if m := p.coarse[i%coarseKept]; m.at.Before(oldest) {
			out = append(out, mark{m.index, now.Sub(m.at)})
		}
	}
	for i := max(0, p.fines-fineKept); i < p.fines; i++ {
		m := p.fine[i%fineKept]
		out = append(out, mark{m.index, now.Sub(m.at)})
	}
	return out
}

// behind is for how long the entry after applied has been committed, by a
// leader's marks: as of the first of them that has it.
func behind(marks []mark, applied kv.Index) time.Duration {
	for _, m := range marks {
		if m.Index > applied {
			return m.Ago
		}
	}
	return 0
}

// recentWrites are the writes of the log in the last coarse steps, of which the
// one that has not ended counts as one; or since the start where that is less.
func (p *pulse) recentWrites(writes *kv.DurationCounter, steps int) kv.Durations {
	d := writes.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.coarses <= steps { // began later: with the start's own
		return d
	}
	before := &p.writes[(p.coarses-steps)%coarseKept]
	return d.Since(before)
}
