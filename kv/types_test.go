package kv_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/concord-kv/concord/kv"
)

func TestIDsPrintAsEtcdctlDoes(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{kv.MemberID(0x8e9e05c52164694d).String(), "8e9e05c52164694d"},
		{kv.MemberID(0x2a).String(), "2a"},
		{kv.ClusterID(0xcdf818194e3a8c32).String(), "cdf818194e3a8c32"},
		{kv.LeaseID(0x2a).String(), "000000000000002a"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

// A deadline is never before the time plus the duration, and less than a
// millisecond behind.
func TestTimeAddRoundsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := kv.Time(rapid.Int64Range(0, 1<<52).Draw(t, "from"))
		d := time.Duration(rapid.Int64Range(0, int64(kv.MaxTTL)).Draw(t, "d"))
		over := from.Add(d) - from - kv.Time(d/time.Millisecond)
		if over != 0 && over != 1 || (over == 1) != (d%time.Millisecond != 0) {
			t.Fatalf("%d + %v = %d", from, d, from.Add(d))
		}
		if back := from.Add(d).Sub(from); back < d || back-d >= time.Millisecond {
			t.Fatalf("%v became %v", d, back)
		}
	})
}

// The longest TTL that validation lets through must still make a deadline.
func TestTimeAddLongest(t *testing.T) {
	if got := kv.Time(0).Add(kv.MaxTTL); got != kv.Time(kv.MaxTTL/time.Millisecond) {
		t.Errorf("MaxTTL from 0 ends at %d", got)
	}
	if room := math.MaxInt64 - kv.MaxTTL; room >= time.Second || kv.MaxTTL%time.Second != 0 {
		t.Error("MaxTTL is not the longest whole number of seconds")
	}
}

func TestReadLevels(t *testing.T) {
	for _, level := range []kv.ReadLevel{kv.Strong, kv.Leader, kv.Eventual} {
		got, err := kv.ParseReadLevel(level.String())
		if err != nil || got != level {
			t.Errorf("%v parses as %v, %v", level, got, err)
		}
	}
	if _, err := kv.ParseReadLevel("Strong"); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("Strong with a capital: %v", err)
	}
	if got := kv.ReadLevel(9).String(); got != "ReadLevel(9)" {
		t.Errorf("unknown level prints as %s", got)
	}
}

func FuzzParseReadLevel(f *testing.F) {
	for _, s := range []string{"strong", "leader", "eventual", "", "ReadLevel(7)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		level, err := kv.ParseReadLevel(s)
		if err == nil && level.String() != s {
			t.Errorf("%q parses as %v", s, level)
		}
	})
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{kv.PutEvent.String(), "PUT"},
		{kv.DeleteEvent.String(), "DELETE"},
		{kv.LeaderRole.String(), "leader"},
		{kv.Role(99).String(), "unknown"},
		{kv.OpPut.String(), "put"},
		{kv.OpDelete.String(), "delete"},
		{kv.OpRange.String(), "range"},
		{kv.OpTxn.String(), "txn"},
		{kv.OpKind(0).String(), "OpKind(0)"},
		{kv.Internal.String(), "internal"},
		{kv.Unsupported.String(), "unsupported"},
		{kv.Code(99).String(), "Code(99)"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	k := kv.KeyValue{Key: []byte("k"), Value: []byte("v"), Version: 3}
	c := k.Clone()
	clear(k.Key)
	clear(k.Value)
	if string(c.Key) != "k" || string(c.Value) != "v" || c.Version != 3 {
		t.Errorf("the clone became %+v", c)
	}
}
