package lease

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/concord-kv/concord/kv"
)

func due(t *Table, now kv.Time, max int) (ids []kv.LeaseID) {
	for {
		leases, more := t.Due(nil, now, max)
		for _, l := range leases {
			ids = append(ids, l.ID)
		}
		if !more || len(leases) > 0 {
			return ids
		}
	}
}

func TestGrantRenewRevoke(t *testing.T) {
	table := New()
	if _, err := table.Renew(7, 0); !errors.Is(err, kv.ErrLeaseNotFound) {
		t.Fatalf("renew of nothing: %v", err)
	}
	if table.Next() != math.MaxInt64 {
		t.Fatal("an empty table has a deadline")
	}
	l, err := table.Grant(7, 1000, 500)
	if err != nil || l != (Lease{ID: 7, TTL: 1000, Deadline: 1500}) {
		t.Fatalf("grant: %+v, %v", l, err)
	}
	if _, err := table.Grant(7, 5, 500); !errors.Is(err, kv.ErrLeaseExists) {
		t.Fatalf("second grant: %v", err)
	}
	l, err = table.Renew(7, 900)
	if err != nil || l != (Lease{ID: 7, TTL: 1000, Deadline: 1900, Generation: 1}) {
		t.Fatalf("renew: %+v, %v", l, err)
	}
	if ids := due(table, 1899, 10); ids != nil {
		t.Fatalf("due before the renewed deadline: %v", ids)
	}
	if ids := due(table, 1900, 10); !slices.Equal(ids, []kv.LeaseID{7}) {
		t.Fatalf("due at the deadline: %v", ids)
	}
	if l.Left(1000) != l.Duration()-100e6 || l.Left(5000) != 0 {
		t.Fatalf("left: %v, %v", l.Left(1000), l.Left(5000))
	}
	table.Attach(7, []byte("a"))
	if !table.Revoke(7) || table.Revoke(7) || table.Attached() != 0 || table.Next() != math.MaxInt64 {
		t.Fatal("revoke left something behind")
	}
}

// Renewals do not move deadlines at once; asking moves them, in bounded steps.
func TestDueSkipsRenewedLeases(t *testing.T) {
	table := New()
	for id := kv.LeaseID(1); id <= 1000; id++ {
		if _, err := table.Grant(id, 100, 0); err != nil {
			t.Fatal(err)
		}
	}
	for id := kv.LeaseID(1); id <= 1000; id++ {
		if id != 500 {
			if _, err := table.Renew(id, 50); err != nil {
				t.Fatal(err)
			}
		}
	}
	leases, more := table.Due(nil, 100, 10)
	if len(leases) != 0 || !more {
		t.Fatalf("the first step looked at all: %d, %v", len(leases), more)
	}
	if ids := due(table, 100, 10); !slices.Equal(ids, []kv.LeaseID{500}) {
		t.Fatalf("due: %v", ids)
	}
	table.Revoke(500)
	for {
		if _, more := table.Due(nil, 100, 10); !more {
			break
		}
	}
	if table.Next() != 150 {
		t.Fatalf("next: %d", table.Next())
	}
	table.deadlines.check(t)
}

// pair is a table beside maps that say what it should hold.
type pair struct {
	t        *testing.T
	rng      *rand.Rand
	table    *Table
	leases   map[kv.LeaseID]Lease
	attached map[kv.LeaseID]map[string]bool
	ttls     map[string]kv.Time
	now      kv.Time
}

// A random run agrees with maps, through copies and snapshots.
func TestTableModel(t *testing.T) {
	p := &pair{
		t: t, rng: rand.New(rand.NewPCG(3, 4)), table: New(),
		leases: map[kv.LeaseID]Lease{}, attached: map[kv.LeaseID]map[string]bool{}, ttls: map[string]kv.Time{},
	}
	for i := range 20_000 {
		p.now += kv.Time(p.rng.IntN(3))
		p.step()
		if i%1000 == 0 {
			p.table = reread(t, p.table)
		}
	}
	if p.table.Len() != len(p.leases) || p.table.TTLs() != len(p.ttls) {
		t.Fatalf("%d leases, want %d; %d TTLs, want %d", p.table.Len(), len(p.leases), p.table.TTLs(), len(p.ttls))
	}
	for l := range p.table.All() {
		if p.leases[l.ID] != l {
			t.Fatalf("%+v, want %+v", l, p.leases[l.ID])
		}
		var keys []string
		for key := range p.table.Keys(l.ID) {
			keys = append(keys, string(key))
		}
		if !slices.IsSorted(keys) || len(keys) != len(p.attached[l.ID]) {
			t.Fatalf("keys of %v: %v", l.ID, keys)
		}
	}
}

