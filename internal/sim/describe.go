package sim

import (
	"fmt"
	"strings"

	"github.com/concord-kv/concord/kv"
)

// What follows writes things for people: traces and violations.

func describe(c *command) string {
	switch {
	case c.piece != nil:
		return fmt.Sprintf("piece at %d of %d of %s", c.piece.Offset, c.piece.Total, c.piece.Upload[:])
	case c.txn != nil && c.who != nil:
		return fmt.Sprintf("as %q at %d: %s", c.who.User, c.who.AuthRevision, describeTxn(c.txn))
	case c.txn != nil:
		return describeTxn(c.txn)
	case c.grant != nil:
		return fmt.Sprintf("grant %d %v", c.grant.ID, c.grant.TTL)
	case c.alive != 0:
		return fmt.Sprintf("keep-alive %d", c.alive)
	case c.revoke != 0:
		return fmt.Sprintf("revoke %d", c.revoke)
	case c.compact != 0:
		return fmt.Sprintf("compact %d", c.compact)
	case c.auth != nil:
		return fmt.Sprintf("auth %+v", *c.auth)
	case c.access != nil:
		return c.access.String()
	}
	return fmt.Sprintf("expire in term %d: %d leases %v, %d keys", c.expire.term, len(c.expire.leases), c.expire.leases, len(c.expire.keys))
}

func describeTxn(t *kv.Txn) string {
	var b strings.Builder
	if !t.ID.IsZero() {
		fmt.Fprintf(&b, "#%d ", t.ID.Seq)
	}
	for _, c := range t.Compare {
		fmt.Fprintf(&b, "if %s (%d) is %d %q: ", c.Key, c.Target, c.Number, c.Value)
	}
	for i := range t.Success {
		op := &t.Success[i]
		switch op.Kind {
		case kv.OpPut:
			fmt.Fprintf(&b, "put %s=%s lease %d ttl %v; ", op.Key, short(op.Value), op.Lease, op.TTL)
		case kv.OpDelete:
			fmt.Fprintf(&b, "delete %s; ", op.Key)
		case kv.OpRange:
			fmt.Fprintf(&b, "range %s; ", op.Range.Key)
		}
	}
	return b.String()
}

func describeAnswer(res any, err error, unknown bool) string {
	switch {
	case unknown:
		return fmt.Sprintf("unknown: %v", err)
	case err != nil:
		return describeResult(err)
	}
	return describeResult(res)
}

func describeResult(r any) string {
	switch r := r.(type) {
	case *kv.TxnResult:
		return fmt.Sprintf("rev %d time %d ok %v ops %s", r.Revision, r.Time, r.Succeeded, describeOps(r.Ops))
	case *kv.RangeResult:
		return fmt.Sprintf("rev %d time %d count %d %s", r.Revision, r.Time, r.Count, describeKVs(r.KVs))
	case *kv.LeaseResult:
		return fmt.Sprintf("%+v", *r)
	case *kv.Header:
		return fmt.Sprintf("%+v", *r)
	case error:
		return "error: " + r.Error()
	}
	return fmt.Sprint(r)
}

func describeResults(rs []any) string {
	var parts []string
	for _, r := range rs {
		parts = append(parts, describeResult(r))
	}
	return "[" + strings.Join(parts, " | ") + "]"
}

func describeOps(ops []kv.OpResult) string {
	var parts []string
	for i := range ops {
		s := ops[i].Kind.String()
		if ops[i].Deleted > 0 {
			s += fmt.Sprintf(" %d", ops[i].Deleted)
		}
		if len(ops[i].Prev) > 0 {
			s += " was " + describeKVs(ops[i].Prev)
		}
		if ops[i].Range != nil {
			s += " " + describeKVs(ops[i].Range.KVs)
		}
		parts = append(parts, s)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func describeKVs(kvs []kv.KeyValue) string {
	var parts []string
	for _, k := range kvs {
		s := fmt.Sprintf("%s=%s@%d/%d v%d", k.Key, short(k.Value), k.ModRevision, k.CreateRevision, k.Version)
		if k.Lease != 0 || k.Expires != 0 {
			s += fmt.Sprintf(" lease %d expires %d", k.Lease, k.Expires)
		}
		parts = append(parts, s)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func short(value []byte) string {
	s := strings.TrimRight(string(value), "\x00")
	return s[:min(len(s), 20)]
}
