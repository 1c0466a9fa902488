package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pass lets time pass in a bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// diary is a handler that writes down what it is told.
type diary struct {
	mu        sync.Mutex
	found     []Sighting
	conflicts []Conflict
	strangers []Stranger
	inside    atomic.Int32
	twice     atomic.Bool
	hold      chan struct{} // Found waits for it
}

func (d *diary) enter() func() {
	if d.inside.Add(1) > 1 {
		d.twice.Store(true)
	}
	d.mu.Lock()
	return func() { d.mu.Unlock(); d.inside.Add(-1) }
}

func (d *diary) Found(s Sighting) {
	if d.hold != nil {
		<-d.hold
	}
	defer d.enter()()
	d.found = append(d.found, s)
}

func (d *diary) Conflict(c Conflict) {
	defer d.enter()()
	d.conflicts = append(d.conflicts, c)
}

func (d *diary) Stranger(s Stranger) {
	defer d.enter()()
	d.strangers = append(d.strangers, s)
}

// read returns what was written.
func (d *diary) read() (found []Sighting, conflicts []Conflict, strangers []Stranger) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.found), slices.Clone(d.conflicts), slices.Clone(d.strangers)
}

// speaker is what a process says of itself, until it is told otherwise.
type speaker struct {
	mu   sync.Mutex
	says Announcement
}

func (s *speaker) self() Announcement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.says
}

func (s *speaker) change(f func(*Announcement)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.says)
}

// process is a speaker's id and nothing else yet.
func process(id uint64) *speaker {
	return &speaker{says: Announcement{ID: id, Name: fmt.Sprint("n", id), Incarnation: 1, PeerAddrs: []string{fmt.Sprintf("10.0.0.%d:2380", id)}}}
}

// heard is what another one says.
func heard(id uint64) Announcement {
	return Announcement{Cluster: "c", ID: id, Incarnation: 1, Stamp: 1, PeerAddrs: []string{"10.0.0.9:2380"}}
}

// withBoard runs a board with a diary in a bubble.
func withBoard(t *testing.T, f func(b *board, d *diary, s *speaker)) {
	synctest.Test(t, func(t *testing.T) {
		d, s := &diary{}, process(1)
		b := newBoard(Config{Cluster: "c", Self: s.self, Handler: d}, func(error) {})
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { b.dispatch(ctx) })
		f(b, d, s)
		stop()
		wg.Wait()
		if d.twice.Load() {
			t.Error("the handler was called twice at a time")
		}
	})
}

func TestStampsCountWhatIsNew(t *testing.T) {
	withBoard(t, func(b *board, _ *diary, s *speaker) {
		for i := range 2 {
			a, ok := b.speak()
			if !ok || a.Stamp != 1 || a.Cluster != "c" || a.GossipAddr != "" {
				t.Errorf("%d: %+v, %v", i, a, ok)
			}
		}
		b.gossips("127.0.0.1:1")
		if a, _ := b.speak(); a.Stamp != 2 || a.GossipAddr != "127.0.0.1:1" {
			t.Errorf("%+v", a)
		}
		s.change(func(a *Announcement) { a.ClusterID = 5 })
		if b.alone() {
			t.Error("alone in a cluster")
		}
		if a, _ := b.speak(); a.Stamp != 3 || a.ClusterID != 5 {
			t.Errorf("%+v", a)
		}
	})
}

// An older announcement, late or replayed, changes nothing, and nobody is told
// twice.
func TestNothingGoesBack(t *testing.T) {
	withBoard(t, func(b *board, d *diary, _ *speaker) {
		old, now := heard(2), heard(2)
		now.Stamp, now.PeerAddrs = 2, []string{"10.0.0.2:1"}
		restarted := now
		restarted.Incarnation, restarted.Stamp = 2, 1
		for _, c := range []struct {
			a    Announcement
			news bool
		}{{old, true}, {old, false}, {now, true}, {old, false}, {now, false}, {restarted, true}, {now, false}, {old, false}} {
			if got := b.hear(c.a, "multicast4", "10.0.0.2:5", 0); got != c.news {
				t.Errorf("%+v: news %v", c.a, got)
			}
			synctest.Wait()
		}
		if found, _, _ := d.read(); len(found) != 3 || !found[2].Same(restarted) || found[2].From != "10.0.0.2:5" {
			t.Errorf("told %+v", found)
		}
		if known := b.list(); len(known) != 1 || !known[0].Same(restarted) {
			t.Errorf("knows %+v", known)
		}
	})
}