func (p *pair) step() {
	id, key := kv.LeaseID(1+p.rng.IntN(50)), fmt.Sprintf("k%d", p.rng.IntN(200))
	switch l, ok := p.leases[id]; p.rng.IntN(8) {
	case 0, 1:
		granted, err := p.table.Grant(id, int64(1+p.rng.IntN(200)), p.now)
		if (err != nil) != ok {
			p.t.Fatalf("grant at %d: %v", p.now, err)
		} else if err == nil {
			p.leases[id], p.attached[id] = granted, map[string]bool{}
		}
	case 2, 3:
		renewed, err := p.table.Renew(id, p.now)
		if (err == nil) != ok {
			p.t.Fatalf("renew at %d: %v", p.now, err)
		} else if ok {
			l.Deadline, l.Generation = p.now+kv.Time(l.TTL), l.Generation+1
			p.leases[id] = l
			if renewed != l {
				p.t.Fatalf("renewed %+v at %d, want %+v", renewed, p.now, l)
			}
		}
	case 4, 5:
		if ok {
			p.table.Attach(id, []byte(key))
			p.attached[id][key] = true
		}
	case 6:
		expires := kv.Time(p.rng.IntN(2)) * (p.now + kv.Time(1+p.rng.IntN(300)))
		p.table.SetTTL([]byte(key), p.ttls[key], expires)
		if p.ttls[key] = expires; expires == 0 {
			delete(p.ttls, key)
		}
	case 7:
		p.expireLeases()
		p.expireKeys()
	}
}

func (p *pair) expireLeases() {
	var want []kv.LeaseID
	for id, l := range p.leases {
		if l.Deadline <= p.now {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	got := due(p.table, p.now, 1000)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		p.t.Fatalf("due at %d: %v, want %v", p.now, got, want)
	}
	for _, id := range want {
		p.table.Revoke(id)
		delete(p.leases, id)
		delete(p.attached, id)
	}
}

func (p *pair) expireKeys() {
	var keys []string
	last := kv.Time(0)
	for at, key := range p.table.DueKeys(p.now) {
		if at < last || p.ttls[string(key)] != at {
			p.t.Fatalf("key %s is due at %d after %d, want %d", key, at, last, p.ttls[string(key)])
		}
		keys, last = append(keys, string(key)), at
	}
	for _, key := range keys {
		p.table.SetTTL([]byte(key), p.ttls[key], 0)
		delete(p.ttls, key)
	}
	for key, at := range p.ttls {
		if at <= p.now {
			p.t.Fatalf("key %s is due since %d and was not found", key, at)
		}
	}
}

func encode(t testing.TB, table *Table) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := bufio.NewWriter(&buf)
	if err := errors.Join(table.Write(w), w.Flush()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// reread passes a table through its encoding, with bytes behind it that belong
// to somebody else.
func reread(t testing.TB, table *Table) *Table {
	t.Helper()
	data := encode(t, table)
	r := bufio.NewReader(bytes.NewReader(append(slices.Clone(data), "rest"...)))
	again, err := Read(r)
	if err != nil {
		t.Fatal(err)
	}
	if rest, _ := r.Peek(5); string(rest) != "rest" {
		t.Fatalf("left over: %q", rest)
	}
	if !bytes.Equal(data, encode(t, again)) {
		t.Fatal("the table changed in its encoding")
	}
	return again
}

func sampleTable(t testing.TB) *Table {
	table := New()
	for id := kv.LeaseID(1); id < 4; id++ {
		if _, err := table.Grant(id, 1000, 10); err != nil {
			t.Fatal(err)
		}
		table.Attach(id, fmt.Appendf(nil, "key%d", id))
	}
	table.SetTTL([]byte("ttl"), 0, 99)
	return table
}

func TestCopyStaysAsItWas(t *testing.T) {
	table := sampleTable(t)
	frozen := table.Copy()
	before := encode(t, frozen)
	for id := kv.LeaseID(1); id < 4; id++ {
		table.Revoke(id)
	}
	table.SetTTL([]byte("ttl"), 99, 0)
	if !bytes.Equal(before, encode(t, frozen)) || frozen.Len() != 3 || table.Len() != 0 {
		t.Fatal("the copy changed")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(encode(f, New()))
	f.Add(encode(f, sampleTable(f)))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := Read(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			if !errors.Is(err, errFormat) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		for _, s := range [...]*set{table.deadlines, table.attached, table.ttls} {
			s.check(t)
		}
		reread(t, table)
	})
}

func BenchmarkRenewOneOfAMillion(b *testing.B) {
	table := New()
	const n = 1_000_000
	for id := kv.LeaseID(1); id <= n; id++ {
		_, _ = table.Grant(id, 10_000, 0)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	now := kv.Time(0)
	b.ReportAllocs()
	for b.Loop() {
		now++
		_, _ = table.Renew(kv.LeaseID(1+rng.IntN(n)), now/1000)
	}
}

func BenchmarkCopyAMillion(b *testing.B) {
	table := New()
	for id := kv.LeaseID(1); id <= 1_000_000; id++ {
		_, _ = table.Grant(id, 10_000, 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		table.Copy()
	}
}

func BenchmarkSetTTL(b *testing.B) {
	table := New()
	key := make([]byte, 32)
	rng := rand.New(rand.NewPCG(1, 1))
	expires := make([]kv.Time, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		i := rng.IntN(len(expires))
		binary.BigEndian.PutUint32(key, uint32(i))
		next := expires[i] + kv.Time(1+rng.IntN(1000))
		table.SetTTL(key, expires[i], next)
		expires[i] = next
	}
}
