package etcdapi

import (
	"context"
	"sync"
	"time"
)

// leaderMonitor ends streams that require a leader when there has been none for
// the grace period. It looks only while there are such streams.
type leaderMonitor struct {
	has   func() bool
	grace time.Duration

	mu      sync.Mutex
	streams map[*context.CancelCauseFunc]struct{}
	running bool
}

// watch calls cancel with cause once there was no leader for the grace period,
// unless the returned function was called before.
func (m *leaderMonitor) watch(cancel context.CancelCauseFunc) (done func()) {
	key := &cancel
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams == nil {
		m.streams = map[*context.CancelCauseFunc]struct{}{}
	}
	m.streams[key] = struct{}{}
	if !m.running {
		m.running = true
		go m.run()
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.streams, key)
	}
}

// run looks ten times a grace period and ends with the last stream.
func (m *leaderMonitor) run() {
	tick := time.NewTicker(m.grace / 10)
	defer tick.Stop()
	seen := time.Now()
	for now := range tick.C {
		if m.has() {
			seen = now
		}
		m.mu.Lock()
		if now.Sub(seen) >= m.grace {
			for cancel := range m.streams {
				(*cancel)(errNoLeader)
			}
			clear(m.streams)
		}
		if len(m.streams) == 0 {
			m.running = false
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
	}
}
