package kv_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/concord-kv/concord/kv"
)

func put(key string) kv.Op { return kv.Op{Kind: kv.OpPut, Key: []byte(key)} }

func TestLimitsDefaults(t *testing.T) {
	want := kv.Limits{KeyBytes: 1024, RequestBytes: 64 << 20, Ops: 10_000, Depth: 16}
	if got := (kv.Limits{}).WithDefaults(); got != want {
		t.Errorf("defaults %+v", got)
	}
	given := kv.Limits{KeyBytes: 1, RequestBytes: 2, Ops: 3, Depth: 4}
	if got := given.WithDefaults(); got != given {
		t.Errorf("given limits became %+v", got)
	}
}

// The size of a transaction counts the bytes of all its keys and values, on
// both branches and in nested transactions.
func TestCheckTxnSize(t *testing.T) {
	l := kv.Limits{RequestBytes: 20}.WithDefaults()
	txn := kv.Txn{
		Compare: []kv.Compare{{Key: []byte("a"), End: []byte("bb"), Value: []byte("ccc")}}, // 6
		Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("k"), Value: []byte("value")}},       // 6
		Failure: []kv.Op{
			{Kind: kv.OpDelete, Key: []byte("k"), End: []byte("l")},                                   // 2
			{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("k"), End: []byte("l")}},                  // 2
			{Kind: kv.OpTxn, Txn: &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("nested")}}}}, // 6
		},
	}
	size, err := l.CheckTxn(&txn)
	if size != 22 || !errors.Is(err, kv.ErrRequestTooLarge) {
		t.Errorf("size %d, %v", size, err)
	}
	l.RequestBytes = 22
	if _, err := l.CheckTxn(&txn); err != nil {
		t.Errorf("at the limit: %v", err)
	}
}

func TestCheckTxnNests(t *testing.T) {
	l := kv.Limits{}.WithDefaults()
	txn := kv.Txn{Success: []kv.Op{put("a")}}
	for depth := 1; depth <= l.Depth; depth++ {
		if _, err := l.CheckTxn(&txn); err != nil {
			t.Fatalf("depth %d: %v", depth, err)
		}
		inner := txn
		txn = kv.Txn{Failure: []kv.Op{{Kind: kv.OpTxn, Txn: &inner}}}
	}
	if _, err := l.CheckTxn(&txn); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("depth %d: %v", l.Depth+1, err)
	}
}

