package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func outgoingOr(text string) netip.Addr { return netip.MustParseAddr(text) }

func nobody(context.Context, string) (Announcement, error) {
	return Announcement{}, errors.New("refused")
}

// town is DNS and who lives where.
type town struct {
	mu    sync.Mutex
	hosts map[string][]string     // names to addresses
	srv   map[string][]*net.SRV   // names to services
	homes map[string]Announcement // IP:PORT to who answers
	asked map[string]int          // by IP:PORT
	down  error                   // of DNS
	busy  map[string]bool         // answers never
}

func newTown() *town {
	return &town{hosts: map[string][]string{}, srv: map[string][]*net.SRV{}, homes: map[string]Announcement{}, asked: map[string]int{}, busy: map[string]bool{}}
}

func (w *town) LookupNetIP(_ context.Context, network, host string) (out []netip.Addr, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return nil, w.down
	}
	for _, addr := range w.hosts[host] {
		out = append(out, netip.MustParseAddr(addr))
	}
	if len(out) == 0 || network != "ip" {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, nil
}

func (w *town) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return "", nil, w.down
	}
	if records := w.srv[name]; len(records) > 0 && service+proto == "" {
		return name, records, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (w *town) ask(ctx context.Context, addr string) (Announcement, error) {
	w.mu.Lock()
	w.asked[addr]++
	a, ok := w.homes[addr]
	busy := w.busy[addr]
	w.mu.Unlock()
	if busy {
		<-ctx.Done()
		return Announcement{}, ctx.Err()
	}
	if !ok {
		return Announcement{}, errors.New("connection refused")
	}
	return a, nil
}

// change changes the town.
func (w *town) change(f func(w *town)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

func (w *town) times(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[addr]
}

func (w *town) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.asked))
}

// withSeeds runs a process with seeds in a bubble.
func withSeeds(t *testing.T, seeds Seeds, f func(w *town, d *Discovery, s *speaker, log *recorder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, s, log := newTown(), process(1), &recorder{}
		seeds.Resolver = w
		d, err := New(Config{Cluster: "c", Self: s.self, Seeds: seeds, Ask: w.ask, Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = d.Run(ctx) }) // it is nil
		f(w, d, s, log)
		stop()
		wg.Wait()
	})
}

func ids(list []Sighting) (out []uint64) {
	for _, s := range list {
		out = append(out, s.ID)
	}
	return out
}

func TestSeedsAreAsked(t *testing.T) {
	seeds := Seeds{Addrs: []string{"10.0.0.2", "10.0.0.3:7", "many", "fd00::9", "[fd00::8]", "[fd00::8]:7", "self"}}
	withSeeds(t, seeds, func(w *town, d *Discovery, s *speaker, _ *recorder) {
		w.change(func(w *town) {
			w.hosts["many"] = []string{"10.0.1.1", "::ffff:10.0.1.2", "fd00::1"}
			w.hosts["self"] = []string{"10.0.0.1"}
			w.homes["10.0.0.2:2380"], w.homes["10.0.1.2:2380"] = heard(2), heard(3)
			w.homes["10.0.0.1:2380"] = d.Self()
		})
		pass(10 * time.Second)
		want := []string{"10.0.0.1:2380", "10.0.0.2:2380", "10.0.0.3:7", "10.0.1.1:2380", "10.0.1.2:2380", "[fd00::1]:2380", "[fd00::8]:2380", "[fd00::8]:7", "[fd00::9]:2380"}
		if got := w.all(); !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
		known := d.Known()
		if !slices.Equal(ids(known), []uint64{2, 3}) || known[1].From != "10.0.1.2:2380" || known[1].Source != "seeds" {
			t.Errorf("knows %+v", known)
		}
	})
}

func TestDNSIsLookedUpAgain(t *testing.T) {
	withSeeds(t, Seeds{DNS: []string{"svc", "port:99", "_x._tcp.srv"}}, func(w *town, d *Discovery, s *speaker, log *recorder) {
		pass(10 * time.Second)
		if lines := log.lines(); len(lines) != 3 {
			t.Errorf("the log was told\n%s", strings.Join(lines, "\n"))
		}
		w.change(func(w *town) {
			w.hosts["svc"], w.hosts["port"], w.hosts["h1"] = []string{"10.0.0.2"}, []string{"10.0.0.3"}, []string{"10.0.0.4"}
			w.srv["_x._tcp.srv"] = []*net.SRV{{Target: "h1.", Port: 5}, {Target: "gone.", Port: 6}, {Target: ".", Port: 7}, {Target: "h1.", Port: 0}}
			w.homes["10.0.0.2:2380"], w.homes["10.0.0.3:99"] = heard(2), heard(3)
		})
		w.change(func(w *town) { w.hosts["h1"] = []string{"10.0.0.4"}; w.homes["10.0.0.4:5"] = heard(4) })
		pass(5 * time.Second)
		if got := w.all(); !slices.Equal(got, []string{"10.0.0.2:2380", "10.0.0.3:99", "10.0.0.4:5"}) {
			t.Errorf("asked %v", got)
		}
		if got := ids(d.Known()); !slices.Equal(got, []uint64{2, 3, 4}) {
			t.Errorf("knows %v", got)
		}
		// A service that is made known later goes before addresses.
		w.change(func(w *town) {
			w.hosts["h2"], w.homes["10.0.0.5:7"] = []string{"10.0.0.5"}, heard(5)
			w.srv["_concord-peer._tcp.svc"] = []*net.SRV{{Target: "h2.", Port: 7}}
		})
		pass(5 * time.Second)
		if got := ids(d.Known()); !slices.Contains(got, 5) {
			t.Errorf("knows %v", got)
		}
	})
}

