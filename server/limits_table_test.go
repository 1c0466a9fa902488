package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/concord-kv/concord/kv"
)

// A caller has its burst at once and then the rate, another one its own.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRates(10, 5)
		alice, bob := r.key('u', "alice"), r.key('u', "bob")
		for range 5 {
			if wait := r.take(alice); wait > 0 {
				t.Fatalf("within the burst: wait %v", wait)
			}
		}
		if wait := r.take(alice); wait != 100*time.Millisecond {
			t.Errorf("just above the burst: wait %v", wait)
		}
		if wait := r.take(bob); wait > 0 {
			t.Errorf("another one: wait %v", wait)
		}
		<-time.After(100*time.Millisecond - 1)
		if wait := r.take(alice); wait != 1 {
			t.Errorf("a nanosecond too soon: wait %v", wait)
		}
		<-time.After(1)
		if wait := r.take(alice); wait > 0 {
			t.Errorf("at the time: wait %v", wait)
		}
		admitted := 0
		for range 1000 {
			<-time.After(10 * time.Millisecond)
			if r.take(alice) == 0 {
				admitted++
			}
		}
		if admitted < 99 || admitted > 101 {
			t.Errorf("%d in 10 s at 10 a second", admitted)
		}
		<-time.After(time.Hour)
		for i := range 6 {
			if wait := r.take(alice); wait > 0 != (i == 5) {
				t.Errorf("request %d after an hour: wait %v", i+1, wait)
			}
		}
	})
}

// A flood of callers displaces others and takes no memory.
func TestTableIsBounded(t *testing.T) {
	r := newRates(1000, 2)
	allocs := testing.AllocsPerRun(1000, func() { r.take(r.key('a', "10.0.0.1")) })
	if allocs != 0 {
		t.Errorf("a request costs %v allocations", allocs)
	}
	for i := range 2 * tableShards * tableSets * tableWays {
		if wait := r.take(r.key('a', fmt.Sprint(i))); wait > 0 {
			t.Fatalf("caller %d waits %v for its first request", i, wait)
		}
	}
}

func TestLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLogins(), t.Context()
		there, elsewhere, here := parseAddress("10.0.0.1:99"), parseAddress("10.0.0.2:99"), parseAddress("127.0.0.1:99")
		try := func(user string, from address, right bool) (held time.Duration, err error) {
			began := time.Now()
			done, err := l.attempt(ctx, user, from)
			if err == nil {
				done(right)
			}
			return time.Since(began), err
		}
		for i := range freeByAddress {
			if _, err := try("root", there, false); err != nil {
				t.Fatalf("try %d: %v", i, err)
			}
		}
		// Each refusal is twice as long; trying meanwhile makes it no longer.
		for i := range 8 {
			wait := min(leastRefusal<<i, mostRefusal)
			for _, user := range []string{"root", "nobody"} {
				if _, err := try(user, there, true); !errors.Is(err, kv.ErrTooManyLogins) || kv.NextStep(err) == "" {
					t.Fatalf("refusal %d: %v", i, err)
				}
			}
			<-time.After(wait - time.Nanosecond)
			if _, err := try("root", there, false); !errors.Is(err, kv.ErrTooManyLogins) {
				t.Fatalf("refusal %d of %v ends too soon: %v", i, wait, err)
			}
			<-time.After(time.Nanosecond)
			if _, err := try("other", there, false); err != nil {
				t.Fatalf("refusal %d of %v does not end: %v", i, wait, err)
			}
		}
		// Root gets in from another address, and from this machine, after a
		// moment that is bounded, and for a user that is not there it is the same.
		for i := range 30 {
			held, err := try("root", here, false)
			ghost, ghostErr := try("ghost", here, false)
			if err != nil || ghostErr != nil || held > mostHold || ghost > mostHold {
				t.Fatalf("try %d from this machine: %v after %v, %v after %v", i, err, held, ghostErr, ghost)
			}
		}
		if held, err := try("root", elsewhere, true); err != nil || held != mostHold {
			t.Errorf("root from elsewhere: %v after %v", err, held)
		}
		if held, err := try("ghost", elsewhere, true); err != nil || held != mostHold {
			t.Errorf("a ghost from elsewhere: %v after %v", err, held)
		}
		if held, err := try("alice", elsewhere, true); err != nil || held != 0 {
			t.Errorf("another user: %v after %v", err, held)
		}
		<-time.After(forgetLogins + time.Second)
		if held, err := try("root", there, true); err != nil || held != 0 {
			t.Errorf("a quarter of an hour later: %v after %v", err, held)
		}
		ending, cancel := context.WithCancel(ctx)
		cancel()
		for range freeByUser {
			_, _ = try("late", here, false)
		}
		if _, err := l.attempt(ending, "late", here); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller who has gone: %v", err)
		}
	})
}

