package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/kv"
)

// slowLooks is how often in the time that a client has to read it is looked
// whether it does.
const slowLooks = 4

// slowReaders ends what has been waiting for its client to read for too long. To
// begin and end to wait costs an atomic store each: a goroutine that looks at
// all, now and then, has the clock.
type slowReaders struct {
	every time.Duration
	// tick is the clock, in looks.
	tick atomic.Uint64

	mu  sync.Mutex
	all map[*waiting]struct{}
}

// waiting is one that may wait for its client.
type waiting struct {
	since atomic.Uint64 // the tick, plus 1, at which it began; 0 while it does not
	cut   func()        // ends it; called once
}

func newSlowReaders(most time.Duration) *slowReaders {
	return &slowReaders{every: max(most/slowLooks, time.Millisecond), all: map[*waiting]struct{}{}}
}

func (p *slowReaders) begin(w *waiting) { w.since.Store(p.tick.Load() + 1) }
func (w *waiting) end()                 { w.since.Store(0) }

// watch has w looked at until the returned function is called.
func (p *slowReaders) watch(w *waiting) (forget func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[w] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, w)
	}
}

// run looks until ctx ends.
func (p *slowReaders) run(ctx context.Context) error {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			p.look()
		}
	}
}

// look cuts those that have waited for the whole time, or up to a look longer.
func (p *slowReaders) look() {
	now := p.tick.Add(1)
	var late []*waiting
	p.mu.Lock()
	for w := range p.all {
		if since := w.since.Load(); since != 0 && now >= since+slowLooks {
			late = append(late, w)
			delete(p.all, w)
		}
	}
	p.mu.Unlock()
	for _, w := range late {
		w.cut()
	}
}

// ownEnd are the methods whose handlers wait for the end of their context while
// others send, so that its end ends them. Others stand in a send themselves, and
// are left to end by that when the stream is gone.
var ownEnd = map[string]bool{
	"/etcdserverpb.Watch/Watch":          true,
	"/etcdserverpb.Lease/LeaseKeepAlive": true,
}

// serveStream serves a stream, whose sends are watched.
func (l *limits) serveStream(name string, serve func(grpc.ServerStream) error, stream grpc.ServerStream, key uint64) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	s := &limitedStream{ServerStream: stream, ctx: ctx, limits: l, key: key}
	s.waiting.cut = func() { cancel(kv.ErrSlowReader) }
	defer l.slow.watch(&s.waiting)()
	var err error
	if ownEnd[name] {
		err = serve(s)
	} else {
		done := make(chan error, 1)
		l.left.Go(func() { done <- serve(s) })
		select {
		case err = <-done:
		case <-ctx.Done():
			if context.Cause(ctx) != error(kv.ErrSlowReader) {
				err = <-done // the stream is gone, and every send fails
			}
		}
	}
	if context.Cause(ctx) == error(kv.ErrSlowReader) {
		l.hit("slow reader", int64(l.cfg.SlowReader))
		l.log.Info("stream ended: its client does not read", "method", name, "remote", addressOf(stream.Context()))
		return etcdapi.StatusOf(kv.ErrSlowReader)
	}
	return err
}

// limitedStream is a stream of a caller with limits.
type limitedStream struct {
	grpc.ServerStream
	ctx     context.Context
	limits  *limits
	key     uint64
	waiting waiting
	begun   bool // the first message, which came with the call, was received
}

// Context ends also when the client does not read.
func (s *limitedStream) Context() context.Context { return s.ctx }

// SendMsg implements [grpc.ServerStream].
func (s *limitedStream) SendMsg(m any) error {
	s.limits.slow.begin(&s.waiting)
	err := s.ServerStream.SendMsg(m)
	s.waiting.end()
	return err
}

// RecvMsg implements [grpc.ServerStream]. A client that sends more than it may
// is not listened to for a while: messages on a stream are requests too.
func (s *limitedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if !s.begun {
		s.begun = true
		return nil
	}
	return s.limits.slowDown(s.ctx, s.key)
}
