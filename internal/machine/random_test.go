package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// chance draws requests over few keys and leases, so that they meet.
type chance struct {
	*rand.Rand
	revision kv.Revision // about the current one
}

func newChance(seed uint64) *chance {
	return &chance{Rand: rand.New(rand.NewPCG(seed, 7))}
}

func (c *chance) key() []byte { return fmt.Appendf(nil, "k%02d", c.IntN(30)) }

func (c *chance) end() []byte {
	switch c.IntN(4) {
	case 0:
		return []byte{0}
	case 1:
		return c.key()
	default:
		return nil
	}
}

func (c *chance) lease() kv.LeaseID { return kv.LeaseID(c.IntN(6)) }

func (c *chance) readAt() kv.Revision {
	if c.IntN(4) > 0 {
		return 0
	}
	return max(0, c.revision+kv.Revision(c.IntN(20))-17)
}

func (c *chance) value() []byte {
	return bytes.Repeat([]byte{byte('a' + c.IntN(26))}, c.IntN(1+c.IntN(300)))
}

func (c *chance) op(depth int) kv.Op {
	switch n := c.IntN(10); {
	case n < 5:
		op := kv.Op{Kind: kv.OpPut, Key: c.key(), PrevKV: c.IntN(3) == 0, TTL: time.Duration(c.IntN(2)*c.IntN(2000)) * time.Millisecond}
		if op.IgnoreValue = c.IntN(10) == 0; !op.IgnoreValue {
			op.Value = c.value()
		}
		if op.IgnoreLease = c.IntN(10) == 0; !op.IgnoreLease && c.IntN(3) == 0 {
			op.Lease = c.lease()
		}
		return op
	case n < 7:
		return kv.Op{Kind: kv.OpDelete, Key: c.key(), End: c.end(), PrevKV: c.IntN(2) == 0}
	case n < 9 || depth == 3:
		return kv.Op{Kind: kv.OpRange, Range: &kv.Range{
			Key: c.key(), End: c.end(), Revision: c.readAt(), Limit: int64(c.IntN(2) * c.IntN(5)),
			Sort:     kv.Sort{By: kv.SortTarget(c.IntN(5)), Order: kv.SortOrder(c.IntN(3))},
			KeysOnly: c.IntN(4) == 0, CountOnly: c.IntN(6) == 0,
			MinMod: kv.Revision(c.IntN(2) * c.IntN(9)), MaxCreate: kv.Revision(c.IntN(2) * 1000),
		}}
	default:
		t := c.txn(depth + 1)
		return kv.Op{Kind: kv.OpTxn, Txn: &t}
	}
}

func (c *chance) txn(depth int) kv.Txn {
	t := kv.Txn{}
	for range c.IntN(3) {
		cmp := kv.Compare{Key: c.key(), End: c.end(), Target: kv.CompareTarget(c.IntN(5)), Relation: kv.Relation(c.IntN(4))}
		if cmp.Target == kv.CompareValue {
			cmp.Value = c.value()
		} else {
			cmp.Number = int64(c.IntN(4))
		}
		t.Compare = append(t.Compare, cmp)
	}
	for range c.IntN(4) {
		t.Success = append(t.Success, c.op(depth))
	}
	for range c.IntN(3) {
		t.Failure = append(t.Failure, c.op(depth))
	}
	return t
}

// valid draws a transaction that passes the limits.
func (c *chance) valid() kv.Txn {
	for {
		t := c.txn(1)
		if c.IntN(2) == 0 {
			t = kv.Txn{Success: []kv.Op{c.op(3)}}
		}
		if _, err := (kv.Limits{}).WithDefaults().CheckTxn(&t); err == nil {
			return t
		}
	}
}

