package sim

import (
	"math"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLoop: events run by time, those of one time in the order of scheduling,
// and what they schedule in the past runs now.
func TestLoop(t *testing.T) {
	var l loop
	var got []int64
	rnd := newChance(1, "test")
	for i := range 1000 {
		at := rnd.Int64N(50)
		l.at(at, func() {
			got = append(got, at<<32|int64(i))
			if l.now != at {
				t.Fatalf("event of %d runs at %d", at, l.now)
			}
		})
	}
	l.run(40)
	if l.now != 40 || len(l.queue) == 0 {
		t.Fatalf("the clock stands at %d with %d events left", l.now, len(l.queue))
	}
	l.at(3, func() { got = append(got, l.now<<32|math.MaxInt32) })
	l.run(100)
	if len(got) != 1001 {
		t.Fatalf("%d events ran", len(got))
	}
	for i := 1; i < len(got); i++ {
		if got[i] < got[i-1] {
			t.Fatalf("event %x ran after %x", got[i], got[i-1])
		}
	}
}

// TestNetworkOrder: packets of one channel arrive in order, whatever else
// happens to them, and none that was under way survives a reset.
func TestNetworkOrder(t *testing.T) {
	for seed := range uint64(50) {
		var l loop
		last, down := -1, 0
		n := network{loop: &l, rnd: newChance(seed, "network"), opt: netOptions{
			latency: time.Millisecond, drop: 0.1, dup: 0.1, slow: 0.05, queue: 1000,
		}}
		r := route{0, 1, chAppend}
		n.down = func(int, int) { down++ }
		n.deliver = func(_ route, payload []byte) {
			if i := int(payload[0]); i < last {
				t.Fatalf("seed %d: packet %d arrives after %d", seed, i, last)
			} else {
				last = i
			}
		}
		for i := range 200 {
			l.after(time.Duration(i)*100*time.Microsecond, func() { n.send(r, []byte{byte(i)}) })
		}
		l.after(5*time.Millisecond, func() { n.cut(0, 1, cutHold) })
		l.after(9*time.Millisecond, func() { n.heal(0, 1) })
		l.after(15*time.Millisecond, func() {
			n.reset(0, 1)
			if n.links[0][1][chAppend].flying != 0 {
				t.Fatalf("seed %d: packets survive a reset", seed)
			}
		})
		l.run(int64(time.Minute))
		if last < 190 || down != 2 {
			t.Fatalf("seed %d: the last packet is %d, %d sides heard of the reset", seed, last, down)
		}
	}
}

// TestHistoryFindsStaleRead: a read of a value that was overwritten before the
// read began is no linear history; while the write is under way it is.
func TestHistoryFindsStaleRead(t *testing.T) {
	broken := func(readAt int64) (found bool) {
		defer func() { found = recover() != nil }()
		h := newHistory(10)
		h.begin(1, asked{kind: opPut, key: "k", value: "a"}, 1)(told{}, 2)
		write := h.begin(1, asked{kind: opPut, key: "k", value: "b"}, 3)
		h.begin(3, asked{kind: opSwap, key: "k", value: "c", old: "x"}, 3)(told{failed: true}, 4)
		read := h.begin(2, asked{kind: opGet, key: "k"}, readAt)
		write(told{}, 5)
		read(told{value: "a"}, readAt+1)
		h.check(time.Minute)
		return false
	}
	if broken(4) {
		t.Error("a read beside a write may see the old value")
	}
	if !broken(6) {
		t.Error("a stale read was not found")
	}
}

// TestLedger: each broken promise is found at the event that breaks it.
func TestLedger(t *testing.T) {
	cases := map[string]func(l *ledger){
		"two leaders":    func(l *ledger) { l.leads(1, 5); l.leads(2, 5) },
		"two votes":      func(l *ledger) { l.voted(1, 5, 2); l.voted(1, 5, 3) },
		"log matching":   func(l *ledger) { l.filled(1, slot{1, 1}, content{1, 0}); l.filled(2, slot{1, 1}, content{2, 0}) },
		"never held":     func(l *ledger) { l.commits(1, slot{1, 1}) },
		"a gap":          func(l *ledger) { l.filled(1, slot{2, 1}, content{}); l.commits(1, slot{2, 1}) },
		"other hash":     func(l *ledger) { commit(l, 1); l.applied(1, 1, 7); l.applied(2, 1, 8) },
		"other results":  func(l *ledger) { commit(l, 1); l.answered(1, 1, 7); l.answered(2, 1, 8) },
		"not committed":  func(l *ledger) { l.applied(1, 1, 7) },
		"changed":        func(l *ledger) { commit(l, 1); l.filled(2, slot{1, 2}, content{}); l.commits(2, slot{1, 2}) },
		"time goes back": func(l *ledger) { commit(l, 1); commit(l, 2); l.stamped(1, 1, 9); l.stamped(1, 2, 8) },
	}
	for name, broken := range cases {
		func() {
			defer func() {
				if _, ok := recover().(violation); !ok {
					t.Errorf("%s: not found", name)
				}
			}()
			broken(newLedger())
		}()
	}
}

func commit(l *ledger, index uint64) {
	l.filled(1, slot{index, 1}, content{})
	l.commits(1, slot{index, 1})
}

// TestModel: the model knows revisions, versions, leases and retries.
func TestModel(t *testing.T) {
	m := newModel()
	put := &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("a"), Value: []byte("1"), PrevKV: true}}, ID: kv.RequestID{Seq: 1}}
	first, err := m.txn(put, true)
	if err != nil || first.Revision != 2 {
		t.Fatalf("the first put: %+v, %v", first, err)
	}
	if again, err := m.txn(put, true); err != nil || again != first || m.rev != 2 {
		t.Fatalf("the retry: %+v, %v", again, err)
	}
	put.ID.Seq = 2
	if r, _ := m.txn(put, true); r.Revision != 3 || len(r.Ops[0].Prev) != 1 || m.live["a"].Version != 2 {
		t.Fatalf("the second put: %+v", r)
	}
	gone := &kv.Txn{Success: []kv.Op{{Kind: kv.OpDelete, Key: []byte("b")}}}
	if r, _ := m.txn(gone, true); r.Revision != 3 || r.Ops[0].Deleted != 0 {
		t.Fatalf("deleting nothing: %+v", r)
	}
	if old, ok := m.at("a", 2); !ok || old.Version != 1 {
		t.Fatalf("at revision 2: %+v %v", old, ok)
	}
	if _, ok := m.at("a", 1); ok {
		t.Fatal("the key is there before it was put")
	}
}
