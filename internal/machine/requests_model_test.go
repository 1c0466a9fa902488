package machine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// naive remembers requests as the comments on their bounds say, in maps that it
// goes through. Clients are in the order in which they were heard of last.
type naive struct {
	clients    []*naiveClient
	maxClients int
	maxBytes   int64
}

type naiveClient struct {
	id             [16]byte
	floor, highest uint64
	last           kv.Time
	slots          uint64
	results        map[uint64]naiveResult
}

type naiveResult struct {
	at     kv.Time
	result *kv.TxnResult
	large  int64
}

func (n *naive) client(id [16]byte) int {
	return slices.IndexFunc(n.clients, func(c *naiveClient) bool { return c.id == id })
}

func (n *naive) find(id kv.RequestID, now kv.Time) (*kv.TxnResult, error) {
	i := n.client(id.Client)
	if i < 0 {
		if len(n.clients) == n.maxClients && now-n.clients[0].last < rememberedFor {
			return nil, kv.ErrTooManyClients
		}
		return nil, nil
	}
	c := n.clients[i]
	e, ok := c.results[id.Seq]
	if id.Seq <= c.floor || ok && now-e.at >= rememberedFor {
		return nil, kv.ErrRequestTooOld
	}
	return e.result, nil
}

func (n *naive) bytes() (sum int64) {
	for _, c := range n.clients {
		sum += int64(c.slots) * slotBytes
		for _, e := range c.results {
			sum += e.large
		}
	}
	return sum
}

func (n *naive) remember(id kv.RequestID, now kv.Time, result *kv.TxnResult) {
	c := &naiveClient{id: id.Client, results: map[uint64]naiveResult{}}
	if i := n.client(id.Client); i >= 0 {
		c = n.clients[i]
		n.clients = slices.Delete(n.clients, i, i+1)
	} else if len(n.clients) == n.maxClients {
		n.clients = n.clients[1:]
	}
	n.clients = append(n.clients, c)
	c.highest, c.last = max(c.highest, id.Seq), now
	if c.highest > 64 {
		c.floor = max(c.floor, c.highest-64)
	}
	c.slots = max(c.slots, 1)
	for seq := range c.results {
		for seq > c.floor && seq%c.slots == id.Seq%c.slots {
			c.slots *= 2
			for old := range c.results {
				if old <= c.floor {
					delete(c.results, old)
				}
			}
		}
	}
	for seq := range c.results {
		if seq%c.slots == id.Seq%c.slots {
			delete(c.results, seq)
		}
	}
	e := naiveResult{at: now, result: result}
	if size := int64(len(encodeResult(nil, result))); size > smallBytes {
		e.large = size
	}
	c.results[id.Seq] = e
	for i := 0; n.bytes() > n.maxBytes; i++ {
		n.clients[i].forget()
	}
}

func (c *naiveClient) forget() { c.floor, c.slots, c.results = c.highest, 0, map[uint64]naiveResult{} }

func (n *naive) forgetOld(now kv.Time, most int) {
	for _, c := range n.clients {
		if c.slots > 0 && now-c.last >= rememberedFor && most > 0 {
			c.forget()
			most--
		}
	}
}

// section writes what is remembered.
func (r *requests) section(t testing.TB) []byte {
	var buf bytes.Buffer
	s := sectionWriter{w: bufio.NewWriter(&buf)}
	if r.write(&s); s.err != nil || s.w.Flush() != nil {
		t.Error(s.err)
	}
	return buf.Bytes()
}

// remembering is a memory of requests beside the naive one.
type remembering struct {
	t        *testing.T
	c        *chance
	r        *requests
	naive    naive
	hash     runningHash
	now      kv.Time
	revision kv.Revision
	highest  map[byte]uint64
	seen     map[string]int // how often which answer came
}

func (x *remembering) limit(r *requests) *requests {
	r.maxBytes, r.maxClients = x.naive.maxBytes, x.naive.maxClients
	return r
}

