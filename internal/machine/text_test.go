package machine

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/concord-kv/concord/kv"
)

// The tests in testdata are written in a small language. A block
//
//	apply [term=T] [now=MS]
//	COMMAND
//	COMMAND
//	----
//
// is one entry with these commands; a result is printed for each. Commands are
//
//	put K V [lease=N] [ttl=D] [prev] [ignore-value] [ignore-lease]
//	del K [END] [prev]
//	range K [END] [rev=N] [limit=N] [count-only] [keys-only]
//	txn [id=CLIENT/SEQ] [if COMPARE…] [then { OP ; OP }] [else { OP }]
//	grant N D | keepalive N… | revoke N | compact REV
//	expire term=T [lease=N/GENERATION]… [key=K/REV]…
//
// where COMPARE is TARGET(K[,END])RELATION VALUE without blanks. Other blocks
// are state, ttl, due, and restore, which puts a machine in place that has
// read a snapshot of the old one.
func TestText(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{m: New(Options{})}
		defer func() { s.m.Close() }()
		s.m.Bootstrap(1, []kv.Member{{ID: 1}})
		s.index, s.term, s.now = 1, 1, 1
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return s.run(t, d)
		})
	})
}

type script struct {
	m           *Machine
	index, term uint64
	now         int64
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	v := s.m.View()
	defer v.Close()
	switch d.Cmd {
	case "apply":
		return s.apply(t, d)
	case "restore":
		s.m = restored(t, s.m)
		return ""
	case "maintain":
		for s.m.Maintain() {
		}
		return ""
	case "state":
		res, err := v.Range(&kv.Range{Key: []byte{0}, End: []byte{0}})
		if err != nil {
			return err.Error()
		}
		out := fmt.Sprintf("rev=%d compacted=%d time=%d\n", res.Revision, v.CompactRevision(), res.Time)
		for _, k := range res.KVs {
			out += showKey(k) + "\n"
		}
		return out
	case "ttl":
		leases, err := v.Leases()
		if err != nil {
			return err.Error()
		}
		out := ""
		for _, id := range leases.IDs {
			l, err := v.TimeToLive(id, true)
			if err != nil {
				return err.Error()
			}
			out += fmt.Sprintf("lease=%d ttl=%v left=%v keys=%s\n", l.ID, l.TTL, l.Left, l.Keys)
		}
		return out
	case "due":
		var now int64
		d.ScanArgs(t, "now", &now)
		leases, keys, more := s.m.Due(kv.Time(now), 100)
		out := fmt.Sprintf("more=%v", more)
		for _, l := range leases {
			out += fmt.Sprintf(" lease=%d/%d", l.ID, l.Generation)
		}
		for _, k := range keys {
			out += fmt.Sprintf(" key=%s/%d", k.Key, k.Mod)
		}
		return out
	}
	d.Fatalf(t, "unknown block")
	return ""
}

func (s *script) apply(t *testing.T, d *datadriven.TestData) string {
	d.MaybeScanArgs(t, "term", &s.term)
	d.MaybeScanArgs(t, "now", &s.now)
	s.index++
	var commands [][]byte
	for line := range strings.Lines(d.Input) {
		commands = append(commands, parseCommand(t, strings.Fields(line)))
	}
	results := make([]any, len(commands))
	s.m.Apply(Position{s.index, s.term, s.now}, commands, results)
	out := ""
	for _, r := range results {
		out += showResult(r) + "\n"
	}
	return out
}

// restored passes the state of m through a snapshot and closes m.
func restored(t testing.TB, m *Machine) *Machine {
	t.Helper()
	var buf bytes.Buffer
	write, release := m.Snapshot()
	err := write(&buf)
	release()
	if err != nil {
		t.Fatal(err)
	}
	again := New(Options{LoadParallel: 2})
	if err := again.Restore(&buf); err != nil {
		t.Fatal(err)
	}
	index, hash := m.Hash()
	if i, h := again.Hash(); i != index || h != hash {
		t.Fatalf("restored to index %d, hash %x; want %d, %x", i, h, index, hash)
	}
	m.Close()
	return again
}

