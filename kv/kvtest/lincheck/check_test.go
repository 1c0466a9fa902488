package lincheck_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/kv/kvtest/lincheck"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record lets clients work on a store at once and returns what they saw.
func record(t *testing.T, s kv.KV, clients, each int) *lincheck.History {
	t.Helper()
	h := lincheck.NewHistory(nil)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() { work(t, h.Recorder(s, c, kv.Strong), c, each) })
	}
	wg.Wait()
	return h
}

func work(t *testing.T, r *lincheck.Recorder, client, n int) {
	rng := rand.New(rand.NewPCG(uint64(client), 1))
	ctx := t.Context()
	var mod kv.Revision
	for i := range n {
		key := fmt.Sprint(rng.IntN(3))
		value := fmt.Sprintf("%d.%d", client, i)
		switch rng.IntN(6) {
		case 0, 1:
			k, _ := r.Get(ctx, key)
			mod = k.ModRevision
		case 2, 3:
			r.Put(ctx, key, value)
		case 4:
			r.Delete(ctx, key)
		case 5:
			r.Swap(ctx, key, value, mod)
		}
	}
}

func TestModelIsLinearizable(t *testing.T) {
	h := record(t, kvtest.NewModel(kv.Limits{}), 8, 200)
	if h.Len() != 8*200 {
		t.Fatalf("%d operations recorded", h.Len())
	}
	if err := h.Check(lincheck.Options{}); err != nil {
		t.Fatal(err)
	}
}

// faulty changes what a store answers.
type faulty struct {
	kv.Store
	txn  func(kv.Txn) (kv.TxnResult, error)
	read func(kv.Range) (kv.RangeResult, error)
}

func (f faulty) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	if f.txn != nil {
		return f.txn(t)
	}
	return f.Store.Txn(ctx, t)
}

func (f faulty) Range(ctx context.Context, r kv.Range) (kv.RangeResult, error) {
	if f.read != nil {
		return f.read(r)
	}
	return f.Store.Range(ctx, r)
}

// A store that answers some writes with an error, done or not, is linearizable.
func TestUnknownOutcomesAreLinearizable(t *testing.T) {
	for _, unknown := range []error{kv.ErrTimeout, kv.ErrLeaderChanged, context.DeadlineExceeded, errors.New("?")} {
		m := kvtest.NewModel(kv.Limits{})
		var n atomic.Int64
		s := faulty{Store: m, txn: func(t kv.Txn) (kv.TxnResult, error) {
			i := n.Add(1)
			if i%10 == 3 {
				return kv.TxnResult{}, unknown
			}
			res, err := m.Txn(context.Background(), t)
			if i%10 == 7 {
				return kv.TxnResult{}, unknown
			}
			return res, err
		}}
		if err := record(t, s, 4, 60).Check(lincheck.Options{}); err != nil {
			t.Errorf("%v: %v", unknown, err)
		}
	}
}

// Each of these stores breaks the promise in a way of its own.
func TestFaultyStoresAreFound(t *testing.T) {
	ctx := context.Background()
	faults := map[string]func(m *kvtest.Model) kv.KV{
		"a read from the past": func(m *kvtest.Model) kv.KV {
			return faulty{Store: m, read: func(r kv.Range) (kv.RangeResult, error) {
				now, err := m.Range(ctx, kv.Range{Key: []byte("x")})
				r.Revision = max(1, now.Revision-20)
				res, _ := m.Range(ctx, r)
				return res, err
			}}
		},
		"an acknowledged write that is lost": func(m *kvtest.Model) kv.KV {
			var n atomic.Int64
			return faulty{Store: m, txn: func(t kv.Txn) (kv.TxnResult, error) {
				if n.Add(1)%10 == 0 {
					now, err := m.Range(ctx, kv.Range{Key: []byte("x")})
					return kv.TxnResult{Header: kv.Header{Revision: now.Revision + 1}, Succeeded: true, Ops: make([]kv.OpResult, 1)}, err
				}
				return m.Txn(ctx, t)
			}}
		},
		"a refused write that happened": func(m *kvtest.Model) kv.KV {
			var n atomic.Int64
			return faulty{Store: m, txn: func(t kv.Txn) (kv.TxnResult, error) {
				res, err := m.Txn(ctx, t)
				if n.Add(1)%10 == 0 {
					return kv.TxnResult{}, kv.ErrOverloaded
				}
				return res, err
			}}
		},
		"a write that happens twice": func(m *kvtest.Model) kv.KV {
			return faulty{Store: m, txn: func(t kv.Txn) (kv.TxnResult, error) {
				res, err := m.Txn(ctx, t)
				if len(t.Compare) == 0 {
					m.Txn(ctx, t)
				}
				return res, err
			}}
		},
		"a revision that falls": func(m *kvtest.Model) kv.KV {
			var n atomic.Int64
			return faulty{Store: m, txn: func(t kv.Txn) (kv.TxnResult, error) {
				res, err := m.Txn(ctx, t)
				if n.Add(1) == 100 {
					res.Revision -= 50
				}
				return res, err
			}}
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			h := record(t, fault(kvtest.NewModel(kv.Limits{})), 4, 200)
			err := h.Check(lincheck.Options{})
			if err == nil {
				t.Fatal("not found")
			}
			t.Log(strings.SplitN(err.Error(), "\n", 2)[0])
		})
	}
}

