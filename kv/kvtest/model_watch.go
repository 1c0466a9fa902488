package kvtest

import (
	"context"
	"iter"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Watch implements [kv.Watcher]. Progress counts real time, as everywhere.
func (m *Model) Watch(ctx context.Context, w kv.WatchRequest) iter.Seq2[kv.WatchBatch, error] {
	return func(yield func(kv.WatchBatch, error) bool) {
		next, first, err := m.openWatch(ctx, &w)
		if err != nil {
			yield(kv.WatchBatch{}, err)
			return
		}
		if !yield(kv.WatchBatch{Revision: first}, nil) {
			return
		}
		m.follow(ctx, &w, next, yield)
	}
}

// follow looks for one batch after another, and waits where there is none.
func (m *Model) follow(ctx context.Context, w *kv.WatchRequest, next kv.Revision, yield func(kv.WatchBatch, error) bool) {
	silence := newSilence(w.Progress)
	defer silence.stop()
	requests := w.ProgressRequests
	markWanted := false
	for {
		batch, changed, err := m.nextBatch(ctx, w, next)
		switch {
		case err != nil:
			yield(kv.WatchBatch{}, err)
			return
		case len(batch.Events) > 0 || markWanted:
			if !yield(batch, nil) {
				return
			}
			markWanted = markWanted && len(batch.Events) > 0
			silence.reset()
		}
		next = max(next, batch.Revision+1)
		if len(batch.Events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-silence.over():
			markWanted = true
		case _, markWanted = <-requests:
			if !markWanted {
				requests = nil // closed: no more will be asked for
			}
		}
	}
}

// openWatch checks w and gives the first revision to look at and that of the
// opening progress mark.
func (m *Model) openWatch(ctx context.Context, w *kv.WatchRequest) (next, first kv.Revision, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	if err := m.limits.CheckWatch(w); err != nil {
		return 0, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case w.Start == 0:
		return m.revision + 1, m.revision, nil
	case w.Start < m.compacted:
		return 0, 0, &kv.CompactedError{Compacted: m.compacted}
	}
	return w.Start, min(w.Start-1, m.revision), nil
}

// nextBatch returns the first batch from next on that has something for w. When
// there is none, it is empty and names the revision up to which was looked, and
// changed is closed when it is worth to look again.
func (m *Model) nextBatch(ctx context.Context, w *kv.WatchRequest, next kv.Revision) (batch kv.WatchBatch, changed <-chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return batch, nil, err
	}
	for _, b := range m.history {
		if b.Revision < next {
			continue
		}
		events := m.wanted(w, b)
		if len(events) == 0 {
			continue
		}
		if b.Revision < m.compacted {
			return batch, nil, &kv.CompactedError{Compacted: m.compacted}
		}
		return kv.WatchBatch{Revision: b.Revision, Events: events}, m.changed, nil
	}
	return kv.WatchBatch{Revision: m.revision}, m.changed, nil
}

// wanted returns the events of a revision that w asks for, as copies.
func (m *Model) wanted(w *kv.WatchRequest, b kv.WatchBatch) []kv.Event {
	var events []kv.Event
	for _, ev := range b.Events {
		if !kv.InRange(ev.KV.Key, w.Key, w.End) ||
			w.NoPut && ev.Type == kv.PutEvent || w.NoDelete && ev.Type == kv.DeleteEvent {
			continue
		}
		ev.KV = ev.KV.Clone()
		switch {
		case ev.Prev == nil:
		case w.PrevKV && b.Revision > m.compacted:
			prev := ev.Prev.Clone()
			ev.Prev = &prev
		default:
			ev.Prev = nil
		}
		events = append(events, ev)
	}
	return events
}

// silence tells when a watch has been quiet for a while; the zero while never
// ends.
type silence struct {
	d     time.Duration
	timer *time.Timer
}

func newSilence(d time.Duration) *silence {
	s := &silence{d: d}
	if d > 0 {
		s.timer = time.NewTimer(d)
	}
	return s
}

func (s *silence) over() <-chan time.Time {
	if s.timer == nil {
		return nil
	}
	return s.timer.C
}

func (s *silence) reset() {
	if s.timer != nil {
		s.timer.Reset(s.d)
	}
}

func (s *silence) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}