func parseCommand(t testing.TB, f []string) []byte {
	switch name, args := f[0], f[1:]; name {
	case "grant":
		ttl, err := time.ParseDuration(args[1])
		if err != nil {
			t.Fatal(err)
		}
		return EncodeGrant(nil, kv.LeaseID(number(t, args[0])), ttl)
	case "keepalive":
		var ids []kv.LeaseID
		for _, a := range args {
			ids = append(ids, kv.LeaseID(number(t, a)))
		}
		return EncodeKeepAlive(nil, ids...)
	case "revoke":
		return EncodeRevoke(nil, kv.LeaseID(number(t, args[0])))
	case "compact":
		return EncodeCompact(nil, kv.Revision(number(t, args[0])))
	case "expire":
		return parseExpire(t, args)
	case "txn":
		p := parser{t: t, in: args}
		return EncodeTxn(nil, p.txn())
	default:
		p := parser{t: t, in: f}
		return EncodeTxn(nil, &kv.Txn{Success: []kv.Op{p.op()}})
	}
}

func number(t testing.TB, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func parseExpire(t testing.TB, args []string) []byte {
	var term kv.Term
	var leases []ExpiredLease
	var keys []ExpiredKey
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		what, guard, _ := strings.Cut(value, "/")
		switch name {
		case "term":
			term = kv.Term(number(t, value))
		case "lease":
			leases = append(leases, ExpiredLease{kv.LeaseID(number(t, what)), uint64(number(t, guard))})
		case "key":
			keys = append(keys, ExpiredKey{[]byte(what), kv.Revision(number(t, guard))})
		}
	}
	return EncodeExpire(nil, term, leases, keys)
}

type parser struct {
	t  testing.TB
	in []string
}

func (p *parser) peek() string {
	if len(p.in) == 0 {
		return ""
	}
	return p.in[0]
}

func (p *parser) next() string {
	s := p.peek()
	if s != "" {
		p.in = p.in[1:]
	}
	return s
}

func (p *parser) txn() *kv.Txn {
	t := &kv.Txn{}
	if id, ok := strings.CutPrefix(p.peek(), "id="); ok {
		p.next()
		client, seq, _ := strings.Cut(id, "/")
		copy(t.ID.Client[:], client)
		t.ID.Seq = uint64(number(p.t, seq))
	}
	if p.peek() == "if" {
		p.next()
		for p.peek() != "" && p.peek() != "then" && p.peek() != "else" {
			t.Compare = append(t.Compare, p.compare(p.next()))
		}
	}
	for _, branch := range []struct {
		name string
		ops  *[]kv.Op
	}{{"then", &t.Success}, {"else", &t.Failure}} {
		if p.peek() == branch.name {
			p.next()
			p.next() // {
			for p.peek() != "}" {
				*branch.ops = append(*branch.ops, p.op())
				if p.peek() == ";" {
					p.next()
				}
			}
			p.next()
		}
	}
	return t
}

func (p *parser) compare(s string) kv.Compare {
	open, shut := strings.Index(s, "("), strings.Index(s, ")")
	if open < 0 || shut < open {
		p.t.Fatalf("bad compare %q", s)
	}
	targets := []string{"version", "create", "mod", "value", "lease"}
	c := kv.Compare{Target: kv.CompareTarget(slices.Index(targets, s[:open]))}
	key, end, _ := strings.Cut(s[open+1:shut], ",")
	c.Key, c.End = []byte(key), []byte(end)
	rest := s[shut+1:]
	for i, r := range []string{"=", ">", "<", "!="} {
		if value, ok := strings.CutPrefix(rest, r); ok {
			c.Relation = kv.Relation(i)
			if c.Target == kv.CompareValue {
				c.Value = []byte(value)
			} else {
				c.Number = number(p.t, value)
			}
		}
	}
	return c
}

