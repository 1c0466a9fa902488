package machine

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
)

func (d *driver) alarm(a kv.Alarm, raised bool) bool {
	d.Helper()
	changed, ok := d.apply(EncodeAlarm(nil, a, raised)).(*bool)
	if !ok {
		d.Fatal("alarm failed")
	}
	return *changed
}

func onePut(key string) []byte {
	return EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte(key)}}})
}

// Without space nothing grows, but what frees space works.
func TestNoSpace(t *testing.T) {
	d := start(t)
	d.put("a", "1")
	if _, ok := d.apply(EncodeGrant(nil, 7, time.Second)).(*kv.LeaseResult); !ok {
		t.Fatal("grant failed")
	}
	a := kv.Alarm{Member: 3, Type: kv.AlarmNoSpace}
	if !d.alarm(a, true) || d.alarm(a, true) {
		t.Error("the alarm was not raised once")
	}
	d.restart()
	if got := d.Alarms(); !slices.Equal(got, []kv.Alarm{a}) {
		t.Errorf("alarms after a restart: %v", got)
	}
	nested := &kv.Txn{Failure: []kv.Op{{Kind: kv.OpTxn, Txn: &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("b")}}}}}}
	for name, c := range map[string][]byte{
		"put": onePut("a"), "put in a branch not taken": EncodeTxn(nil, nested), "grant": EncodeGrant(nil, 8, time.Second),
		"piece": EncodePiece(nil, Piece{Total: 2}, []byte("x")),
	} {
		if err, ok := d.apply(c).(error); !ok || err != error(kv.ErrNoSpace) {
			t.Errorf("%s: %v", name, err)
		}
	}
	deletion := EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpDelete, Key: []byte("a")}}})
	for i, c := range [][]byte{deletion, EncodeKeepAlive(nil, 7), EncodeCompact(nil, 3), EncodeRevoke(nil, 7)} {
		if err, failed := d.apply(c).(error); failed {
			t.Errorf("command %d: %v", i, err)
		}
	}
	if d.alarm(kv.Alarm{Member: 4, Type: kv.AlarmNoSpace}, false) || !d.alarm(a, false) {
		t.Error("the wrong alarm was cleared")
	}
	d.put("a", "2")
}

// A cluster that knows that its members differ changes nothing, and lets
// nothing expire.
func TestCorrupt(t *testing.T) {
	d := start(t)
	d.put("a", "1")
	d.apply(EncodeGrant(nil, 7, time.Millisecond))
	d.alarm(kv.Alarm{Type: kv.AlarmCorrupt}, true)
	for name, c := range map[string][]byte{
		"put": onePut("a"), "delete": EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpDelete, Key: []byte("a")}}}),
		"grant": EncodeGrant(nil, 8, time.Second), "compaction": EncodeCompact(nil, 2), "revocation": EncodeRevoke(nil, 7),
	} {
		if err, ok := d.apply(c).(error); !ok || err != error(kv.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.time = 1000
	l, _, _ := d.Due(1000, 10)
	d.apply(EncodeExpire(nil, 1, []ExpiredLease{{ID: 7}}, nil))
	if !d.hasLease(7) || len(l) != 0 || d.NextDeadline() != math.MaxInt64 {
		t.Error("a lease expired")
	}
	d.unlock()
	d.alarm(kv.Alarm{Type: kv.AlarmCorrupt}, false)
	if l, _, _ := d.Due(1000, 10); len(l) != 1 {
		t.Error("the lease does not expire afterwards")
	}
}

// The running hash tells apart what only alarms and downgrades tell apart.
func TestUpkeepIsHashed(t *testing.T) {
	seen := map[uint64]string{}
	for name, c := range map[string][]byte{
		"raised": EncodeAlarm(nil, kv.Alarm{Member: 1, Type: 1}, true), "another": EncodeAlarm(nil, kv.Alarm{Member: 2, Type: 1}, true),
		"corrupt": EncodeAlarm(nil, kv.Alarm{Member: 1, Type: 2}, true), "none": EncodeAlarm(nil, kv.Alarm{Member: 1}, true),
		"downgrade": EncodeDowngrade(nil, "3.6.0"),
	} {
		d := start(t)
		d.apply(c)
		_, hash := d.Hash()
		if seen[hash] != "" {
			t.Errorf("%s hashes as %s", name, seen[hash])
		}
		seen[hash] = name
	}
}

// State that was written before there were alarms, a level, or access tokens, can
// be read.
func TestOldSnapshot(t *testing.T) {
	for _, version := range []byte{2, 3, 4} {
		d := start(t)
		d.put("a", "1")
		var b bytes.Buffer
		write, release := d.Snapshot()
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		release()
		data := b.Bytes()
		data[len(snapshotMagic)] = version
		// The config ends with no alarms, no downgrade, one founder and how it
		// is tended; the next section follows. It ended with an empty version,
		// and later with no alarms and no downgrade, too.
		ending := []byte{0, 0, 1, 1, 0, 0xe0, 0xa7, 0x12, 1, tagHistory}
		end := bytes.Index(data, ending)
		if version < 4 {
			data = slices.Replace(data, end, end+len(ending)-1, make([]byte, 1+2*(version-2))...)
		}
		// Before the keys stand users, roles and tokens.
		access := append([]byte{tagAuth}, appendBytes(nil, auth.NewTokens().Append(auth.New().Append(nil)))...)
		older := []byte{tagAuth, 5, 0, 1, 0, 0, 0}
		if version < 3 {
			older = nil
		}
		last := bytes.LastIndex(data, access)
		data = slices.Replace(data, last, last+len(access), older...)
		m := New(Options{})
		defer m.Close()
		if err := m.Restore(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		_, want := d.Hash()
		if _, got := m.Hash(); got != want || m.Settings() != DefaultSettings() {
			t.Errorf("hash %x, want %x; settings %+v", got, want, m.Settings())
		}
		if err := m.Restore(bytes.NewReader(append([]byte(snapshotMagic), snapshotVersion+1))); kv.CodeOf(err) != kv.Unsupported {
			t.Errorf("a newer format: %v", err)
		}
	}
}