// sameResult compares results; nil and empty slices are the same.
func sameResult(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return "" // the usual case, and quick
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

// pair is a machine beside the naive model.
type pair struct {
	t     *testing.T
	c     *chance
	m     *Machine
	model *kvtest.Model
	index uint64
	now   int64
}

func (p *pair) apply(command []byte) any {
	p.index++
	results := make([]any, 1)
	p.m.Apply(Position{p.index, 1, p.now}, [][]byte{command}, results)
	return results[0]
}

// step makes one random request of both and compares the answers.
func (p *pair) step() {
	ctx, c := context.Background(), p.c
	var want, got any
	var err error
	switch n := c.IntN(20); {
	case n < 14:
		t := c.valid()
		if c.IntN(4) == 0 {
			t.ID = kv.RequestID{Client: [16]byte{byte(c.IntN(3))}, Seq: 1 + uint64(c.IntN(60))}
		}
		var r kv.TxnResult
		r, err = p.model.Txn(ctx, t)
		want, got = &r, p.apply(EncodeTxn(nil, &t))
	case n < 15:
		g := kv.Grant{ID: 1 + c.lease(), TTL: time.Duration(1+c.IntN(3000)) * time.Millisecond}
		var r kv.LeaseResult
		r, err = p.model.Grant(ctx, g)
		want, got = &r, p.apply(EncodeGrant(nil, g.ID, g.TTL))
	case n < 16:
		id := c.lease()
		var r kv.LeaseResult
		r, err = p.model.KeepAlive(ctx, id)
		want, got = &r, p.apply(EncodeKeepAlive(nil, id))
	case n < 17:
		id := c.lease()
		var r kv.Header
		r, err = p.model.Revoke(ctx, id)
		want, got = &r, p.apply(EncodeRevoke(nil, id))
	case n < 18:
		if c.IntN(5) > 0 {
			return
		}
		rev := c.revision - kv.Revision(c.IntN(40))
		if rev <= 0 {
			return
		}
		var r kv.Header
		r, err = p.model.Compact(ctx, rev)
		want, got = &r, p.apply(EncodeCompact(nil, rev))
	default:
		d := c.IntN(300)
		p.model.Advance(time.Duration(d) * time.Millisecond)
		p.now += int64(d)
		p.expire()
		return
	}
	if err != nil {
		if gotErr, ok := got.(error); !ok || !errors.Is(gotErr, errors.Unwrap(err)) && gotErr.Error() != err.Error() {
			p.t.Fatalf("entry %d: %v, want error %v", p.index, got, err)
		}
		return
	}
	if diff := sameResult(want, got); diff != "" {
		p.t.Fatalf("entry %d: model and machine differ:\n%s", p.index, diff)
	}
	c.revision = p.m.header().Revision
}

// expire does what a lessor does.
func (p *pair) expire() {
	for {
		command, more := p.m.Expiry(1, kv.Time(p.now), 1000)
		if command == nil {
			p.index++
			p.m.Apply(Position{p.index, 1, p.now}, nil, nil)
			if !more {
				return
			}
			continue
		}
		p.apply(command)
	}
}

// compare compares all that can be read.
func (p *pair) compare() {
	t := p.t
	v := p.m.View()
	defer v.Close()
	for rev := v.CompactRevision(); rev <= v.Header().Revision; rev += 1 + (v.Header().Revision-rev)/4 {
		all := kv.Range{Key: []byte{0}, End: []byte{0}, Revision: rev}
		want, err := p.model.Range(context.Background(), all)
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Range(&all)
		if err != nil {
			t.Fatal(err)
		}
		if diff := sameResult(want, got); diff != "" {
			t.Fatalf("at revision %d:\n%s", rev, diff)
		}
	}
	leases, err := p.model.Leases(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	held, err := v.Leases()
	if diff := sameResult(leases, held); diff != "" || err != nil {
		t.Fatalf("%v\n%s", err, diff)
	}
	for _, id := range leases.IDs {
		want, _ := p.model.TimeToLive(context.Background(), id, true)
		got, err := v.TimeToLive(id, true)
		if diff := sameResult(want, got); diff != "" || err != nil {
			t.Fatalf("%v\n%s", err, diff)
		}
	}
	if t.Failed() {
		return
	}
	p.checkLinks(v)
}

// checkLinks asserts that the lease table and the keys say the same.
func (p *pair) checkLinks(v View) {
	res, err := v.Range(&kv.Range{Key: []byte{0}, End: []byte{0}})
	if err != nil {
		p.t.Fatal(err)
	}
	attached, ttls := 0, 0
	for _, k := range res.KVs {
		if k.Lease != 0 {
			attached++
		}
		if k.Expires != 0 {
			ttls++
		}
	}
	table := p.m.shared.leases
	if table.Attached() != attached || table.TTLs() != ttls {
		p.t.Fatalf("the table has %d keys and %d TTLs, the store %d and %d", table.Attached(), table.TTLs(), attached, ttls)
	}
}

// TestModel makes random requests of the machine and of the naive model, over
// snapshots and physical compaction, which must not show.
func TestModel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			p := &pair{t: t, c: newChance(seed), m: New(Options{}), model: kvtest.NewModel(kv.Limits{}), index: 1}
			p.m.Bootstrap(1, []kv.Member{{ID: 1}})
			defer func() { p.m.Close() }()
			for i := range 600 {
				p.step()
				switch {
				case p.c.IntN(100) == 0:
					p.m = restored(t, p.m)
				case p.c.IntN(10) == 0:
					p.m.Maintain()
				}
				if i%50 == 0 {
					p.compare()
				}
			}
			p.compare()
		})
	}
}

