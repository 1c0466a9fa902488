package discovery

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ether carries packets between the radios of a test, to the sender too.
type ether struct {
	mu     sync.Mutex
	radios []*fakeRadio
	sent   []transmission
}

type transmission struct {
	from *fakeRadio
	at   time.Time
	data []byte
}

type fakeRadio struct {
	ether *ether
	addr  netip.AddrPort
	in    chan transmission
	done  chan struct{}
	once  sync.Once
	came  bool // an interface has come; guarded by ether.mu
	looks int  // for interfaces; guarded by ether.mu
	fail  chan error
}

func (e *ether) open() *fakeRadio {
	e.mu.Lock()
	defer e.mu.Unlock()
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(len(e.radios) + 1)}), 2384)
	r := &fakeRadio{ether: e, addr: addr, in: make(chan transmission, 1000), done: make(chan struct{}), came: true, fail: make(chan error, 1)}
	e.radios = append(e.radios, r)
	return r
}

func (r *fakeRadio) follow() (came bool) {
	r.ether.mu.Lock()
	defer r.ether.mu.Unlock()
	came, r.came = r.came, false
	r.looks++
	return came
}

func (r *fakeRadio) send(packet []byte) {
	r.ether.mu.Lock()
	defer r.ether.mu.Unlock()
	sent := transmission{r, time.Now(), slices.Clone(packet)}
	r.ether.sent = append(r.ether.sent, sent)
	for _, other := range r.ether.radios {
		select {
		case other.in <- sent:
		default:
		}
	}
}

func (r *fakeRadio) receive(buf []byte) (int, netip.AddrPort, error) {
	select {
	case sent := <-r.in:
		return copy(buf, sent.data), sent.from.addr, nil
	case err := <-r.fail:
		return 0, netip.AddrPort{}, err
	case <-r.done:
		return 0, netip.AddrPort{}, io.ErrClosedPipe
	}
}

func (r *fakeRadio) close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}

// times returns when a radio has sent since the time given.
func (e *ether) times(r *fakeRadio, since time.Time) (out []time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sent {
		if s.from == r && !s.at.Before(since) {
			out = append(out, s.at.Sub(since))
		}
	}
	return out
}

// listener is a process on the ether.
type listener struct {
	*Discovery
	speaker *speaker
	diary   *diary
	radio   *fakeRadio // the first
	next    chan *fakeRadio
	stop    func()
}

// tune starts a process on the ether.
func (e *ether) tune(t *testing.T, id uint64, change func(*Config)) *listener {
	t.Helper()
	l := &listener{speaker: process(id), diary: &diary{}}
	cfg := Config{Cluster: "c", Self: l.speaker.self, Handler: l.diary, Seal: testKey(1), Multicast: Multicast{Off: true}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if l.Discovery, err = newDiscovery(cfg); err != nil {
		t.Fatal(err)
	}
	l.radio, l.next = e.open(), make(chan *fakeRadio, 1)
	l.next <- l.radio
	l.sources = []source{newMulticast("multicast4", l.Discovery, id, func() (radio, error) { return <-l.next, nil })}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = l.Run(ctx) }) // it is nil
	l.stop = func() { stop(); wg.Wait() }
	t.Cleanup(l.stop)
	return l
}

// send has a packet come from somewhere.
func (e *ether) send(packet []byte) {
	r := &fakeRadio{ether: e, addr: netip.MustParseAddrPort("10.0.9.9:1")}
	r.send(packet)
}

func TestNewcomersAreAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		a, b := e.tune(t, 1, nil), e.tune(t, 2, nil)
		pass(0)
		for _, l := range []*listener{a, b} {
			l.speaker.change(func(a *Announcement) { a.ClusterID = 7 })
			l.Announce()
		}
		pass(5 * time.Minute)
		began := time.Now()
		c := e.tune(t, 3, nil)
		pass(0)
		if got := ids(c.Known()); !slices.Equal(got, []uint64{1, 2}) {
			t.Errorf("the newcomer knows %v at once", got)
		}
		for _, l := range []*listener{a, b} {
			if got := ids(l.Known()); !slices.Contains(got, 3) {
				t.Errorf("the newcomer is not known: %v", got)
			}
			if n := len(e.times(l.radio, began)); n != 1 {
				t.Errorf("answered %d times", n)
			}
		}
		if s := c.Known()[0]; s.From != a.radio.addr.String() || s.Source != "multicast4" || s.ClusterID != 7 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRhythm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		began := time.Now()
		a := e.tune(t, 1, nil)
		pass(time.Minute)
		sent := e.times(a.radio, began)
		if n := len(sent); n < 50 || n > 78 || sent[2] > time.Second {
			t.Errorf("%d times in the first minute, the first at %v", n, sent[:3])
		}
		for i, s := range e.sent {
			if p, err := decodeBeacon(s.data); err != nil || (p.kind == asking) != (i < firstAsks) {
				t.Errorf("packet %d is %+v, %v", i, p, err)
			}
		}
		a.speaker.change(func(a *Announcement) { a.ClusterID = 7 })
		now := time.Now()
		a.Announce()
		pass(0)
		if n := len(e.times(a.radio, now)); n > 1 {
			t.Errorf("sent %d times at once", n)
		}
		pass(friendGap)
		if n := len(e.times(a.radio, now)); n < 1 {
			t.Error("what is new was not sent at once")
		}
		pass(10 * time.Second)
		now = time.Now()
		pass(10 * time.Minute)
		if n := len(e.times(a.radio, now)); n < 50 || n > 76 {
			t.Errorf("%d times in ten minutes of a cluster", n)
		}
		e.mu.Lock()
		a.radio.came = true // an interface
		e.mu.Unlock()
		now = time.Now()
		pass(12 * time.Second)
		if n := len(e.times(a.radio, now)); n < firstAsks {
			t.Errorf("asked %d times on a new interface", n)
		}
	})
}

// However often others ask, nobody sends much.
func TestAskingIsNoLever(t *testing.T) {
	friend := beacon{kind: asking, instance: 99, cluster: "c"}
	for name, c := range map[string]struct {
		packet []byte
		most   int // in ten seconds
	}{
		"friends":          {friend.encode(testKey(1), heard(9).append(nil)), 10 * int(time.Second/friendGap)},
		"who only listens": {beacon{kind: wondering, instance: 99, cluster: "c"}.encode(testKey(1), nil), 10 * int(time.Second/friendGap)},
		"other secret":     {friend.encode(testKey(2), nil), 10 * int(time.Second/strangerGap)},
		"no secret":        {beacon{kind: wondering, instance: 99}.encode(nil, nil), 10 * int(time.Second/strangerGap)},
		"other cluster":    {beacon{kind: asking, instance: 99, cluster: "d"}.encode(testKey(1), nil), 10 * int(time.Second/strangerGap)},
		"telling":          {beacon{instance: 99, cluster: "d"}.encode(testKey(1), nil), 2},
		"noise":            {[]byte("noise"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ether{}
				a := e.tune(t, 1, nil)
				a.speaker.change(func(a *Announcement) { a.ClusterID = 7 })
				pass(time.Minute)
				began, looks := time.Now(), a.radio.looks
				for range 1000 {
					e.send(c.packet)
					pass(10 * time.Millisecond)
				}
				n := len(e.times(a.radio, began))
				if n > c.most+2 || c.most > 2 && n < c.most*8/10 {
					t.Errorf("sent %d times, want about %d", n, c.most)
				}
				if n := a.radio.looks - looks; n > 11 {
					t.Errorf("looked for interfaces %d times in ten seconds", n)
				}
			})
		})
	}
}

func TestStrangersOnTheAir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		a := e.tune(t, 1, nil)
		b := e.tune(t, 2, func(c *Config) { c.Cluster = "d" })
		c := e.tune(t, 3, func(c *Config) { c.Seal = testKey(2) })
		pass(time.Minute)
		for l, want := range map[*listener][]Stranger{
			a: {{Cluster: "c", Reason: OtherSecret, Addr: c.radio.addr.String()}, {Cluster: "d", Reason: OtherCluster, Addr: b.radio.addr.String()}},
			b: {{Cluster: "c", Reason: OtherCluster, Addr: a.radio.addr.String()}, {Cluster: "c", Reason: OtherCluster, Addr: c.radio.addr.String()}},
		} {
			got := l.Strangers()
			for i := range got {
				got[i].Heard, got[i].Source = time.Time{}, ""
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s hears %+v, want %+v", l.cfg.Cluster, got, want)
			}
			if _, _, told := l.diary.read(); len(told) != 2 || len(l.Known()) != 0 {
				t.Errorf("%s was told of %+v", l.cfg.Cluster, told)
			}
		}
	})
}