func (p *parser) op() kv.Op {
	op := kv.Op{}
	var args []string
	name := p.next()
	if name == "txn" {
		return kv.Op{Kind: kv.OpTxn, Txn: p.txn()}
	}
	r := kv.Range{}
	for p.peek() != "" && p.peek() != ";" && p.peek() != "}" {
		a := p.next()
		option, value, _ := strings.Cut(a, "=")
		switch option {
		case "lease":
			op.Lease = kv.LeaseID(number(p.t, value))
		case "ttl":
			op.TTL, _ = time.ParseDuration(value)
		case "prev":
			op.PrevKV = true
		case "ignore-value":
			op.IgnoreValue = true
		case "ignore-lease":
			op.IgnoreLease = true
		case "rev":
			r.Revision = kv.Revision(number(p.t, value))
		case "limit":
			r.Limit = number(p.t, value)
		case "count-only":
			r.CountOnly = true
		case "keys-only":
			r.KeysOnly = true
		default:
			args = append(args, a)
		}
	}
	op.Key = []byte(args[0])
	if len(args) > 1 && name != "put" {
		op.End = []byte(args[1])
	}
	switch name {
	case "put":
		op.Kind = kv.OpPut
		if len(args) > 1 {
			op.Value = []byte(args[1])
		}
	case "del":
		op.Kind = kv.OpDelete
	case "range":
		r.Key, r.End = op.Key, op.End
		op = kv.Op{Kind: kv.OpRange, Range: &r}
	default:
		p.t.Fatalf("unknown operation %q", name)
	}
	return op
}

func showKey(k kv.KeyValue) string {
	s := fmt.Sprintf("%s=%s create=%d mod=%d version=%d", k.Key, k.Value, k.CreateRevision, k.ModRevision, k.Version)
	if k.Lease != 0 {
		s += fmt.Sprintf(" lease=%d", int64(k.Lease))
	}
	if k.Expires != 0 {
		s += fmt.Sprintf(" expires=%d", k.Expires)
	}
	return s
}

func showKeys(keys []kv.KeyValue) string {
	var s []string
	for _, k := range keys {
		s = append(s, showKey(k))
	}
	return "[" + strings.Join(s, ", ") + "]"
}

func showResult(result any) string {
	switch r := result.(type) {
	case error:
		return "error: " + r.Error()
	case *kv.TxnResult:
		return fmt.Sprintf("rev=%d%s", r.Revision, showTxn(r))
	case *kv.LeaseResult:
		return fmt.Sprintf("rev=%d lease=%d ttl=%v left=%v", r.Revision, int64(r.ID), r.TTL, r.Left)
	case []kv.LeaseResult:
		s := ""
		for i := range r {
			s += fmt.Sprintf("lease=%d ttl=%v; ", int64(r[i].ID), r[i].TTL)
		}
		return strings.TrimSuffix(s, "; ")
	case *kv.Header:
		return fmt.Sprintf("rev=%d", r.Revision)
	}
	return fmt.Sprintf("unknown result %T", result)
}

func showTxn(r *kv.TxnResult) string {
	s := ""
	if !r.Succeeded {
		s = " failed"
	}
	for _, op := range r.Ops {
		s += " " + op.Kind.String()
		switch op.Kind {
		case kv.OpPut:
			if len(op.Prev) > 0 {
				s += showKeys(op.Prev)
			}
		case kv.OpDelete:
			s += fmt.Sprintf(" %d", op.Deleted)
			if len(op.Prev) > 0 {
				s += showKeys(op.Prev)
			}
		case kv.OpRange:
			s += fmt.Sprintf("@%d %d%s", op.Range.Revision, op.Range.Count, showKeys(op.Range.KVs))
		case kv.OpTxn:
			s += fmt.Sprintf("@%d{%s }", op.Txn.Revision, showTxn(op.Txn))
		}
	}
	return s
}