func TestWhoIsNotHeardIsForgotten(t *testing.T) {
	withBoard(t, func(b *board, d *diary, _ *speaker) {
		began := time.Now()
		b.hear(heard(2), "gossip", "", 9*time.Minute)
		b.hear(heard(3), "gossip", "", forgetAfter)
		b.hear(heard(4), "multicast4", "x", 0)
		if known := b.list(); len(known) != 2 || !known[0].Heard.Equal(began.Add(-9*time.Minute)) {
			t.Errorf("knows %+v", known)
		}
		pass(time.Minute)
		if known := b.list(); len(known) != 1 || known[0].ID != 4 {
			t.Errorf("knows %+v", known)
		}
		b.gossipers(map[uint64]bool{4: true}) // a sign of life
		pass(9*time.Minute + 59*time.Second)
		if known := b.list(); len(known) != 1 {
			t.Errorf("knows %+v", known)
		}
		b.hear(heard(4), "gossip", "", 9*time.Minute+59500*time.Millisecond) // older than what is known
		pass(time.Second)
		if known := b.list(); len(known) != 0 {
			t.Errorf("knows %+v", known)
		}
		if !b.hear(heard(4), "gossip", "", 0) {
			t.Error("who was forgotten and comes back is no news")
		}
		synctest.Wait()
		if found, _, _ := d.read(); len(found) != 3 {
			t.Errorf("told %d times", len(found))
		}
	})
}

func TestFirstHandIsKept(t *testing.T) {
	withBoard(t, func(b *board, _ *diary, _ *speaker) {
		b.hear(heard(2), "gossip", "", 0)
		b.hear(heard(2), "seeds", "10.0.0.2:2380", 0)
		b.hear(heard(2), "gossip", "", 0)
		if s := b.list()[0]; s.Source != "seeds" || s.From != "10.0.0.2:2380" {
			t.Errorf("%+v", s)
		}
	})
}

func TestKnownAreBounded(t *testing.T) {
	withBoard(t, func(b *board, _ *diary, _ *speaker) {
		for id := range uint64(mostKnown + 10) {
			b.hear(heard(id+2), "multicast4", "x", 0)
			pass(time.Millisecond)
		}
		known := b.list()
		if len(known) != mostKnown || known[0].ID != 12 {
			t.Errorf("knows %d, the first is %d", len(known), known[0].ID)
		}
	})
}

func TestOthersClustersAreNotKnown(t *testing.T) {
	withBoard(t, func(b *board, d *diary, _ *speaker) {
		a := heard(2)
		a.Cluster = "d"
		b.hear(a, "seeds", "x", 0)
		b.hear(heard(0), "seeds", "x", 0)
		synctest.Wait()
		if found, _, _ := d.read(); len(found)+len(b.list()) > 0 {
			t.Errorf("told %+v", found)
		}
	})
}

func TestStrangersAreToldOnceAndBounded(t *testing.T) {
	withBoard(t, func(b *board, d *diary, _ *speaker) {
		for range 3 {
			for i := range mostStrange + 10 {
				b.meet(Stranger{Cluster: "d", Reason: OtherCluster, Addr: "x"}, fmt.Sprint(i))
				pass(time.Millisecond)
			}
		}
		synctest.Wait()
		if _, _, strangers := d.read(); len(strangers) != mostStrange || len(b.strange()) != mostStrange {
			t.Errorf("told of %d, knows %d", len(strangers), len(b.strange()))
		}
		pass(forgetAfter)
		if n := len(b.strange()); n != 0 {
			t.Errorf("remembers %d", n)
		}
		b.meet(Stranger{Cluster: "d", Reason: OtherCluster, Addr: "x"}, "0")
		synctest.Wait()
		if _, _, strangers := d.read(); len(strangers) != mostStrange+1 {
			t.Errorf("told of %d", len(strangers))
		}
	})
}