// entry is one of a log for several machines.
type entry struct {
	term     uint64
	now      int64
	commands [][]byte
	members  []byte
}

// log draws the entries of a cluster's life.
func (c *chance) log(n int) []entry {
	var log []entry
	term, now := uint64(1), int64(1)
	for i := range n {
		now += int64(c.IntN(c.IntN(2000) + 1))
		if c.IntN(50) == 0 {
			term++
		}
		e := entry{term: term, now: now}
		if c.IntN(30) == 0 {
			e.members = EncodeMembers(nil, MemberChange{Op: MemberOp(1 + c.IntN(4)), Member: kv.Member{ID: kv.MemberID(1 + c.IntN(8)), Name: fmt.Sprint(i), Learner: true, Level: uint32(c.IntN(3)), Version: "1.2.3"}})
		}
		for range c.IntN(6) {
			e.commands = append(e.commands, c.asSomebody(c.command(term)))
		}
		log = append(log, e)
		c.revision = kv.Revision(i)
	}
	return log
}

// asSomebody marks some commands as a caller's, and some as part of a trace.
func (c *chance) asSomebody(command []byte) []byte {
	if c.IntN(8) == 0 {
		return AppendTrace(c.ofCaller(command), []byte("a trace that nobody minds")[:1+c.IntN(25)])
	}
	return c.ofCaller(command)
}

// ofCaller marks some commands as a caller's.
func (c *chance) ofCaller(command []byte) []byte {
	if c.IntN(3) > 0 {
		return command
	}
	if c.IntN(3) == 0 {
		id := c.accessID()
		return AppendCaller(command, 0, &kv.Caller{User: kv.TokenUser(id, ""), Token: id.Mark()})
	}
	return AppendCaller(command, 0, &kv.Caller{User: c.user(), AuthRevision: c.authRevision()})
}

func (c *chance) accessID() kv.TokenID { return kv.TokenID{8, byte(c.IntN(4))} }

func (c *chance) accessCommand() []byte {
	switch id := c.accessID(); c.IntN(10) {
	case 0:
		return EncodeBootstrap(nil, id)
	case 1:
		return EncodeEnsureRoot(nil, id)
	case 2, 3:
		return EncodeRevokeAccess(nil, id)
	default:
		n := kv.NewAccessToken{ID: id, TTL: time.Duration(c.IntN(2)*c.IntN(20_000)) * time.Millisecond, Roles: [][]string{nil, {"root"}, {"r"}, {kv.ClusterRole}, {"r", kv.AuthAdminRole}}[c.IntN(5)]}
		for range c.IntN(3) {
			n.Permissions = append(n.Permissions, kv.Permission{Access: kv.Access(c.IntN(3)), Key: c.key(), End: c.end()})
		}
		return EncodeCreateAccess(nil, &n)
	}
}