// A process of a cluster asks less often, and one that loses its DNS goes on.
func TestSeedsAreAskedLessOften(t *testing.T) {
	withSeeds(t, Seeds{Addrs: []string{"10.0.0.2", "name"}}, func(w *town, d *Discovery, s *speaker, log *recorder) {
		w.change(func(w *town) { w.homes["10.0.0.2:2380"], w.down = heard(2), errors.New("DNS is down") })
		count := func(d time.Duration) int {
			before := w.times("10.0.0.2:2380")
			pass(d)
			return w.times("10.0.0.2:2380") - before
		}
		if n := count(time.Minute); n < 24 || n > 38 {
			t.Errorf("asked %d times a minute while alone", n)
		}
		s.change(func(a *Announcement) { a.ClusterID = 1 })
		d.Announce()
		if n := count(10 * time.Minute); n < 15 || n > 26 {
			t.Errorf("asked %d times in ten minutes in a cluster", n)
		}
		if lines := log.lines(); len(lines) != 1 || !strings.Contains(lines[0], "DNS is down") {
			t.Errorf("the log was told\n%s", strings.Join(lines, "\n"))
		}
	})
}

func TestSeedsThatRefuse(t *testing.T) {
	withSeeds(t, Seeds{Addrs: []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}}, func(w *town, d *Discovery, s *speaker, log *recorder) {
		other, broken := heard(2), heard(3)
		other.Cluster, broken.Name = "d", "a\x1bb"
		w.change(func(w *town) {
			w.homes["10.0.0.2:2380"], w.homes["10.0.0.3:2380"], w.busy["10.0.0.4:2380"] = other, broken, true
		})
		pass(time.Minute)
		if known := d.Known(); len(known) != 0 {
			t.Errorf("knows %+v", known)
		}
		strangers := d.Strangers()
		if len(strangers) != 1 || strangers[0].Cluster != "d" || strangers[0].Addr != "10.0.0.2:2380" || strangers[0].Reason != OtherCluster {
			t.Errorf("strangers %+v", strangers)
		}
		problems := d.Problems()
		if len(problems) != 4 || !strings.Contains(problems[0].Err.Error(), `cluster "d"`) || !errors.Is(problems[2].Err, context.DeadlineExceeded) {
			t.Errorf("problems %+v", problems)
		}
		if lines := log.lines(); len(lines) != 4 {
			t.Errorf("the log was told\n%s", strings.Join(lines, "\n"))
		}
		w.change(func(w *town) { w.homes["10.0.0.5:2380"] = heard(5) })
		pass(15 * time.Second)
		if problems := d.Problems(); len(problems) != 3 || len(d.Known()) != 1 {
			t.Errorf("problems %+v", problems)
		}
	})
}

func TestFileOfSeeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seeds")
	withSeeds(t, Seeds{File: path}, func(w *town, d *Discovery, s *speaker, log *recorder) {
		pass(10 * time.Second)
		if problems := d.Problems(); len(problems) != 1 || problems[0].Target != path || !errors.Is(problems[0].Err, os.ErrNotExist) {
			t.Errorf("problems %+v", problems)
		}
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			pass(3 * time.Second)
		}
		write("# who is there\n10.0.0.2 # the first\r\n\n  10.0.0.3:7\t\nbad one\n")
		if got := w.all(); !slices.Equal(got, []string{"10.0.0.2:2380", "10.0.0.3:7"}) {
			t.Errorf("asked %v", got)
		}
		if problems := d.Problems(); len(problems) != 3 || problems[2].Target != "bad one" {
			t.Errorf("problems %+v", problems)
		}
		write("10.0.0.4\n")
		if got := w.all(); !slices.Contains(got, "10.0.0.4:2380") {
			t.Errorf("asked %v", got)
		}
		if problems := d.Problems(); len(problems) != 1 || problems[0].Target != "10.0.0.4:2380" {
			t.Errorf("problems %+v", problems)
		}
		var many strings.Builder
		for i := range 10 * mostAsked {
			fmt.Fprintf(&many, "10.1.%d.%d\n", i/256, i%256)
		}
		write(many.String())
		if n := len(w.all()); n != mostAsked+3 {
			t.Errorf("asked %d of a long file", n)
		}
		write(strings.Repeat("x", 2*maxFile))
		if problems := d.Problems(); len(problems) != 1 || problems[0].Target != path {
			t.Errorf("problems %+v", problems)
		}
	})
}

func TestSurveyOfSeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		w.homes["10.0.0.2:2380"] = heard(2)
		cfg := Config{Cluster: "c", Seal: testKey(1), Multicast: Multicast{Off: true}, Seeds: Seeds{Addrs: []string{"10.0.0.2", "10.0.0.3"}, Resolver: w}, Ask: w.ask}
		began := time.Now()
		f, err := Survey(context.Background(), cfg, 5*time.Second)
		if err != nil || len(f.Known) != 1 || len(f.Problems) != 1 || f.Problems[0].Target != "10.0.0.3:2380" || time.Since(began) != 5*time.Second {
			t.Errorf("found %+v, %v after %v", f, err, time.Since(began))
		}
		cfg.Cluster = ""
		if _, err := Survey(context.Background(), cfg, time.Second); err == nil {
			t.Error("a secret without a cluster was taken")
		}
	})
}