// A survey asks, hears everyone, and is not heard of.
func TestSurveyOnTheAir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		a, b := e.tune(t, 1, nil), e.tune(t, 2, func(c *Config) { c.Cluster = "d" })
		for _, l := range []*listener{a, b} {
			l.speaker.change(func(a *Announcement) { a.ClusterID = l.speaker.says.ID })
			l.Announce()
		}
		pass(25 * time.Second)
		_, _, before := a.diary.read()
		insider := e.tune(t, 0, func(c *Config) { c.Self = nil })
		outsider := e.tune(t, 77, func(c *Config) { c.Self, c.Cluster, c.Seal = nil, "", nil })
		pass(1500 * time.Millisecond)
		if got := insider.Known(); !slices.Equal(ids(got), []uint64{1}) || len(insider.Strangers()) != 1 {
			t.Errorf("who has the secret knows %+v", got)
		}
		if got := outsider.Strangers(); len(got) != 2 || got[0].Cluster != "c" || got[1].Cluster != "d" || len(outsider.Known()) != 0 {
			t.Errorf("who has not knows %+v", got)
		}
		if _, _, after := a.diary.read(); len(after) != len(before) || len(a.Known()) != 0 {
			t.Errorf("who only listens was heard of: %+v", after)
		}
	})
}

// What was recorded and is sent again changes nothing.
func TestReplayedBeacons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		a, b := e.tune(t, 1, nil), e.tune(t, 2, nil)
		pass(10 * time.Second)
		b.speaker.change(func(a *Announcement) { a.PeerAddrs = []string{"10.0.0.2:9999"} })
		b.Announce()
		pass(time.Second)
		e.mu.Lock()
		old := e.sent[:10]
		e.mu.Unlock()
		told, _, _ := a.diary.read()
		for _, s := range old {
			e.send(s.data)
		}
		pass(0)
		if again, conflicts, _ := a.diary.read(); len(again) != len(told) || len(conflicts) != 0 {
			t.Errorf("told of %+v, %+v", again[len(told):], conflicts)
		}
		if s := a.Known()[0]; s.PeerAddrs[0] != "10.0.0.2:9999" {
			t.Errorf("knows %+v", s)
		}
		if s := a.Known()[0]; s.From != b.radio.addr.String() {
			t.Errorf("was moved to %s", s.From)
		}
	})
}

// Nobody can speak for another cluster with the same key, and what an
// announcement of a later version says is left alone.
func TestSealedNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		a := e.tune(t, 1, nil)
		wrong := heard(5)
		wrong.Cluster = "d"
		for _, body := range [][]byte{wrong.append(nil), {9, 9}, make([]byte, maxAnnouncement)} {
			e.send(beacon{instance: 5, cluster: "c"}.encode(testKey(1), body))
		}
		e.send(make([]byte, maxBeacon+1))
		pass(time.Second)
		if found, _, strangers := a.diary.read(); len(found)+len(strangers) != 0 {
			t.Errorf("told of %+v, %+v", found, strangers)
		}
	})
}

// A process with an announcement that others would refuse says nothing.
func TestUnspeakable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		l := e.tune(t, 1, func(c *Config) {
			c.Self = func() Announcement { return Announcement{ID: 1, Name: strings.Repeat("x", MaxName+1)} }
		})
		pass(time.Minute)
		if n := len(e.sent); n != 0 {
			t.Errorf("%d packets", n)
		}
		if problems := l.Problems(); len(problems) != 1 || problems[0].Source != "self" {
			t.Errorf("problems %+v", problems)
		}
	})
}

// A radio that fails is opened again.
func TestRadioFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		a, b := e.tune(t, 1, nil), e.tune(t, 2, nil)
		pass(time.Second)
		old := b.radio
		old.fail <- errors.New("the network is down")
		synctest.Wait()
		if problems := b.Problems(); len(problems) != 1 || problems[0].Source != "multicast4" || !strings.Contains(problems[0].Err.Error(), "is down") {
			t.Errorf("problems %+v", problems)
		}
		b.next <- e.open()
		b.speaker.change(func(a *Announcement) { a.Name = "again" })
		pass(2 * time.Second)
		if s := a.Known()[0]; s.Name != "again" || s.From == old.addr.String() {
			t.Errorf("knows %+v", s)
		}
	})
}
