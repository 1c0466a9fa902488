package machine

import (
	"encoding/binary"

	"github.com/concord-kv/concord/kv"
)

// Results are remembered in this form; numbers are unsigned varints.
//
//	remembered = form (1 byte) (revision when it is tooLarge, else result)
//	result     = revision time succeeded (1 byte) n (kind (1 byte) op)…
//	  put      = keys
//	  delete   = deleted keys
//	  range    = revision time more (1 byte) count keys
//	  txn      = result
//	keys       = n key…
//	key        = bits (1 byte) key [value] create mod version [zigzag lease] [expires]
const (
	formWhole    = 1
	formTooLarge = 2
)

const (
	keyHasValue = 1 << iota
	keyHasLease
	keyHasExpires
)

func encodeTooLarge(dst []byte, r *kv.TxnResult) []byte {
	return binary.AppendUvarint(append(dst, formTooLarge), uint64(r.Revision))
}

func encodeResult(dst []byte, r *kv.TxnResult) []byte {
	return appendResult(append(dst, formWhole), r)
}

func appendHeader(dst []byte, h kv.Header) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(h.Revision)), uint64(h.Time))
}

func appendResult(dst []byte, r *kv.TxnResult) []byte {
	dst = append(appendHeader(dst, r.Header), boolByte(r.Succeeded))
	dst = binary.AppendUvarint(dst, uint64(len(r.Ops)))
	for i := range r.Ops {
		op := &r.Ops[i]
		dst = append(dst, byte(op.Kind))
		switch op.Kind {
		case kv.OpPut:
			dst = appendKeys(dst, op.Prev)
		case kv.OpDelete:
			dst = appendKeys(binary.AppendUvarint(dst, uint64(op.Deleted)), op.Prev)
		case kv.OpRange:
			dst = append(appendHeader(dst, op.Range.Header), boolByte(op.Range.More))
			dst = appendKeys(binary.AppendUvarint(dst, uint64(op.Range.Count)), op.Range.KVs)
		case kv.OpTxn:
			dst = appendResult(dst, op.Txn)
		}
	}
	return dst
}

func appendKeys(dst []byte, keys []kv.KeyValue) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(keys)))
	for i := range keys {
		k := &keys[i]
		bits := byte(0)
		for j, on := range [...]bool{k.Value != nil, k.Lease != 0, k.Expires != 0} {
			if on {
				bits |= 1 << j // in the order of keyHasValue to keyHasExpires
			}
		}
		dst = appendBytes(append(dst, bits), k.Key)
		if k.Value != nil {
			dst = appendBytes(dst, k.Value)
		}
		for _, n := range [...]uint64{uint64(k.CreateRevision), uint64(k.ModRevision), uint64(k.Version)} {
			dst = binary.AppendUvarint(dst, n)
		}
		if k.Lease != 0 {
			dst = binary.AppendVarint(dst, int64(k.Lease))
		}
		if k.Expires != 0 {
			dst = binary.AppendUvarint(dst, uint64(k.Expires))
		}
	}
	return dst
}

// decodeResult returns what was remembered. Its errors are a result that was
// too large, and [kv.ErrCorrupt].
func decodeResult(data string) (*kv.TxnResult, error) {
	d := decoder{data: []byte(data)}
	r := &kv.TxnResult{}
	switch d.byte() {
	case formWhole:
		d.result(r, 1)
	case formTooLarge:
		rev := d.uint()
		if d.end() == nil {
			return nil, kv.Errorf(kv.FailedPrecondition, "this request ran before, at revision %d, but its result was too large to be remembered: %w", rev, kv.ErrRequestTooOld)
		}
	default:
		d.fail(errUnknown)
	}
	if err := d.end(); err != nil {
		return nil, kv.Errorf(kv.DataLoss, "remembered result: %v: %w", err, kv.ErrCorrupt)
	}
	return r, nil
}

func (d *decoder) header() kv.Header {
	return kv.Header{Revision: kv.Revision(d.uint()), Time: kv.Time(d.uint())}
}

func (d *decoder) result(r *kv.TxnResult, depth int) {
	if depth > MaxDepth {
		d.fail(errRange)
		return
	}
	r.Header, r.Succeeded = d.header(), d.byte() == 1
	n := d.count(2)
	if n > 0 {
		r.Ops = make([]kv.OpResult, 0, n)
	}
	for ; n > 0 && d.err == nil; n-- {
		op := kv.OpResult{Kind: kv.OpKind(d.byte())}
		switch op.Kind {
		case kv.OpPut:
			op.Prev = d.keyValues()
		case kv.OpDelete:
			op.Deleted = int64(d.uint())
			op.Prev = d.keyValues()
		case kv.OpRange:
			op.Range = &kv.RangeResult{Header: d.header(), More: d.byte() == 1, Count: int64(d.uint())}
			op.Range.KVs = d.keyValues()
		case kv.OpTxn:
			op.Txn = &kv.TxnResult{}
			d.result(op.Txn, depth+1)
		default:
			d.fail(errUnknown)
		}
		r.Ops = append(r.Ops, op)
	}
}

func (d *decoder) keyValues() []kv.KeyValue {
	n := d.count(5)
	if n == 0 {
		return nil
	}
	keys := make([]kv.KeyValue, 0, n)
	for ; n > 0 && d.err == nil; n-- {
		bits := d.byte()
		k := kv.KeyValue{Key: d.bytes()}
		if bits&keyHasValue != 0 {
			k.Value = d.bytes()
		}
		k.CreateRevision, k.ModRevision, k.Version = kv.Revision(d.uint()), kv.Revision(d.uint()), int64(d.uint())
		if bits&keyHasLease != 0 {
			k.Lease = kv.LeaseID(d.int())
		}
		if bits&keyHasExpires != 0 {
			k.Expires = kv.Time(d.uint())
		}
		keys = append(keys, k)
	}
	return keys
}
