package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// proxy passes connections on to a server and can cut or freeze them.
type proxy struct {
	net.Listener
	frozen atomic.Bool
	wg     sync.WaitGroup

	mu     sync.Mutex
	target string
	conns  map[net.Conn]struct{}
	down   bool
}

func newProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, target: target, conns: map[net.Conn]struct{}{}}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.setDown(true)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.Listener.Addr().String() }

func (p *proxy) pass(c net.Conn) {
	defer c.Close()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	s, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	if p.down {
		p.mu.Unlock()
		return
	}
	p.conns[c], p.conns[s] = struct{}{}, struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
		delete(p.conns, s)
	}()
	var both sync.WaitGroup
	for _, dir := range [][2]net.Conn{{c, s}, {s, c}} {
		both.Go(func() {
			defer dir[0].Close()
			defer dir[1].Close()
			_, _ = io.Copy(gate{dir[1], p}, dir[0])
		})
	}
	both.Wait()
}

// gate swallows what is written while its proxy is frozen.
type gate struct {
	io.Writer
	p *proxy
}

func (g gate) Write(b []byte) (int, error) {
	if g.p.frozen.Load() {
		return len(b), nil
	}
	return g.Writer.Write(b)
}

// cut closes the connections; new ones are passed on.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// setDown refuses new connections too.
func (p *proxy) setDown(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	if down {
		p.cut()
	}
}

// setTarget moves the proxy to another server.
func (p *proxy) setTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// TestFailover stops one of three servers after another.
func TestFailover(t *testing.T) {
	m := kvtest.NewModel(kv.Limits{})
	var addrs []string
	var stops []func()
	for range 3 {
		addr, stop := serve(t, m, server.Config{})
		addrs, stops = append(addrs, addr), append(stops, stop)
	}
	c := open(t, client.Config{Endpoints: addrs})
	ctx := t.Context()
	for i := range 3 {
		for n := range 5 {
			key := fmt.Sprint("k", i, n)
			if _, err := kv.Put(ctx, c, key, "v"); err != nil {
				t.Fatalf("put with %d servers down: %v", i, err)
			}
			if _, err := kv.Get(ctx, c, key, kv.Strong); err != nil {
				t.Fatalf("get with %d servers down: %v", i, err)
			}
		}
		if i < 2 {
			stops[i]()
		}
	}
	stops[2]()
	patiently(t, func(timeout time.Duration) error {
		c := open(t, client.Config{Endpoints: addrs, Timeout: timeout})
		_, err := kv.Put(ctx, c, "a", "b")
		if kv.CodeOf(err) != kv.Unavailable || errors.Is(err, kv.ErrUnavailable) {
			return fmt.Errorf("with no server nothing can have happened, but: %w", err)
		}
		return nil
	})
}

// TestFrozenServer has a server that takes requests and never answers. Going on
// elsewhere takes no longer than it must, once in a few times: on a busy machine
// it may.
func TestFrozenServer(t *testing.T) {
	m := kvtest.NewModel(kv.Limits{})
	a, _ := serve(t, m, server.Config{})
	b, _ := serve(t, m, server.Config{})
	best := time.Hour
	for range 5 {
		if best = min(best, frozen(t, a, b)); best < 3*time.Second {
			break
		}
	}
	// Keep-alive would end the connection too, after 13 s.
	if best > 5*time.Second {
		t.Errorf("going on elsewhere took %v", best)
	}
}

// frozen writes while the way to a is frozen, and returns how long that took.
func frozen(t *testing.T, a, b string) time.Duration {
	p := newProxy(t, a)
	c := open(t, client.Config{Endpoints: []string{p.addr(), b}, Stall: 50 * time.Millisecond, Timeout: time.Minute})
	before, err := kv.Put(t.Context(), c, "a", "1")
	if err != nil {
		t.Fatal(err)
	}
	p.frozen.Store(true)
	start := time.Now()
	if _, err := kv.Put(t.Context(), c, "a", "2"); err != nil {
		t.Fatalf("put: %v", err)
	}
	took := time.Since(start)
	got, err := kv.Get(t.Context(), c, "a", kv.Strong)
	if err != nil || string(got.Value) != "2" || got.ModRevision != before.Revision+1 {
		t.Errorf("got %+v, %v", got, err)
	}
	return took
}

// losing runs a write and then loses the answer.
type losing struct {
	kv.Store
	lose atomic.Int32
	cut  func()
}