// request draws one, mostly near the window of its client.
func (x *remembering) request() kv.RequestID {
	client := byte(1 + x.c.IntN(x.c.IntN(11)+1))
	seq := int64(x.highest[client]) + 1
	switch x.c.IntN(4) {
	case 0:
		seq -= int64(x.c.IntN(70))
	case 1:
		seq += int64(x.c.IntN(4))
	case 2:
		if x.c.IntN(20) == 0 {
			seq += int64(x.c.IntN(200))
		}
	}
	return kv.RequestID{Client: [16]byte{client}, Seq: uint64(max(1, seq))}
}

func (x *remembering) step() {
	x.now += kv.Time(x.c.IntN(500))
	if x.c.IntN(300) == 0 {
		x.now += kv.Time(x.c.IntN(2 * rememberedFor))
	}
	x.r.forgetOld(x.now, 2)
	x.naive.forgetOld(x.now, 2)
	id := x.request()
	want, wantErr := x.naive.find(id, x.now)
	got, err := x.r.find(id, x.now)
	if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) || sameResult(want, got) != "" {
		x.t.Fatalf("%v at %d: got %v, %v, want %v, %v", id, x.now, got, err, want, wantErr)
	}
	x.seen[fmt.Sprint(wantErr, want != nil)]++
	if want != nil || wantErr != nil {
		return
	}
	x.revision++
	result := &kv.TxnResult{Header: kv.Header{Revision: x.revision, Time: x.now}, Ops: []kv.OpResult{{Kind: kv.OpPut}}}
	if x.c.IntN(3) == 0 {
		result.Ops[0].Prev = []kv.KeyValue{{Key: []byte("k"), Value: bytes.Repeat([]byte{byte(x.revision)}, x.c.IntN(x.c.IntN(1500)+1))}}
	}
	x.r.remember(id, x.now, result, &x.hash)
	x.naive.remember(id, x.now, result)
	x.highest[id.Client[0]] = max(x.highest[id.Client[0]], id.Seq)
}

// restore replaces the memory by one that was read from what it wrote.
func (x *remembering) restore() {
	data := x.r.section(x.t)
	s := sectionReader{r: bufio.NewReader(bytes.NewReader(data))}
	x.r = x.limit(newRequests())
	if x.r.read(&s); s.err != nil {
		x.t.Fatal(s.err)
	}
	if !bytes.Equal(x.r.section(x.t), data) {
		x.t.Fatal("restored to something else")
	}
}

// TestRequestsModel holds the memory of requests against the naive one, over
// restarts, while snapshots that were captured before stay what they were. One
// that is never restarted or captured comes to the same hash and contents.
func TestRequestsModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			run := func(disturbed bool) *remembering {
				x := &remembering{t: t, c: newChance(seed), naive: naive{maxClients: 8, maxBytes: 40 << 10}, highest: map[byte]uint64{}, seen: map[string]int{}}
				x.r = x.limit(newRequests())
				var wg sync.WaitGroup
				defer wg.Wait()
				for i := range 4000 {
					x.step()
					if i%50 == 0 {
						x.r.check(t)
					}
					if disturbed && i%97 == 0 {
						captured := x.r.copy()
						first := captured.section(t)
						wg.Go(func() {
							for range 3 { // while steps go on
								if !bytes.Equal(captured.section(t), first) {
									t.Error("what was captured has changed")
								}
							}
						})
					}
					if disturbed && i%331 == 0 {
						x.restore()
					}
				}
				return x
			}
			x, calm := run(true), run(false)
			if x.hash != calm.hash || !bytes.Equal(x.r.section(t), calm.r.section(t)) {
				t.Fatal("restarts and snapshots leave a trace")
			}
			if len(x.seen) != 4 { // new, known, too old, too many
				t.Fatalf("not all answers came: %v", x.seen)
			}
		})
	}
}
