package discovery

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// full is an announcement with everything in it.
func full(id uint64) Announcement {
	return Announcement{
		Cluster: "orders", ClusterID: 0xfedcba9876543210, ID: id, Name: "n-" + fmt.Sprint(id), Incarnation: 3, Stamp: 7,
		PeerAddrs: []string{"10.0.0.1:2380", "[fd00::1]:2380", "host.example:2380"}, ClientAddrs: []string{"10.0.0.1:2379"},
		GossipAddr: "10.0.0.1:7946", Version: "1.2.3",
	}
}

func TestAnnouncementsAreReadAsWritten(t *testing.T) {
	for _, a := range []Announcement{full(1), {Cluster: "c", ID: 1}} {
		got, err := decodeAnnouncement(a.append(nil))
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("got %+v, %v", got, err)
		}
		// What a later version appends is skipped.
		if got, err := decodeAnnouncement(append(a.append(nil), "later"...)); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("got %+v, %v", got, err)
		}
		b := a.append(nil)
		for n := range b {
			if _, err := decodeAnnouncement(b[:n]); err == nil {
				t.Errorf("%d of %d bytes were taken for all", n, len(b))
			}
		}
	}
}

func TestAnnouncementsOfStrangeFormAreRefused(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	for name, change := range map[string]func(*Announcement){
		"no id":             func(a *Announcement) { a.ID = 0 },
		"no cluster":        func(a *Announcement) { a.Cluster = "" },
		"long cluster":      func(a *Announcement) { a.Cluster = long },
		"long name":         func(a *Announcement) { a.Name = long },
		"long version":      func(a *Announcement) { a.Version = long },
		"escape":            func(a *Announcement) { a.Name = "a\x1b[2Jb" },
		"line":              func(a *Announcement) { a.Version = "a\nb" },
		"no text":           func(a *Announcement) { a.Name = "\xff" },
		"no port":           func(a *Announcement) { a.PeerAddrs = []string{"10.0.0.1"} },
		"port 0":            func(a *Announcement) { a.PeerAddrs = []string{"10.0.0.1:0"} },
		"large port":        func(a *Announcement) { a.ClientAddrs = []string{"10.0.0.1:65536"} },
		"named port":        func(a *Announcement) { a.ClientAddrs = []string{"10.0.0.1:http"} },
		"no host":           func(a *Announcement) { a.PeerAddrs = []string{":2380"} },
		"escape in address": func(a *Announcement) { a.PeerAddrs = []string{"a\x1b:2380"} },
		"long address":      func(a *Announcement) { a.PeerAddrs = []string{strings.Repeat("x", maxAddr) + ":1"} },
		"gossip by name":    func(a *Announcement) { a.GossipAddr = "host:7946" },
		"many addresses":    func(a *Announcement) { a.PeerAddrs = slices.Repeat([]string{"a:1"}, MaxAddrs+1) },
	} {
		a := full(1)
		change(&a)
		if err := a.check(); err == nil {
			t.Errorf("%s: not refused", name)
		}
		if _, err := decodeAnnouncement(a.append(nil)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if err := full(1).check(); err != nil {
		t.Error(err)
	}
}

func TestWhatDoesNotFitIsLeftOut(t *testing.T) {
	a := full(1)
	a.PeerAddrs, a.ClientAddrs = nil, nil
	for i := range 30 {
		a.PeerAddrs = append(a.PeerAddrs, fmt.Sprintf("peer%d.example:2380", i))
		a.ClientAddrs = append(a.ClientAddrs, fmt.Sprintf("client%d.example:2379", i))
	}
	fit := a.fit()
	if !slices.Equal(fit.PeerAddrs, a.PeerAddrs[:MaxAddrs]) || !slices.Equal(fit.ClientAddrs, a.ClientAddrs[:MaxAddrs]) {
		t.Errorf("not the first %d of each: %v %v", MaxAddrs, fit.PeerAddrs, fit.ClientAddrs)
	}
	// The longest of everything: at least one way to the process is left.
	word := strings.Repeat("x", MaxName)
	a.Cluster, a.Name, a.Version = word, word, word
	a.PeerAddrs = slices.Repeat([]string{strings.Repeat("y", maxAddr-6) + ":65535"}, MaxAddrs)
	a.ClientAddrs = slices.Clone(a.PeerAddrs)
	a.GossipAddr = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
	fit = a.fit()
	if len(fit.PeerAddrs) < 1 || len(fit.ClientAddrs) > 0 || len(fit.append(nil)) > maxAnnouncement {
		t.Errorf("%d peer addresses, %d bytes", len(fit.PeerAddrs), len(fit.append(nil)))
	}
	if err := fit.check(); err != nil {
		t.Error(err)
	}
	if len(a.PeerAddrs) != MaxAddrs {
		t.Error("the original was changed")
	}
}

func TestWhatIsNewer(t *testing.T) {
	for _, c := range []struct {
		incA, stampA, incB, stampB uint64
		newer                      bool
	}{{1, 1, 1, 1, false}, {1, 2, 1, 1, true}, {1, 1, 1, 2, false}, {2, 1, 1, 9, true}, {1, 9, 2, 1, false}} {
		a, b := Announcement{Incarnation: c.incA, Stamp: c.stampA}, Announcement{Incarnation: c.incB, Stamp: c.stampB}
		if a.newer(b) != c.newer {
			t.Errorf("%+v: %v", c, !c.newer)
		}
	}
}

// Same looks at every field but the stamp.
func TestSame(t *testing.T) {
	typ := reflect.TypeFor[Announcement]()
	for i := range typ.NumField() {
		a := full(1)
		switch f := reflect.ValueOf(&a).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("other")
		case reflect.Uint64:
			f.SetUint(99)
		default:
			f.Set(reflect.ValueOf([]string{"other:1"}))
		}
		if name := typ.Field(i).Name; a.Same(full(1)) != (name == "Stamp") {
			t.Errorf("another %s: same is %v", name, a.Same(full(1)))
		}
	}
}

func FuzzAnnouncement(f *testing.F) {
	f.Add(full(1).append(nil))
	f.Add(Announcement{Cluster: "c", ID: 1}.append(nil))
	f.Add([]byte{announcementFormat})
	f.Add(append(make([]byte, 33), binary.AppendUvarint(nil, 1<<63)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAnnouncement(b)
		if err != nil {
			if !reflect.DeepEqual(a, Announcement{}) {
				t.Errorf("an error and %+v", a)
			}
			return
		}
		if err := a.check(); err != nil {
			t.Error(err)
		}
		again, err := decodeAnnouncement(a.append(nil))
		if err != nil || !reflect.DeepEqual(again, a) {
			t.Errorf("%+v became %+v, %v", a, again, err)
		}
	})
}

func FuzzState(f *testing.F) {
	good := appendText(nil, string(appendRumour(nil, full(1), 0)))
	f.Add(good)
	f.Add(append(good, 1))
	f.Add(appendText(good, "nothing"))
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		for _, rumour := range decodeState(b) {
			size += len(rumour)
			if a, age, err := decodeRumour(rumour); err == nil && (a.check() != nil || age < 0 || age > forgetAfter) {
				t.Errorf("took %+v, %v", a, age)
			}
		}
		if size > len(b) {
			t.Errorf("%d bytes out of %d", size, len(b))
		}
	})
}