// A history by hand: call and return times are in the columns.
func TestHistoriesByHand(t *testing.T) {
	put := func(call, ret int64, value string, rev kv.Revision) lincheck.Operation {
		return lincheck.Operation{Kind: lincheck.Put, Key: "k", Value: value, Call: call, Return: ret, Answer: lincheck.Answer{Revision: rev}}
	}
	lost := func(call int64, value string) lincheck.Operation {
		return lincheck.Operation{Kind: lincheck.Put, Key: "k", Value: value, Call: call, Unknown: true}
	}
	get := func(call, ret int64, value string, mod kv.Revision) lincheck.Operation {
		return lincheck.Operation{Client: 1, Kind: lincheck.Get, Key: "k", Call: call, Return: ret, Answer: lincheck.Answer{Done: value != "", Value: value, Mod: mod}}
	}
	for _, c := range []struct {
		name string
		ops  []lincheck.Operation
		ok   bool
	}{
		{"nothing", nil, true},
		{"read during a write, either way", []lincheck.Operation{put(1, 10, "a", 2), get(2, 3, "", 0), get(4, 5, "a", 2)}, true},
		{"read back and forth during a write", []lincheck.Operation{put(1, 10, "a", 2), get(2, 3, "a", 2), get(4, 5, "", 0)}, false},
		{"read after a write", []lincheck.Operation{put(1, 2, "a", 2), get(3, 4, "", 0)}, false},
		{"same instant is concurrent", []lincheck.Operation{put(1, 3, "a", 2), get(3, 4, "", 0)}, true},
		{"unknown write seen late", []lincheck.Operation{lost(1, "a"), get(2, 3, "", 0), get(4, 5, "a", 2)}, true},
		{"unknown write seen and gone", []lincheck.Operation{lost(1, "a"), get(2, 3, "a", 2), get(4, 5, "", 0)}, false},
		{"value that nobody wrote", []lincheck.Operation{get(2, 3, "a", 2)}, false},
		{"value with a wrong revision", []lincheck.Operation{put(1, 2, "a", 2), get(3, 4, "a", 3)}, false},
		{"two writes at one revision", []lincheck.Operation{put(1, 2, "a", 2), put(1, 2, "b", 2)}, false},
		{"answered before it was called", []lincheck.Operation{put(2, 1, "a", 2)}, false},
		{"read of a write to come", []lincheck.Operation{get(1, 2, "a", 2), put(3, 4, "a", 2)}, false},
	} {
		var h lincheck.History
		for _, op := range c.ops {
			h.Add(op)
		}
		if err := h.Check(lincheck.Options{}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestPictureIsWritten(t *testing.T) {
	var h lincheck.History
	h.Add(lincheck.Operation{Kind: lincheck.Get, Key: "k", Return: 1, Answer: lincheck.Answer{Done: true, Value: "?", Mod: 2}})
	file := filepath.Join(t.TempDir(), "history.html")
	err := h.Check(lincheck.Options{Picture: file, Timeout: time.Second})
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Fatalf("error %v does not name the picture", err)
	}
	page, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(page), "html") {
		t.Fatalf("page of %d bytes: %v", len(page), err)
	}
}
