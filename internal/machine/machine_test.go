package machine

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// driver applies commands one an entry.
type driver struct {
	testing.TB
	*Machine
	index uint64
	time  int64
}

func start(t testing.TB) *driver {
	d := &driver{TB: t, Machine: New(Options{}), index: 1, time: 1}
	d.Bootstrap(1, []kv.Member{{ID: 1, Name: "one", PeerAddrs: []string{"h1:1"}}})
	t.Cleanup(func() { d.Machine.Close() })
	return d
}

func (d *driver) at() Position { return Position{d.index, 1, d.time} }

func (d *driver) apply(command []byte) any {
	d.Helper()
	d.index++
	results := make([]any, 1)
	d.Apply(d.at(), [][]byte{command}, results)
	return results[0]
}

func (d *driver) change(changes ...MemberChange) any {
	d.index++
	return d.ApplyMembers(d.at(), EncodeMembers(nil, changes...))
}

func (d *driver) put(key, value string) *kv.TxnResult {
	d.Helper()
	r, ok := d.apply(EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte(key), Value: []byte(value)}}})).(*kv.TxnResult)
	if !ok {
		d.Fatalf("put failed")
	}
	return r
}

func (d *driver) restart() { d.Machine = restored(d.TB, d.Machine) }

func wantError(t testing.TB, result any, want error) {
	t.Helper()
	err, ok := result.(error)
	if !ok || !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", result, want)
	}
}

// recovered runs f and returns what it panics with.
func recovered(f func()) (r any) {
	defer func() { r = recover() }()
	f()
	return nil
}

func TestUnknownCommandStops(t *testing.T) {
	put := EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("a"), Value: []byte("1")}}})
	for name, command := range map[string][]byte{
		"empty":        {},
		"short":        {1},
		"kind":         {200, 0},
		"zero":         {0, 0},
		"principal":    append([]byte{byte(kindPut), 1}, put[2:]...),
		"flag":         append([]byte{byte(kindPut), hasRequest}, put[2:]...),
		"truncated":    put[:len(put)-1],
		"trailing":     append(put[:len(put):len(put)], 0),
		"staged put":   {byte(kindPut), 0, bitStaged, 1, 'k', 0, 1},
		"grant":        {byte(kindGrant), 0, 2},
		"settings bit": {byte(kindSettings), 0, 16},
		"member op":    append([]byte{byte(kindMembers), 0}, EncodeMembers(nil, MemberChange{Op: 9})...),
		"lease count":  {byte(kindKeepAlive), 0, 200},
	} {
		d := start(t)
		r := recovered(func() { d.apply(command) })
		e, ok := r.(*CommandError)
		if !ok || e.Index != 2 || len(command) > 0 && e.Kind != command[0] || e.Error() == "" {
			t.Errorf("%s: %v", name, r)
		}
	}
}

// What the limits should have kept out is an error, not the end of all members.
func TestLimitsAreNoReasonToStop(t *testing.T) {
	put := func(op kv.Op) []byte {
		op.Kind = kv.OpPut
		return EncodeTxn(nil, &kv.Txn{Success: []kv.Op{op}})
	}
	deep := &kv.Txn{}
	for range MaxDepth {
		deep = &kv.Txn{Success: []kv.Op{{Kind: kv.OpTxn, Txn: deep}}}
	}
	even, many, negative := 4, MaxVoters+2, int64(-1)
	age := kv.MaxTTL + time.Second/2
	for name, c := range map[string]struct {
		command []byte
		want    kv.Code
	}{
		"empty key":     {put(kv.Op{}), kv.InvalidArgument},
		"long key":      {put(kv.Op{Key: make([]byte, maxKey+1)}), kv.InvalidArgument},
		"long TTL":      {put(kv.Op{Key: []byte("a"), TTL: age}), kv.OutOfRange},
		"lease TTL":     {EncodeGrant(nil, 1, -time.Second), kv.OutOfRange},
		"no TTL":        {EncodeGrant(nil, 1, 0), kv.InvalidArgument},
		"compaction":    {EncodeCompact(nil, -1), kv.InvalidArgument},
		"depth":         {EncodeTxn(nil, deep), kv.InvalidArgument},
		"even voters":   {EncodeSettings(nil, SettingsChange{Voters: &even}), kv.InvalidArgument},
		"many voters":   {EncodeSettings(nil, SettingsChange{Voters: &many}), kv.InvalidArgument},
		"history bytes": {EncodeSettings(nil, SettingsChange{HistoryBytes: &negative}), kv.InvalidArgument},
		"retention":     {EncodeSettings(nil, SettingsChange{Retention: &age}), kv.OutOfRange},
	} {
		d := start(t)
		err, failed := d.apply(c.command).(error)
		if !failed || kv.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if d.put("longest"+string(make([]byte, maxKey-7)), "").Revision != 2 || d.Settings() != DefaultSettings() {
			t.Errorf("%s: something was changed", name)
		}
	}
}

func TestOrderIsAsserted(t *testing.T) {
	for name, at := range map[string]Position{"index": {5, 2, 100}, "term": {6, 1, 100}, "time": {6, 2, 99}} {
		d := start(t)
		d.Apply(Position{5, 2, 100}, nil, nil)
		if recovered(func() { d.Apply(at, nil, nil) }) == nil {
			t.Errorf("%s went back unnoticed", name)
		}
	}
	d := start(t)
	d.Apply(Position{5, 2, 100}, nil, nil)
	d.Apply(Position{6, 2, 0}, nil, nil)
	if now := d.View().Header().Time; now != 100 {
		t.Fatalf("an entry without a stamp moved time to %d", now)
	}
}

// Nothing but the result is allocated for a single put.
func TestPutAllocatesOnce(t *testing.T) {
	d := start(t)
	command := EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("a"), Value: []byte("1")}}})
	commands, results := [][]byte{command}, make([]any, 1)
	apply := func(results []any) func() {
		return func() {
			d.index++
			d.Apply(d.at(), commands, results)
		}
	}
	apply(results)()
	if n := testing.AllocsPerRun(1000, apply(results)); n > 1 {
		t.Errorf("an answered put allocates %v times", n)
	}
	if n := testing.AllocsPerRun(1000, apply(nil)); n > 0 {
		t.Errorf("an unanswered put allocates %v times", n)
	}
}
