package discovery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist asks and tells. Its methods are called
// concurrently, and must not block.
type delegate struct{ g *gossip }

// NodeMeta is empty: announcements are larger than the 512 bytes that it takes.
func (delegate) NodeMeta(int) []byte { return nil }

// GetBroadcasts gives what is to be told to everyone.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.g.queue.GetBroadcasts(overhead, limit)
}

// NotifyMsg takes a broadcast.
func (d delegate) NotifyMsg(b []byte) { d.g.take(b) }

// LocalState gives all that is known.
func (d delegate) LocalState(bool) []byte {
	var out []byte
	if self, ok := d.g.board.speak(); ok && self.check() == nil {
		out = appendText(out, string(appendRumour(nil, self, 0)))
	}
	now := time.Now()
	for _, s := range d.g.board.list() {
		out = appendText(out, string(appendRumour(nil, s.Announcement, now.Sub(s.Heard))))
	}
	return out
}

// MergeRemoteState takes all that another knows.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	for _, rumour := range decodeState(b) {
		d.g.take(rumour)
	}
}

// maxRumour is the most bytes of a rumour.
const maxRumour = maxAnnouncement + binary.MaxVarintLen64

// A rumour is what a process said of itself, behind a uvarint of the milliseconds
// since it was heard from that process: however often a rumour is repeated, who
// is gone is forgotten.
func appendRumour(b []byte, a Announcement, age time.Duration) []byte {
	return a.append(binary.AppendUvarint(b, uint64(max(age.Milliseconds(), 0))))
}

func decodeRumour(b []byte) (a Announcement, age time.Duration, err error) {
	r := reader{rest: b}
	n := r.length(int(forgetAfter / time.Millisecond))
	if r.failed {
		return a, 0, fmt.Errorf("a rumour that is older than %v, or cut off", forgetAfter)
	}
	a, err = decodeAnnouncement(r.rest)
	return a, time.Duration(n) * time.Millisecond, err
}

// decodeState splits what LocalState wrote. What comes behind something that
// cannot be read is left out.
func decodeState(b []byte) (rumours [][]byte) {
	r := reader{rest: b}
	for len(r.rest) > 0 && len(rumours) <= mostKnown {
		rumour := r.take(r.length(maxRumour))
		if r.failed {
			break
		}
		rumours = append(rumours, rumour)
	}
	return rumours
}

func (g *gossip) take(rumour []byte) {
	if a, age, err := decodeRumour(rumour); err == nil {
		g.board.hear(a, g.name(), "", age)
	}
}

// broadcast tells everyone, in place of what the same process said before.
func (g *gossip) broadcast(a Announcement, age time.Duration) {
	if a.check() != nil {
		return
	}
	g.queue.QueueBroadcast(message{a.ID, appendRumour(nil, a, age)})
	g.queue.Prune(mostKnown)
}

// message is an announcement in memberlist's queue.
type message struct {
	id   uint64
	data []byte
}

// Name makes a message take the place of an older one of the same name.
func (m message) Name() string                          { return fmt.Sprintf("%016x", m.id) }
func (m message) Invalidates(memberlist.Broadcast) bool { return false }
func (m message) Message() []byte                       { return m.data }
func (m message) Finished()                             {}

// joiner joins processes that are known and are not gossiped with.
type joiner struct {
	list     *memberlist.Memberlist
	problems *problems
	ended    func() bool
	wg       sync.WaitGroup
	running  chan struct{} // as many at a time

	mu   sync.Mutex
	next map[string]attempt // by address
}

// attempt is when an address is tried again.
type attempt struct {
	at    time.Time
	pause time.Duration
}

// join tries those of addrs whose time has come, and does not wait.
func (j *joiner) join(addrs []string) {
	j.problems.keep("gossip", func(addr string) bool { return slices.Contains(addrs, addr) })
	j.mu.Lock()
	defer j.mu.Unlock()
	for addr := range j.next { // in any order
		if !slices.Contains(addrs, addr) {
			delete(j.next, addr)
		}
	}
	rand.Shuffle(len(addrs), func(a, b int) { addrs[a], addrs[b] = addrs[b], addrs[a] })
	for _, addr := range addrs {
		last := j.next[addr]
		if time.Now().Before(last.at) {
			continue
		}
		select {
		case j.running <- struct{}{}:
		default:
			return
		}
		pause := min(max(2*last.pause, firstRetry), lastRetry)
		j.next[addr] = attempt{time.Now().Add(jitter(pause)), pause}
		j.wg.Go(func() {
			defer func() { <-j.running }()
			_, err := j.list.Join([]string{addr})
			if err != nil && j.ended() {
				return // it was not given the time
			}
			if first := errors.Unwrap(err); first != nil { // of a list of one
				err = first
			}
			j.problems.note("gossip", addr, err)
		})
	}
}
