package discovery

import (
	"cmp"
	"context"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Times of the beacon.
const (
	// forming is how often a process tells of itself that waits for a cluster.
	forming = time.Second
	// formed is how often one does that belongs to a cluster.
	formed = 10 * time.Second
	// A process that begins asks three times, so that a lost packet costs little.
	firstAsks = 3
	firstGap  = 150 * time.Millisecond
	// Whoever asks is answered at once, but nobody sends more often than this
	// because of others: of those who have the secret, and of those who have not.
	// The answer goes to the group, so that one is enough for all who ask and
	// none can be directed at somebody else.
	friendGap   = 100 * time.Millisecond
	strangerGap = time.Second
	// looking is how often interfaces are looked for at most.
	looking = time.Second
)

// radio sends to a multicast group and hears it, on every interface.
type radio interface {
	// follow joins the group on interfaces that have come, and reports whether
	// there are any.
	follow() bool
	// send sends on every interface that was joined.
	send(packet []byte)
	// receive waits for the next packet of the group.
	receive(buf []byte) (n int, from netip.AddrPort, err error)
	// close ends receive.
	close() error
}

// multicast is the beacon over one version of IP.
type multicast struct {
	word     string
	board    *board
	key      cipher.AEAD
	instance uint64
	open     func() (radio, error)

	// Each wakes the loop that sends.
	news            chan struct{} // there is something new to say
	friend, foreign chan struct{} // somebody asks
}

// multicastSources makes a beacon for each version of IP. One that only listens
// needs no key.
func multicastSources(d *Discovery) ([]source, error) {
	cfg := d.cfg.Multicast
	if cfg.Off || d.cfg.Seal == nil && d.cfg.Self != nil {
		return nil, nil
	}
	port := cmp.Or(cfg.Port, DefaultMulticastPort)
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("multicast port %d is none", port)
	}
	instance := rand.Uint64()
	var out []source
	for _, v := range []struct {
		word, standard string
		group          netip.Addr
	}{{"multicast4", DefaultIPv4, cfg.IPv4}, {"multicast6", DefaultIPv6, cfg.IPv6}} {
		standard, err := netip.ParseAddr(v.standard)
		if err != nil {
			return nil, err
		}
		if !v.group.IsValid() {
			v.group = standard
		}
		if !v.group.IsMulticast() || v.group.Is4() != standard.Is4() {
			return nil, fmt.Errorf("%s is no multicast group of the same version of IP as %s", v.group, standard)
		}
		group := netip.AddrPortFrom(v.group, uint16(port))
		note := func(target string, err error) { d.problems.note(v.word, target, err) }
		out = append(out, newMulticast(v.word, d, instance, func() (radio, error) { return openRadio(group, note) }))
	}
	return out, nil
}

func newMulticast(word string, d *Discovery, instance uint64, open func() (radio, error)) *multicast {
	m := &multicast{
		word: word, board: d.board, key: d.cfg.Seal, instance: instance, open: open,
		news: make(chan struct{}, 1), friend: make(chan struct{}, 1), foreign: make(chan struct{}, 1),
	}
	d.board.announcers = append(d.board.announcers, func() { poke(m.news) })
	return m
}

// poke wakes who waits for c.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is about to wake
	}
}

func (m *multicast) name() string { return m.word }

func (m *multicast) run(ctx context.Context) error {
	r, err := m.open()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	wg.Go(func() { stop(m.listen(r)) })
	m.tell(ctx, r)
	err = r.close() // ends listen
	wg.Wait()
	return cmp.Or(context.Cause(ctx), err)
}

// tell sends, until ctx ends.
func (m *multicast) tell(ctx context.Context, r radio) {
	asked, last, looked := 0, time.Time{}, time.Time{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		gap := time.Duration(-1)
		select {
		case <-ctx.Done():
			return
		case <-m.news:
			gap = friendGap
		case <-m.friend:
			gap = friendGap
		case <-m.foreign:
			gap = strangerGap
		case <-timer.C:
		}
		if gap >= 0 { // as soon as that is long enough after the last time
			timer.Reset(min(time.Until(last.Add(gap)), time.Until(last.Add(m.pause(asked)))))
			continue
		}
		last = time.Now()
		if last.Sub(looked) >= looking {
			looked = last
			if r.follow() {
				asked = 0 // a network has come, and with it others
			}
		}
		asked++
		m.say(r, asked)
		timer.Reset(jitter(m.pause(asked)))
	}
}

// pause is how long it takes until the beacon is sent again by itself.
func (m *multicast) pause(asked int) time.Duration {
	switch {
	case asked < firstAsks:
		return firstGap << max(asked-1, 0)
	case m.board.alone():
		return forming
	}
	return formed
}

// say sends what this process says of itself.
func (m *multicast) say(r radio, asked int) {
	p := beacon{kind: telling, instance: m.instance, cluster: m.board.cluster}
	self, ok := m.board.speak()
	var body []byte
	if ok {
		if self.check() != nil {
			return // nobody would take it, and the log says so
		}
		body = self.append(nil)
	}
	if !ok {
		p.kind = wondering
	} else if asked <= firstAsks {
		p.kind = asking
	}
	r.send(p.encode(m.key, body))
}

// listen hears others until r is closed.
func (m *multicast) listen(r radio) error {
	buf := make([]byte, maxBeacon+1) // one more, so that what is too long is seen to be
	for {
		n, from, err := r.receive(buf)
		if err != nil {
			return err
		}
		m.hear(buf[:n], from)
	}
}

// hear takes a packet.
func (m *multicast) hear(packet []byte, from netip.AddrPort) {
	p, err := decodeBeacon(packet)
	if err != nil || p.instance == m.instance {
		return
	}
	wake := m.friend
	if m.key == nil || p.cluster != m.board.cluster {
		wake = m.foreign
		m.estrange(p, OtherCluster, from)
	} else if body, err := p.open(m.key); err != nil {
		wake = m.foreign
		m.estrange(p, OtherSecret, from)
	} else if len(body) > 0 {
		a, err := decodeAnnouncement(body)
		if err != nil || a.Cluster != p.cluster {
			return // of a later version; this one cannot know what it means
		}
		m.board.hear(a, m.word, from.String(), 0)
	}
	if _, speaks := m.board.speak(); speaks && p.kind != telling {
		poke(wake)
	}
}

// estrange tells of one that does not belong here, unless it only listens.
func (m *multicast) estrange(p beacon, why Reason, from netip.AddrPort) {
	if p.cluster != "" && p.kind != wondering {
		id := binary.LittleEndian.AppendUint64(nil, p.instance)
		m.board.meet(Stranger{Cluster: p.cluster, Reason: why, Addr: from.String(), Source: m.word}, string(id))
	}
}
