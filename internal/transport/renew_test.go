package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// dials counts and may refuse what a member dials.
type dials struct {
	loopback
	made   atomic.Int64
	refuse atomic.Bool
}

func (d *dials) dial(ctx context.Context, addr string) (net.Conn, error) {
	d.made.Add(1)
	if d.refuse.Load() {
		return nil, errors.New("the certificate is of yesterday")
	}
	return d.loopback.dial(ctx, addr)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestRenew: links are made anew under load, in both directions, and nobody is
// told of a loss; what arrives is in order and once, on each channel.
func TestRenew(t *testing.T) {
	on := new(dials)
	var mu sync.Mutex
	last := map[[2]uint64]uint64{}
	lost := 0
	a, b := pair(t, on, func(_ *Config, r *recorder) {
		r.receive = func(from uint64, ch Channel, payload []byte) {
			n := binary.LittleEndian.Uint64(payload)
			mu.Lock()
			defer mu.Unlock()
			key := [2]uint64{from, uint64(ch)}
			if n <= last[key] {
				t.Errorf("%d came after %d from %d on %s", n, last[key], from, ch)
			}
			lost += int(n - last[key] - 1)
			last[key] = n
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var sent [3][channels]uint64
	for _, from := range []*node{a, b} {
		for ch := range Channel(channels) {
			wg.Go(func() {
				me, to := from.cfg.ID, 3-from.cfg.ID
				for n := uint64(1); ctx.Err() == nil; n++ {
					for !from.Send(to, ch, binary.LittleEndian.AppendUint64(make([]byte, 0, 1000), n)[:1000]) {
						<-time.After(time.Millisecond) // the queue is full
					}
					sent[me][ch] = n
					if n%64 == 0 {
						<-time.After(time.Millisecond)
					}
				}
			})
		}
	}
	for range 10 {
		before := on.made.Load()
		a.Renew()
		b.Renew()
		await(t, "new links", func() bool { return on.made.Load() >= before+2*channels })
	}
	stop()
	wg.Wait()
	arrived := func(me uint64, ch Channel) bool {
		mu.Lock()
		defer mu.Unlock()
		return last[[2]uint64{me, uint64(ch)}] == sent[me][ch]
	}
	for _, from := range []*node{a, b} {
		me := from.cfg.ID
		for ch := range Channel(channels) {
			await(t, "the last", func() bool {
				if arrived(me, ch) {
					return true
				}
				sent[me][ch]++ // the one before may have been lost
				return from.Send(3-me, ch, binary.LittleEndian.AppendUint64(nil, sent[me][ch])) && arrived(me, ch)
			})
		}
	}
	a.none(t)
	b.none(t)
	t.Logf("lost %d of what was sent: %v", lost, sent)
}

// TestRenewFails: a link that cannot be made anew stays, and is made anew later.
func TestRenewFails(t *testing.T) {
	on := new(dials)
	var got atomic.Int64
	a, b := pair(t, on, func(_ *Config, r *recorder) {
		r.receive = func(uint64, Channel, []byte) { got.Add(1) }
	})
	on.refuse.Store(true)
	before := on.made.Load()
	a.Renew()
	await(t, "attempts", func() bool { return on.made.Load() >= before+2*channels })
	if !a.Send(2, Append, []byte("still")) {
		t.Error("the old link is gone")
	}
	await(t, "a message on the old link", func() bool { return got.Load() == 1 })
	on.refuse.Store(false)
	old := (*a.peers.Load())[2].link.Load()
	await(t, "the new link", func() bool { l := (*a.peers.Load())[2].link.Load(); return l != nil && l != old })
	await(t, "a message on the new link", func() bool { a.Send(2, Append, []byte("new")); return got.Load() > 1 })
	a.none(t)
	b.none(t)
}

// TestRenewOfTheDead: a peer that ends while its link is made anew is told of as
// lost, and when it is back as up.
func TestRenewOfTheDead(t *testing.T) {
	on := new(dials)
	a, b := pair(t, on, nil)
	for range 5 {
		a.Renew()
		b.stop()
		a.want(t, false, 2)
		b = start(t, on, 2, nil)
		b.SetPeer(1, a.addr)
		a.SetPeer(2, b.addr)
		a.want(t, true, 2)
		b.want(t, true, 1)
	}
}