func (l *losing) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	res, err := l.Store.Txn(ctx, t)
	if err == nil && l.lose.Add(-1) >= 0 {
		if l.cut == nil {
			return kv.TxnResult{}, kv.ErrLeaderChanged
		}
		l.cut()
		<-ctx.Done()
		return kv.TxnResult{}, ctx.Err()
	}
	return res, err
}

// TestRetryOnce loses answers of writes that happened: they must not happen
// again, and where they have no id that must be said.
func TestRetryOnce(t *testing.T) {
	for _, how := range []string{"leader changed", "connection lost"} {
		t.Run(how, func(t *testing.T) {
			m := kvtest.NewModel(kv.Limits{})
			l := &losing{Store: m}
			addr, _ := serve(t, l, server.Config{})
			p := newProxy(t, addr)
			if how == "connection lost" {
				l.cut = p.cut
			}
			ctx := t.Context()
			c := open(t, client.Config{Endpoints: []string{p.addr()}})
			l.lose.Store(3)
			if _, err := kv.Put(ctx, c, "a", "1"); err != nil {
				t.Fatal(err)
			}
			got, err := kv.Get(ctx, c, "a", kv.Strong)
			if err != nil || got.Version != 1 {
				t.Errorf("put %d times, %v", got.Version, err)
			}
			plain := open(t, client.Config{Endpoints: []string{p.addr()}, NoRequestIDs: true})
			l.lose.Store(1)
			if _, err := kv.Put(ctx, plain, "b", "1"); !errors.Is(err, kv.ErrUnavailable) {
				t.Errorf("a write without id: %v", err)
			}
			got, err = kv.Get(ctx, plain, "b", kv.Strong)
			if err != nil || got.Version != 1 {
				t.Errorf("put %d times, %v", got.Version, err)
			}
		})
	}
}