// What is watched is cut after it has waited for all looks, not when it waits
// again and again.
func TestSlowReadersAreCut(t *testing.T) {
	s := newSlowReaders(time.Minute)
	var cut atomic.Int64
	stuck, busy, idle := new(waiting), new(waiting), new(waiting)
	for _, w := range []*waiting{stuck, busy, idle} {
		w.cut = func() { cut.Add(1) }
		defer s.watch(w)()
	}
	stuck.cut = func() { cut.Add(100) }
	s.begin(stuck)
	for range slowLooks {
		s.begin(busy)
		s.look()
		busy.end()
	}
	if cut.Load() != 0 {
		t.Error("cut too soon")
	}
	s.look()
	if cut.Load() != 100 {
		t.Errorf("cut %d", cut.Load())
	}
	for range 3 * slowLooks {
		s.look()
	}
	if cut.Load() != 100 {
		t.Errorf("cut %d in the end", cut.Load())
	}
}

func TestTally(t *testing.T) {
	y := tally{most: 2}
	for i, want := range []bool{true, true, false} {
		if y.enter(1) != want {
			t.Errorf("entry %d: not %v", i+1, want)
		}
	}
	if !y.enter(2) {
		t.Error("the limit is not 2 for each")
	}
	y.leave(1)
	if !y.enter(1) {
		t.Error("what left is counted")
	}
	y.leave(1)
	y.leave(1)
	y.leave(2)
	if len(y.has) != 0 {
		t.Errorf("who has nothing is kept: %v", y.has)
	}
	if y := (tally{}); !y.enter(1) || y.has != nil {
		t.Error("without a limit something is counted")
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.2.3:55":           "10.1.2.3",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::",
		"[::ffff:10.1.2.3]:5":   "10.1.2.3",
		"[fe80::1%eth0]:5":      "fe80::",
		"127.0.0.1:5":           "127.0.0.1 here",
		"[::1]:5":               "::1 here",
		"@":                     "@ here",
		"10.1.2.3":              "10.1.2.3",
	} {
		got := parseAddress(text)
		if here := got.String() + map[bool]string{true: " here"}[got.local()]; here != want {
			t.Errorf("%s: %s", text, here)
		}
		if tcp, err := net.ResolveTCPAddr("tcp", text); err == nil && got != addressFrom(tcp) {
			t.Errorf("%s: %v and %v", text, got, addressFrom(tcp))
		}
	}
	forged := metadata.Pairs("x-forwarded-for", "1.2.3.4, 10.0.0.9")
	ctx := metadata.NewIncomingContext(t.Context(), forged)
	direct := peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}})
	if got := addressOf(direct).String(); got != "10.0.0.1" {
		t.Errorf("a client that forges a header comes from %s", got)
	}
	if got := addressOf(peer.NewContext(ctx, &peer.Peer{Addr: pipe{}})).String(); got != "10.0.0.9" {
		t.Errorf("the gateway's client comes from %s", got)
	}
}

type pipe struct{}

func (pipe) Network() string { return pipeNetwork }
func (pipe) String() string  { return pipeNetwork }

func BenchmarkRate(b *testing.B) {
	l := newLimits(Config{Clients: ClientLimits{Rate: 1e9, Burst: 1e6}}.withDefaults())
	ctx := peer.NewContext(b.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}})
	b.Run("take", func(b *testing.B) {
		key := l.rates.key('u', "alice")
		for b.Loop() {
			l.rates.take(key)
		}
	})
	b.Run("address", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.rates.take(l.caller(ctx))
		}
	})
	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		with := metadata.NewIncomingContext(ctx, metadata.Pairs("token", kv.NewSecretToken()))
		p, lock := l.tokens.at(l.tokens.key('t', metadata.ValueFromIncomingContext(with, "token")[0]))
		p.extra = 7
		lock.Unlock()
		for b.Loop() {
			l.rates.take(l.caller(with))
		}
	})
	b.Run("send", func(b *testing.B) {
		w := new(waiting)
		for b.Loop() {
			l.slow.begin(w)
			w.end()
		}
	})
}