func TestCheckGrantAndWatch(t *testing.T) {
	l := kv.Limits{}.WithDefaults()
	for _, c := range []struct {
		g    kv.Grant
		want error
	}{
		{kv.Grant{TTL: time.Millisecond}, nil},
		{kv.Grant{ID: 5, TTL: kv.MaxTTL}, nil},
		{kv.Grant{TTL: time.Millisecond - 1}, kv.ErrInvalidTTL},
		{kv.Grant{TTL: kv.MaxTTL + 1}, kv.ErrTTLTooLarge},
	} {
		if err := l.CheckGrant(&c.g); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.g, err, c.want)
		}
	}
	if err := l.CheckWatch(&kv.WatchRequest{Key: []byte("a"), Progress: -1}); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("negative progress: %v", err)
	}
	if err := l.CheckWatch(&kv.WatchRequest{Key: []byte("a"), Start: -5}); err != nil {
		t.Errorf("a negative start is for the store to answer: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	get := kv.Op{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("a")}}
	nest := func(op kv.Op) kv.Op { return kv.Op{Kind: kv.OpTxn, Txn: &kv.Txn{Failure: []kv.Op{op}}} }
	for _, c := range []struct {
		name string
		txn  kv.Txn
		want bool
	}{
		{"empty", kv.Txn{}, true},
		{"range", kv.Txn{Success: []kv.Op{get}}, true},
		{"put on failure", kv.Txn{Success: []kv.Op{get}, Failure: []kv.Op{put("a")}}, false},
		{"delete", kv.Txn{Success: []kv.Op{{Kind: kv.OpDelete}}}, false},
		{"nested range", kv.Txn{Success: []kv.Op{nest(nest(get))}}, true},
		{"nested put", kv.Txn{Success: []kv.Op{nest(nest(put("a")))}}, false},
		{"unknown operation", kv.Txn{Success: []kv.Op{{}}}, false},
	} {
		if got := c.txn.ReadOnly(); got != c.want {
			t.Errorf("%s: read-only %v", c.name, got)
		}
	}
}

// The rule about keys changed twice, told the long way: every operation names
// the keys of a small key space that it may change, and keys are looked up one
// by one. Source: etcd, server/etcdserver/api/v3rpc/key.go, checkIntervals,
// where only the order of nested transactions differs: etcd checks a nested put
// against earlier deletes only.
const keySpace = "abcde"

// oracle returns the keys that ops may put and delete, and whether some pair of
// operations conflicts.
func oracle(ops []kv.Op) (puts, deletes map[byte]bool, ok bool) {
	puts, deletes = map[byte]bool{}, map[byte]bool{}
	for i := range ops {
		p, d, ok := oracleOp(&ops[i])
		if !ok {
			return nil, nil, false
		}
		for k := range p {
			if puts[k] || deletes[k] {
				return nil, nil, false
			}
		}
		for k := range d {
			if puts[k] {
				return nil, nil, false
			}
		}
		for k := range p {
			puts[k] = true
		}
		for k := range d {
			deletes[k] = true
		}
	}
	return puts, deletes, true
}

func oracleOp(op *kv.Op) (puts, deletes map[byte]bool, ok bool) {
	puts, deletes = map[byte]bool{}, map[byte]bool{}
	switch op.Kind {
	case kv.OpPut:
		puts[op.Key[0]] = true
	case kv.OpDelete:
		for _, k := range []byte(keySpace) {
			if kv.InRange([]byte{k}, op.Key, op.End) {
				deletes[k] = true
			}
		}
	case kv.OpTxn:
		for _, branch := range [][]kv.Op{op.Txn.Success, op.Txn.Failure} {
			p, d, ok := oracle(branch)
			if !ok {
				return nil, nil, false
			}
			for k := range p {
				puts[k] = true
			}
			for k := range d {
				deletes[k] = true
			}
		}
	}
	return puts, deletes, true
}

func drawOps(t *rapid.T, depth int) []kv.Op {
	key := rapid.SampledFrom([]byte(keySpace))
	n := rapid.IntRange(0, 4).Draw(t, "operations")
	var ops []kv.Op
	for range n {
		kind := rapid.IntRange(0, 3).Draw(t, "kind")
		switch {
		case kind == 0:
			ops = append(ops, put(string(key.Draw(t, "put"))))
		case kind == 1:
			op := kv.Op{Kind: kv.OpDelete, Key: []byte{key.Draw(t, "delete")}}
			op.End = rapid.SampledFrom([][]byte{nil, {0}, {'c'}, {'e'}, {'z'}, append([]byte{op.Key[0]}, 0)}).Draw(t, "end")
			ops = append(ops, op)
		case kind == 2 && depth < 3:
			ops = append(ops, kv.Op{Kind: kv.OpTxn, Txn: &kv.Txn{Success: drawOps(t, depth+1), Failure: drawOps(t, depth+1)}})
		default:
			ops = append(ops, kv.Op{Kind: kv.OpRange, Range: &kv.Range{Key: []byte{key.Draw(t, "range")}}})
		}
	}
	return ops
}

func checkAgainstOracle(t *rapid.T) {
	txn := kv.Txn{Success: drawOps(t, 0), Failure: drawOps(t, 0)}
	_, _, okSuccess := oracle(txn.Success)
	_, _, okFailure := oracle(txn.Failure)
	_, err := kv.Limits{}.WithDefaults().CheckTxn(&txn)
	if okSuccess && okFailure {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	if !errors.Is(err, kv.ErrDuplicateKey) {
		t.Fatalf("accepted: %v", err)
	}
}

func TestDuplicatesRule(t *testing.T) { rapid.Check(t, checkAgainstOracle) }

func FuzzDuplicatesRule(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkAgainstOracle)) }

// Checking must not take time quadratic in the operations: these are as many as
// are allowed, laid out so that every put has to be held against many deletes.
func BenchmarkCheckTxnWorst(b *testing.B) {
	var txn kv.Txn
	for i := range 5000 {
		txn.Success = append(txn.Success, put(fmt.Sprintf("b%05d", i)),
			kv.Op{Kind: kv.OpDelete, Key: []byte("a"), End: fmt.Appendf(nil, "b%05d", 0)})
	}
	l := kv.Limits{}.WithDefaults()
	for b.Loop() {
		if _, err := l.CheckTxn(&txn); err != nil {
			b.Fatal(err)
		}
	}
}
