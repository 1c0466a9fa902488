package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// A snapshot holds the state at the moment it was taken, whatever is applied
// while it is written.
func TestSnapshotWhileApplying(t *testing.T) {
	d := start(t)
	c := newChance(5)
	log := c.log(600)
	var wg sync.WaitGroup
	type taken struct {
		index, hash uint64
		data        bytes.Buffer
		err         error
	}
	var all []*taken
	for i := range log {
		applyEntry(d.Machine, i+2, &log[i])
		if i%100 == 50 {
			s := &taken{}
			s.index, s.hash = d.Hash()
			all = append(all, s)
			write, release := d.Snapshot()
			wg.Go(func() {
				s.err = write(&s.data)
				release()
			})
		}
		d.Maintain()
	}
	wg.Wait()
	for _, s := range all {
		if s.err != nil {
			t.Fatal(s.err)
		}
		again := New(Options{})
		if err := again.Restore(&s.data); err != nil {
			t.Fatal(err)
		}
		for i := int(s.index) - 1; i < len(log); i++ {
			applyEntry(again, i+2, &log[i])
		}
		_, want := d.Hash()
		if index, got := again.Hash(); got != want || int(index) != len(log)+1 {
			t.Fatalf("snapshot of %d: hash %x at %d, want %x", s.index, got, index, want)
		}
		again.Close()
	}
}

// both puts or deletes two keys at once.
func both(kind kv.OpKind) []byte {
	ops := []kv.Op{{Kind: kind, Key: []byte("a")}, {Kind: kind, Key: []byte("b")}}
	for i := range ops {
		if kind == kv.OpPut {
			ops[i].Lease = 7
		}
	}
	return EncodeTxn(nil, &kv.Txn{Success: ops})
}

// startReaders reads everything at the same time until stop is called, and
// complains where it sees one of two keys only.
func (d *driver) startReaders() (stop func()) {
	t := d.TB
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	read := func(f func(v View)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				v := d.View()
				f(v)
				v.Close()
			}
		})
	}
	read(func(v View) {
		res, err := v.Range(&kv.Range{Key: []byte{0}, End: []byte{0}})
		if err != nil || len(res.KVs)%2 != 0 || res.Time < 1 {
			t.Errorf("%d keys, time %d, %v", len(res.KVs), res.Time, err)
		}
		d.Get([]byte("a"))
	})
	read(func(v View) {
		if l, err := v.TimeToLive(7, true); err != nil || len(l.Keys)%2 != 0 {
			t.Errorf("keys %s, %v", l.Keys, err)
		}
		_, _ = v.Leases()
		v.Members()
		v.Settings()
	})
	read(func(v View) {
		res, err := v.Txn(&kv.Txn{
			Compare: []kv.Compare{{Key: []byte("a"), Target: kv.CompareVersion, Relation: kv.Greater}},
			Success: []kv.Op{{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("b")}}},
			Failure: []kv.Op{{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("b")}}},
		})
		if err != nil || res.Succeeded != (len(res.Ops[0].Range.KVs) == 1) {
			t.Errorf("%+v, %v", res, err)
		}
		d.Status()
		d.Hash()
		d.Due(math.MaxInt32, 10)
		d.NextDeadline()
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// Readers see a state that was applied, while entries are, and while a snapshot
// replaces it.
func TestConcurrentReaders(t *testing.T) {
	d := start(t)
	d.apply(EncodeGrant(nil, 7, time.Hour))
	var snapshot bytes.Buffer
	write, release := d.Snapshot()
	if err := write(&snapshot); err != nil {
		t.Fatal(err)
	}
	release()
	stop := d.startReaders()
	_, replaced := d.Watch([]byte("a"), nil)
	for i := range 300 {
		if err, failed := d.apply(both([]kv.OpKind{kv.OpPut, kv.OpDelete, kv.OpPut}[i%3])).(error); failed {
			t.Fatal(err)
		}
		d.Maintain()
		if i%100 == 99 {
			if err := d.Restore(bytes.NewReader(snapshot.Bytes())); err != nil {
				t.Fatal(err)
			}
			d.index = 2
		}
	}
	stop()
	select {
	case <-replaced:
	default:
		t.Fatal("watchers were not told that the state was replaced")
	}
}