func (c *chance) user() string { return []string{"", "root", "u", "v"}[c.IntN(4)] }

func (c *chance) authRevision() uint64 { return uint64(c.IntN(60)) }

func (c *chance) authCommand() []byte {
	switch c.IntN(8) {
	case 0:
		return EncodeToken(nil, &kv.Token{ID: kv.TokenID{byte(c.IntN(4))}, Caller: kv.Caller{User: c.user(), AuthRevision: c.authRevision()}, TTL: time.Duration(c.IntN(5000)) * time.Millisecond})
	case 1:
		return EncodeRenewToken(nil, kv.TokenID{byte(c.IntN(4))})
	case 2:
		return EncodeRevokeToken(nil, kv.TokenID{byte(c.IntN(4))})
	}
	return EncodeAuth(nil, &auth.Change{
		Op: auth.Op(1 + c.IntN(int(auth.LastOp))), Name: c.user(), Role: []string{"root", "r"}[c.IntN(2)],
		Permission: kv.Permission{Access: kv.Access(c.IntN(3)), Key: c.key(), End: c.end()},
	})
}

func (c *chance) command(term uint64) []byte {
	switch c.IntN(15) {
	case 0:
		return c.authCommand()
	case 1:
		return c.accessCommand()
	}
	upload := UploadID{byte(c.IntN(4))}
	switch n := c.IntN(20); {
	case n < 9:
		t := c.valid()
		if c.IntN(2) == 0 {
			t.ID = kv.RequestID{Client: [16]byte{byte(c.IntN(40))}, Seq: 1 + uint64(c.IntN(200))}
		}
		return EncodeTxn(nil, &t)
	case n < 11:
		offset := int64(c.IntN(4))
		return EncodePiece(nil, Piece{upload, offset * 100, 400}, bytes.Repeat([]byte{'p'}, 100))
	case n < 12:
		t := kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: c.key(), Value: make([]byte, 400), PrevKV: true}}}
		return EncodeUploadTxn(nil, &t, upload, 400)
	case n < 14:
		return EncodeGrant(nil, c.lease(), time.Duration(c.IntN(10_000))*time.Millisecond)
	case n < 16:
		return EncodeKeepAlive(nil, []kv.LeaseID{c.lease(), c.lease()}[:1+c.IntN(2)]...)
	case n < 17:
		return EncodeRevoke(nil, c.lease())
	case n < 18:
		return EncodeCompact(nil, max(0, c.revision-kv.Revision(c.IntN(50))))
	case n < 19:
		return EncodeExpire(nil, kv.Term(term-uint64(c.IntN(2))),
			[]ExpiredLease{{c.lease(), uint64(c.IntN(2))}, {c.lease(), 0}},
			[]ExpiredKey{{c.key(), c.revision}, {c.key(), kv.Revision(c.IntN(100))}})
	default:
		on, age := c.IntN(2) == 0, time.Duration(c.IntN(100))*time.Minute
		voters, level := 1+2*c.IntN(4), uint32(c.IntN(2))
		return EncodeSettings(nil, SettingsChange{LeaderReads: &on, Retention: &age, Autopilot: &on, Voters: &voters, DeadAfter: &age, Level: &level})
	}
}

// applyEntry applies e and returns the results.
func applyEntry(m *Machine, index int, e *entry) []any {
	return applyWith(m, index, e, make([]any, len(e.commands)))
}

// applyWith is applyEntry, where results nil says that nobody waits.
func applyWith(m *Machine, index int, e *entry, results []any) []any {
	at := Position{uint64(index), e.term, e.now}
	if e.members != nil {
		return []any{m.ApplyMembers(at, e.members)}
	}
	m.Apply(at, e.commands, results)
	return results
}