func TestBeaconsAreReadAsSealed(t *testing.T) {
	key := testKey(1)
	body := full(1).append(nil)
	p := beacon{kind: asking, instance: 77, cluster: "orders"}
	packet := p.encode(key, body)
	if bytes.Contains(packet, []byte("10.0.0.1")) || !bytes.Contains(packet, []byte("orders")) {
		t.Error("not the name of the cluster alone is in clear")
	}
	got, err := decodeBeacon(packet)
	if err != nil || got.kind != asking || got.instance != 77 || got.cluster != "orders" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if opened, err := got.open(key); err != nil || !bytes.Equal(opened, body) {
		t.Errorf("opened %q, %v", opened, err)
	}
	if again := p.encode(key, body); bytes.Equal(again, packet) {
		t.Error("a nonce was used twice")
	}
	for _, other := range []byte{0, 2} {
		if _, err := got.open(testKey(other)); err == nil {
			t.Error("opened with another key")
		}
	}
	for i := range packet { // nothing can be changed without being seen
		forged := bytes.Clone(packet)
		forged[i] ^= 1
		if p, err := decodeBeacon(forged); err == nil {
			if _, err := p.open(key); err == nil {
				t.Errorf("opened with byte %d changed", i)
			}
		}
	}
	for n := range packet {
		if p, err := decodeBeacon(packet[:n]); err == nil {
			if _, err := p.open(key); err == nil {
				t.Errorf("opened %d of %d bytes", n, len(packet))
			}
		}
	}
}

func TestBeaconFitsAPacket(t *testing.T) {
	const headers, least = 40 + 8, 1280 // of IPv6 and UDP; what IPv6 carries everywhere (RFC 8200)
	p := beacon{cluster: strings.Repeat("x", MaxName)}
	if n := len(p.encode(testKey(1), make([]byte, maxAnnouncement))); n > maxBeacon || n+12+headers > least { // 12 for a longer nonce
		t.Errorf("%d bytes", n)
	}
}

func FuzzBeacon(f *testing.F) {
	key := testKey(1)
	f.Add(beacon{kind: asking, instance: 1, cluster: "c"}.encode(key, full(1).append(nil)))
	f.Add(beacon{kind: asking}.encode(nil, nil))
	f.Add([]byte(beaconMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := allocated()
		p, err := decodeBeacon(b)
		if cost := allocated() - before; cost > uint64(memoryBase+memoryGrowth*len(b)) {
			t.Errorf("%d bytes cost %d", len(b), cost)
		}
		if err != nil {
			return
		}
		if !speakable(p.cluster) || len(p.header)+len(p.sealed) != len(b) || !bytes.Equal(p.appendHeader(nil), p.header) {
			t.Errorf("read %+v", p)
		}
		if body, err := p.open(key); err == nil {
			_, _ = decodeAnnouncement(body) // it does not panic; errors are for others
		}
	})
}