func TestViewTxn(t *testing.T) {
	d := start(t)
	for i := range 250 {
		d.put(fmt.Sprintf("%04d", i), "x")
	}
	v := d.View()
	defer v.Close()
	if _, err := v.Txn(&kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("a")}}}); kv.CodeOf(err) != kv.InvalidArgument {
		t.Fatalf("a view was written to: %v", err)
	}
	all := kv.Compare{Key: []byte{0}, End: []byte{0}, Target: kv.CompareMod, Relation: kv.Less, Number: 252}
	for _, number := range []int64{252, 251, 150} {
		all.Number = number
		res, err := v.Txn(&kv.Txn{Compare: []kv.Compare{all}})
		if err != nil || res.Succeeded != (number == 252) || res.Revision != 251 {
			t.Fatalf("%d: %+v, %v", number, res, err)
		}
	}
	_, err := v.Txn(&kv.Txn{Success: []kv.Op{{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("a"), Revision: 252}}}})
	if !errors.Is(err, kv.ErrFutureRevision) {
		t.Fatal(err)
	}
}

// A backup becomes a new cluster: same keys, other members, index 1.
func TestBootstrapRestored(t *testing.T) {
	d := start(t)
	d.put("a", "1")
	d.apply(EncodeGrant(nil, 7, time.Hour))
	d.apply(request(1, 1, 1))
	d.change(MemberChange{AddMember, kv.Member{ID: 2}})
	d.change(MemberChange{RemoveMember, kv.Member{ID: 1}})
	d.restart()
	d.Bootstrap(99, []kv.Member{{ID: 5}, {ID: 4}})
	if s := d.Status(); s.Cluster != 99 || s.Applied != 1 || s.Revision != 3 || s.Keys != 2 {
		t.Fatalf("status %+v", s)
	}
	if m := d.Members(); len(m) != 2 || m[0].ID != 4 || d.Removed(1) || d.Cluster() != 99 {
		t.Fatalf("members %+v", m)
	}
	d.index = 1
	if r := d.put("b", "2"); r.Revision != 4 {
		t.Fatalf("revision %d", r.Revision)
	}
	if r, ok := d.apply(request(1, 1, 1)).(*kv.TxnResult); !ok || r.Revision != 5 {
		t.Fatal("requests of the old cluster are remembered")
	}
}

func TestRestoreRefuses(t *testing.T) {
	d := start(t)
	d.put("a", "1")
	d.apply(request(1, 1, 1))
	d.apply(EncodePiece(nil, Piece{UploadID{1}, 0, 10}, []byte("abc")))
	d.apply(EncodeGrant(nil, 7, time.Hour))
	var good bytes.Buffer
	write, release := d.Snapshot()
	if err := write(&good); err != nil {
		t.Fatal(err)
	}
	release()
	_, before := d.Hash()
	newer := bytes.Clone(good.Bytes())
	newer[len(snapshotMagic)]++
	if err := d.Restore(bytes.NewReader(newer)); !errors.Is(err, kv.ErrUnsupported) {
		t.Fatalf("a newer format: %v", err)
	}
	for n := range good.Len() {
		if err := d.Restore(bytes.NewReader(good.Bytes()[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for all", n, good.Len())
		}
	}
	if _, after := d.Hash(); after != before || d.put("b", "").Revision != 4 {
		t.Fatal("a failed restore changed the state")
	}
	full := errors.New("disk full")
	for n := range good.Len() {
		write, release := d.Snapshot()
		if err := write(&limitedWriter{n: n, err: full}); !errors.Is(err, full) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		release()
	}
}

type limitedWriter struct {
	n   int
	err error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		n := w.n
		w.n = 0
		return n, w.err
	}
	w.n -= len(p)
	return len(p), nil
}

var _ io.Writer = (*limitedWriter)(nil)