// TestWatchResumes cuts and moves a watch while writes go on. Every change must
// come once and in order.
func TestWatchResumes(t *testing.T) {
	const writes = 400
	m := kvtest.NewModel(kv.Limits{})
	a, _ := serve(t, m, server.Config{})
	b, _ := serve(t, m, server.Config{})
	pa, pb := newProxy(t, a), newProxy(t, b)
	c := open(t, client.Config{Endpoints: []string{pa.addr(), pb.addr()}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	next, stop := iter.Pull2(c.Watch(ctx, kv.WatchRequest{Key: []byte("k"), PrevKV: true}))
	defer stop()
	first, err, _ := next()
	if err != nil || len(first.Events) != 0 {
		t.Fatalf("first batch %v, %v", first, err)
	}
	// One write at a time: the next when the watch has it, with a cut between
	// now and then, and some while nobody is connected.
	last := first.Revision
	version := int64(0)
	for i := range writes {
		res, err := kv.Put(ctx, m, "k", fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		switch i % 20 {
		case 3:
			pa.cut()
			pb.cut()
		case 7:
			pa.setDown(true)
		case 11:
			pa.setDown(false)
			pb.setDown(true)
		case 15:
			pb.setDown(false)
		}
		if i%5 != 4 {
			continue
		}
		for last < res.Revision {
			batch, err, ok := next()
			if err != nil || !ok {
				t.Fatalf("the watch ended: %v", err)
			}
			if len(batch.Events) == 0 {
				t.Fatalf("a mark that nobody asked for at %d", batch.Revision)
			}
			version++
			if batch.Revision <= last || batch.Events[0].KV.Version != version {
				t.Fatalf("revision %d version %d after %d and %d", batch.Revision, batch.Events[0].KV.Version, last, version-1)
			}
			last = batch.Revision
		}
	}
	if version != writes {
		t.Errorf("%d of %d changes", version, writes)
	}
}

// answering returns one error to everything.
type answering struct {
	kv.Store
	err atomic.Pointer[error]
}

func (a *answering) Txn(context.Context, kv.Txn) (kv.TxnResult, error) {
	return kv.TxnResult{}, *a.err.Load()
}

func (a *answering) Watch(context.Context, kv.WatchRequest) iter.Seq2[kv.WatchBatch, error] {
	return func(yield func(kv.WatchBatch, error) bool) { yield(kv.WatchBatch{}, *a.err.Load()) }
}

// TestErrors sends every error of the store over the wire: the client's is the
// same to errors.Is and of the same code, as certain about the outcome.
func TestErrors(t *testing.T) {
	a := &answering{Store: kvtest.NewModel(kv.Limits{})}
	addr, _ := serveCluster(t, a, lone{store: a.Store, id: 1}, server.Config{})
	for _, want := range []error{
		kv.ErrUnavailable, kv.ErrLeaderChanged, kv.ErrTimeout, kv.ErrNoLeader, kv.ErrClosed, kv.ErrOverloaded,
		kv.ErrNoSpace, kv.ErrCorrupt, kv.ErrDivergent, kv.ErrEmptyKey, kv.ErrKeyTooLarge, kv.ErrRequestTooLarge,
		kv.ErrTooManyOps, kv.ErrDuplicateKey, kv.ErrKeyNotFound, kv.ErrValueProvided, kv.ErrLeaseProvided,
		kv.ErrInvalidSort, kv.ErrInvalidTTL, kv.ErrTTLTooLarge, kv.ErrCompacted, kv.ErrFutureRevision,
		kv.ErrLeaseNotFound, kv.ErrLeaseExists, kv.ErrRequestTooOld, kv.ErrTooManyClients, kv.ErrTooManyUploads,
		kv.ErrMemberNotFound, kv.ErrMemberExists, kv.ErrNotLeader, kv.ErrNotLearner, kv.ErrLearnerNotReady,
		kv.ErrUnhealthyCluster, kv.ErrUnsupported,
	} {
		a.err.Store(&want)
		// Some are tried again for as long as the client may.
		patiently(t, func(timeout time.Duration) error {
			c := open(t, client.Config{Endpoints: []string{addr}, NoRequestIDs: true, Timeout: timeout})
			// The first answer of a server without headers tells nothing of
			// its kind, so make it known.
			if _, err := c.Range(t.Context(), kv.Range{Key: []byte("a")}); err != nil {
				return err
			}
			_, err := kv.Put(t.Context(), c, "a", "b")
			if !errors.Is(err, want) || kv.CodeOf(err) != kv.CodeOf(want) {
				return fmt.Errorf("%w came as %w (%v)", want, err, kv.CodeOf(err))
			}
			if got := errors.Is(err, kv.ErrUnavailable); got != errors.Is(want, kv.ErrUnavailable) {
				return fmt.Errorf("%w came as %w: outcome unknown is %v", want, err, got)
			}
			return nil
		})
	}
	c := open(t, client.Config{Endpoints: []string{addr}, NoRequestIDs: true})
	wrapped := kv.Errorf(kv.InvalidArgument, "key of 9 bytes: %w", kv.ErrKeyTooLarge)
	for _, want := range []error{wrapped, &kv.CompactedError{Compacted: 7}} {
		a.err.Store(&want)
		if _, err := kv.Put(t.Context(), c, "a", "b"); err == nil || err.Error() != want.Error() {
			t.Errorf("%v came as %v", want, err)
		}
		for _, err := range c.Watch(t.Context(), kv.WatchRequest{Key: []byte("a")}) {
			if err == nil || err.Error() != want.Error() {
				t.Errorf("%v ended a watch as %v", want, err)
			}
		}
	}
}

// TestClose ends calls and watches.
func TestClose(t *testing.T) {
	m := kvtest.NewModel(kv.Limits{})
	addr, _ := serve(t, m, server.Config{})
	c := open(t, client.Config{Endpoints: []string{addr}})
	opened, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		var last error
		for _, err := range c.Watch(context.Background(), kv.WatchRequest{Key: []byte("a")}) {
			if err == nil {
				close(opened)
			}
			last = err
		}
		ended <- last
	}()
	<-opened
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, kv.ErrClosed) {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := kv.Put(t.Context(), c, "a", "b"); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("a put after the end: %v", err)
	}
}

func TestCluster(t *testing.T) {
	m := kvtest.NewModel(kv.Limits{})
	addr, _ := serve(t, m, server.Config{})
	c := open(t, client.Config{Endpoints: []string{addr}})
	if _, err := kv.Put(t.Context(), m, "a", "b"); err != nil {
		t.Fatal(err)
	}
	st, err := c.Status(t.Context(), addr)
	if err != nil || st.Version != "1.2.3" || st.Hash != 42 || st.Keys != 7 || st.Role != kv.LeaderRole || st.Revision != 2 {
		t.Errorf("status %+v, %v", st, err)
	}
	if _, err := c.Status(t.Context(), "elsewhere:1"); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("status of a foreign endpoint: %v", err)
	}
	members, err := c.Members(t.Context())
	if err != nil || len(members) != 1 || members[0].PeerAddrs[0] != "127.0.0.1:1" || members[0].ClientAddrs[0] != "127.0.0.1:2" {
		t.Errorf("members %+v, %v", members, err)
	}
	if err := c.MoveLeader(t.Context(), 99); !errors.Is(err, kv.ErrMemberNotFound) {
		t.Errorf("move to a member that is not there: %v", err)
	}
}