// TestDeterminism lets members apply one log, each with its own timing of
// physical compaction, snapshots and restarts. Results and hashes never differ,
// and in the end their snapshots are equal but for the history still kept.
func TestDeterminism(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := newChance(100 + seed)
			log := c.log(1000)
			members := make([]*Machine, 4) // on the last one nobody waits for results
			for i := range members {
				members[i] = New(Options{})
				members[i].Bootstrap(5, []kv.Member{{ID: 1}, {ID: 2}, {ID: 3}})
			}
			for i := range log {
				index := i + 2
				want := applyEntry(members[0], index, &log[i])
				for j, m := range members[1:] {
					if j == 2 {
						applyWith(m, index, &log[i], nil)
					} else if diff := sameResult(errorText(want), errorText(applyEntry(m, index, &log[i]))); diff != "" {
						t.Fatalf("results of entry %d differ:\n%s", index, diff)
					}
					_, h0 := members[0].Hash()
					if _, h := m.Hash(); h != h0 {
						t.Fatalf("hashes differ after entry %d", index)
					}
				}
				members[1].Maintain()
				if c.IntN(40) == 0 {
					members[1] = restored(t, members[1])
				}
				if c.IntN(60) == 0 {
					members[2] = restored(t, members[2])
				}
			}
			first := sections(t, members[0])
			for i, m := range members {
				if !bytes.Equal(first, sections(t, m)) {
					t.Errorf("the snapshot of member %d differs", i)
				}
				m.Close()
			}
		})
	}
}

// errorText makes errors comparable.
func errorText(results []any) []any {
	for i, r := range results {
		if err, ok := r.(error); ok {
			results[i] = err.Error()
		}
	}
	return results
}

// sections is the part of a snapshot before the keys.
func sections(t testing.TB, m *Machine) []byte {
	t.Helper()
	var all bytes.Buffer
	write, release := m.Snapshot()
	defer release()
	if err := write(&all); err != nil {
		t.Fatal(err)
	}
	var keys bytes.Buffer
	v := m.View()
	defer v.Close()
	if _, err := v.keys.WriteTo(&keys); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(all.Bytes(), keys.Bytes())
}

// A command that differs in anything that matters leads to another hash.
func TestHashSeesDifferences(t *testing.T) {
	hashes := map[uint64]string{}
	put := kv.Op{Kind: kv.OpPut, Key: []byte("a"), Value: []byte("1")}
	variants := map[string]func(op *kv.Op){
		"same":  func(*kv.Op) {},
		"key":   func(op *kv.Op) { op.Key = []byte("b") },
		"value": func(op *kv.Op) { op.Value = []byte("2") },
		"split": func(op *kv.Op) { op.Key, op.Value = []byte("a1"), nil },
		"long":  func(op *kv.Op) { op.Value = bytes.Repeat([]byte("1"), 300) },
		"long2": func(op *kv.Op) { op.Value = append(bytes.Repeat([]byte("1"), 299), '2') },
		"ttl":   func(op *kv.Op) { op.TTL = time.Second },
		"lease": func(op *kv.Op) { op.Lease = 7 },
		"delete": func(op *kv.Op) {
			*op = kv.Op{Kind: kv.OpDelete, Key: []byte("x")}
		},
		"nothing": func(op *kv.Op) {
			*op = kv.Op{Kind: kv.OpDelete, Key: []byte("y")}
		},
		"fails": func(op *kv.Op) { op.Lease = 9 },
	}
	for name, change := range variants {
		m := New(Options{})
		m.Bootstrap(1, nil)
		op := put
		change(&op)
		m.Apply(Position{2, 1, 5}, [][]byte{
			EncodeGrant(nil, 7, time.Hour),
			EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("x")}}}),
			EncodeTxn(nil, &kv.Txn{Success: []kv.Op{op}}),
		}, nil)
		_, h := m.Hash()
		m.Close()
		if other, ok := hashes[h]; ok {
			t.Errorf("%s and %s have one hash", name, other)
		}
		hashes[h] = name
	}
}