func TestTwoClustersOfOneName(t *testing.T) {
	withBoard(t, func(b *board, d *diary, s *speaker) {
		two, three := heard(2), heard(3)
		two.ClusterID, three.ClusterID = 22, 33
		b.hear(two, "gossip", "", 0)
		synctest.Wait()
		if _, conflicts, _ := d.read(); len(conflicts) != 0 {
			t.Errorf("told of %+v", conflicts)
		}
		b.hear(three, "gossip", "", 0) // at odds with 2, while this one waits
		b.hear(three, "gossip", "", 0)
		synctest.Wait()
		s.change(func(a *Announcement) { a.ClusterID = 22 })
		three.Stamp++
		b.hear(three, "gossip", "", 0) // at odds with this one
		two.Stamp++
		b.hear(two, "gossip", "", 0)
		three.Stamp++
		b.hear(three, "gossip", "", 0)
		synctest.Wait()
		_, conflicts, _ := d.read()
		if len(conflicts) != 2 || len(b.quarrels()) != 2 {
			t.Fatalf("told of %+v", conflicts)
		}
		for i, want := range [][2]uint64{{2, 3}, {1, 3}} {
			if c := conflicts[i]; c.Kind != TwoClusters || c.A.ID != want[0] || c.B.ID != want[1] || c.A.ClusterID != 22 || c.B.ClusterID != 33 {
				t.Errorf("%d: %+v", i, c)
			}
		}
		pass(forgetAfter)
		b.list()
		if q := b.quarrels(); len(q) != 0 {
			t.Errorf("remembers %+v", q)
		}
	})
}

// A conflict shows also when it is this process that comes to a cluster.
func TestConflictShowsWhenThisOneIsFounded(t *testing.T) {
	withBoard(t, func(b *board, d *diary, s *speaker) {
		two := heard(2)
		two.ClusterID = 22
		b.hear(two, "gossip", "", 0)
		s.change(func(a *Announcement) { a.ClusterID = 11 })
		b.hear(two, "gossip", "", 0) // as before
		synctest.Wait()
		if _, conflicts, _ := d.read(); len(conflicts) != 1 {
			t.Errorf("told of %+v", conflicts)
		}
	})
}

func TestTwins(t *testing.T) {
	withBoard(t, func(b *board, d *diary, s *speaker) {
		s.change(func(a *Announcement) { a.Incarnation = 5 })
		self, _ := b.speak()
		early := self
		s.change(func(a *Announcement) { a.Name = "renamed" })
		self, _ = b.speak()
		before := self
		before.Incarnation, before.Stamp = 4, 9
		for _, own := range []Announcement{self, early, before} { // an echo of now, of earlier, of before a restart
			b.hear(own, "multicast4", "x", 0)
		}
		synctest.Wait()
		if _, conflicts, _ := d.read(); len(conflicts) != 0 {
			t.Fatalf("an echo is a conflict: %+v", conflicts)
		}
		copied, again, later := self, self, self
		copied.PeerAddrs = []string{"10.0.0.77:2380"}
		again.Stamp++
		later.Incarnation++
		b.hear(copied, "multicast4", "x", 0)
		b.hear(copied, "multicast4", "x", 0)
		b.hear(again, "multicast4", "x", 0)
		b.hear(later, "multicast4", "x", 0)
		synctest.Wait()
		_, conflicts, _ := d.read()
		if len(conflicts) != 2 || conflicts[0].Kind != Twin || conflicts[0].A.ID != 1 || conflicts[0].B.ID != 1 {
			t.Errorf("told of %+v", conflicts)
		}
		if len(b.list()) != 0 {
			t.Error("a process knows itself")
		}
	})
}

// A handler that takes its time holds nobody up, and hears of the latest state.
func TestSlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{hold: make(chan struct{})}
		b := newBoard(Config{Cluster: "c", Self: process(1).self, Handler: d}, func(error) {})
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { b.dispatch(ctx) })
		a := heard(2)
		for range 100 {
			a.Stamp++
			b.hear(a, "gossip", "", 0)
			synctest.Wait()
		}
		close(d.hold)
		synctest.Wait()
		if found, _, _ := d.read(); len(found) != 2 || found[1].Stamp != a.Stamp {
			t.Errorf("told of %d, the last at %d", len(found), found[len(found)-1].Stamp)
		}
		stop()
		wg.Wait()
	})
}

// recorder is a log in memory.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *recorder) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSuffix(r.buf.String(), "\n"), "\n")[:strings.Count(r.buf.String(), "\n")]
}

func (r *recorder) logger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Writer(r), nil)) }

func TestProblemsAreToldOncePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		p := newProblems(r.logger())
		times := func(want int, lastHas string) {
			t.Helper()
			lines := r.lines()
			if len(lines) != want || want > 0 && !strings.Contains(lines[want-1], lastHas) {
				t.Fatalf("%d lines, want %d and %q:\n%s", len(lines), want, lastHas, strings.Join(lines, "\n"))
			}
		}
		refused := func(port int) error { // each attempt is from another port
			return fmt.Errorf("read tcp 10.0.0.1:%d->10.0.0.2:2380: connection refused", port)
		}
		for i := range 5 {
			p.note("seeds", "a", refused(i))
		}
		times(0, "") // it may pass
		if got := p.list(); len(got) != 1 || got[0].Target != "a" || got[0].Err == nil {
			t.Errorf("lists %+v", got)
		}
		pass(settle)
		for i := range 5 {
			p.note("seeds", "a", refused(i))
		}
		times(1, "refused")
		for range 2 {
			p.note("seeds", "a", &net.DNSError{Err: "x", Name: "a", IsNotFound: true})
		}
		times(2, "error")
		for range 2 {
			p.note("seeds", "a", nil)
		}
		times(3, "works again")
		p.note("seeds", "a", io.EOF) // and for a moment only
		p.note("seeds", "a", nil)
		times(3, "works again")
		for range 2 { // a source is told of at once
			p.note("gossip", "", errors.New("no port"))
		}
		times(4, "level=WARN")
		p.note("seeds", "b", io.EOF)
		p.keep("seeds", func(target string) bool { return target != "b" })
		if got := p.list(); len(got) != 1 || got[0].Source != "gossip" {
			t.Errorf("lists %+v", got)
		}
		for i := range mostProblems + 10 {
			p.note("seeds", fmt.Sprint(i), io.EOF)
		}
		if n := len(p.list()); n != mostProblems {
			t.Errorf("remembers %d", n)
		}
	})
}

// flaky is a source that fails.
type flaky struct {
	runs []time.Time
	err  error
	last time.Duration
}

func (*flaky) name() string { return "flaky" }

func (f *flaky) run(ctx context.Context) error {
	f.runs = append(f.runs, time.Now())
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(f.last):
		return f.err
	}
}

func TestFailedSourcesRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		d, err := New(Config{Cluster: "c", Self: process(1).self, Logger: r.logger()})
		if err != nil {
			t.Fatal(err)
		}
		bad, good := &flaky{err: errors.New("no luck")}, &flaky{last: time.Hour}
		d.sources = []source{bad, good}
		ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
		defer stop()
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
		// 1, 2, 4, 8, 16, then every 30 seconds, more or less a fifth.
		if n := len(bad.runs); n < 18 || n > 30 || len(good.runs) != 1 {
			t.Errorf("the one that fails ran %d times, the other %d", n, len(good.runs))
		}
		if lines := r.lines(); len(lines) != 1 {
			t.Errorf("the log was told\n%s", strings.Join(lines, "\n"))
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Cluster: "c", Self: process(1).self}
	for name, change := range map[string]func(*Config){
		"no name":      func(c *Config) { c.Cluster = "" },
		"long name":    func(c *Config) { c.Cluster = strings.Repeat("x", MaxName+1) },
		"no self":      func(c *Config) { c.Self = nil },
		"short key":    func(c *Config) { c.GossipKeys = [][]byte{make([]byte, 16)} },
		"no ask":       func(c *Config) { c.Seeds.Addrs = []string{"a"} },
		"bad gossip":   func(c *Config) { c.GossipKeys, c.Gossip.Addr = [][]byte{make([]byte, 32)}, "host:1" },
		"bad port":     func(c *Config) { c.GossipKeys, c.Gossip.Addr = [][]byte{make([]byte, 32)}, ":x" },
		"bad address":  func(c *Config) { c.GossipKeys, c.Gossip.Advertise = [][]byte{make([]byte, 32)}, "host:1" },
		"bad group":    func(c *Config) { c.Seal, c.Multicast.IPv4 = testKey(1), outgoingOr("10.0.0.1") },
		"wrong group":  func(c *Config) { c.Seal, c.Multicast.IPv6 = testKey(1), outgoingOr("239.1.1.1") },
		"bad beacon":   func(c *Config) { c.Seal, c.Multicast.Port = testKey(1), 70000 },
		"bad seed":     func(c *Config) { c.Ask, c.Seeds.Addrs = nobody, []string{"a:b:c"} },
		"bad dns":      func(c *Config) { c.Ask, c.Seeds.DNS = nobody, []string{"a b"} },
		"seed, port 0": func(c *Config) { c.Ask, c.Seeds.Addrs = nobody, []string{"a:0"} },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}
