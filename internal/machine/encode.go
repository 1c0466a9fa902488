package machine

import (
	"encoding/binary"
	"time"

	"github.com/concord-kv/concord/kv"
)

// The encoders append a command to dst and return the longer slice; what they
// are given is copied and may be changed afterwards. They check nothing: limits
// are checked before (see [kv.Limits]).

// EncodeTxn encodes t. Its result is a *kv.TxnResult or an error.
func EncodeTxn(dst []byte, t *kv.Txn) []byte {
	if len(t.Compare) == 0 && len(t.Success) == 1 && t.Success[0].Kind == kv.OpPut && t.ID.IsZero() && len(t.Failure) == 0 {
		op := &t.Success[0]
		return appendPut(append(dst, byte(kindPut), 0), op, nil)
	}
	dst = appendRequest(append(dst, byte(kindTxn), 0), len(dst)+1, t.ID)
	return appendBranches(dst, t, nil)
}

// Piece says where a piece of a large value belongs: at Offset, in bytes, of an
// upload that has Total bytes in the end.
type Piece struct {
	Upload        UploadID
	Offset, Total int64
}

// EncodePiece encodes a piece of a large value and its bytes. Pieces may come
// in any order and more than once, but must be cut the same way. Its result is
// a *kv.Header or an error.
func EncodePiece(dst []byte, p Piece, data []byte) []byte {
	dst = append(append(dst, byte(kindPiece), 0), p.Upload[:]...)
	dst = binary.AppendUvarint(dst, uint64(p.Offset))
	dst = binary.AppendUvarint(dst, uint64(p.Total))
	return append(dst, data...)
}

// EncodeUploadTxn encodes t without the values that [Staged] lists for the
// same least: those were sent before as one upload, one after the other. The
// result is that of t; whatever it is, the upload is gone afterwards.
func EncodeUploadTxn(dst []byte, t *kv.Txn, id UploadID, least int) []byte {
	dst = appendRequest(append(dst, byte(kindUploadTxn), 0), len(dst)+1, t.ID)
	dst = append(dst, id[:]...)
	return appendBranches(dst, t, &staging{least: least})
}

// Staged lists the values of t's puts that have at least that many bytes, in
// the order in which an upload must hold them.
func Staged(t *kv.Txn, least int) [][]byte {
	var values [][]byte
	for _, ops := range [...][]kv.Op{t.Success, t.Failure} {
		for i := range ops {
			switch op := &ops[i]; {
			case op.Kind == kv.OpTxn:
				values = append(values, Staged(op.Txn, least)...)
			case op.Kind == kv.OpPut && len(op.Value) >= least:
				values = append(values, op.Value)
			}
		}
	}
	return values
}

// EncodeGrant encodes the grant of a lease; id is not zero. Its result is a
// *kv.LeaseResult or an error.
func EncodeGrant(dst []byte, id kv.LeaseID, ttl time.Duration) []byte {
	dst = binary.AppendVarint(append(dst, byte(kindGrant), 0), int64(id))
	return binary.AppendUvarint(dst, milliseconds(ttl))
}

// EncodeKeepAlive encodes the renewal of leases. For one id the result is a
// *kv.LeaseResult or [kv.ErrLeaseNotFound]; for several it is a
// []kv.LeaseResult in their order, with a TTL of 0 where there is no such
// lease.
func EncodeKeepAlive(dst []byte, ids ...kv.LeaseID) []byte {
	dst = binary.AppendUvarint(append(dst, byte(kindKeepAlive), 0), uint64(len(ids)))
	for _, id := range ids {
		dst = binary.AppendVarint(dst, int64(id))
	}
	return dst
}

// EncodeRevoke encodes the end of a lease. Its result is a *kv.Header or an
// error.
func EncodeRevoke(dst []byte, id kv.LeaseID) []byte {
	return binary.AppendVarint(append(dst, byte(kindRevoke), 0), int64(id))
}

// EncodeCompact encodes that the history below rev is forgotten. Its result is
// a *kv.Header or an error.
func EncodeCompact(dst []byte, rev kv.Revision) []byte {
	return binary.AppendUvarint(append(dst, byte(kindCompact), 0), uint64(rev))
}

// EncodeExpire encodes the end of leases and of keys with a TTL, decided by the
// leader of term. Apply ignores it in an entry of another term, and ignores
// each lease that was renewed, and each key that was changed, since. It must
// not be forwarded. Its result is a *kv.Header.
func EncodeExpire(dst []byte, term kv.Term, leases []ExpiredLease, keys []ExpiredKey) []byte {
	dst = binary.AppendUvarint(append(dst, byte(kindExpire), 0), uint64(term))
	dst = binary.AppendUvarint(dst, uint64(len(leases)))
	for _, l := range leases {
		dst = binary.AppendVarint(dst, int64(l.ID))
		dst = binary.AppendUvarint(dst, l.Generation)
	}
	dst = binary.AppendUvarint(dst, uint64(len(keys)))
	for _, k := range keys {
		dst = appendBytes(dst, k.Key)
		dst = binary.AppendUvarint(dst, uint64(k.Mod))
	}
	return dst
}

// EncodeSettings encodes a change of settings. Its result is a *kv.Header.
func EncodeSettings(dst []byte, c SettingsChange) []byte {
	bits := uint64(0)
	for i, on := range [...]bool{c.LeaderReads != nil, c.Retention != nil, c.HistoryBytes != nil, false,
		c.Autopilot != nil, c.Voters != nil, c.DeadAfter != nil, c.Level != nil} {
		if on {
			bits |= 1 << i // in the order of settingLeaderReads to settingLevel
		}
	}
	dst = binary.AppendUvarint(append(dst, byte(kindSettings), 0), bits)
	if c.LeaderReads != nil {
		dst = append(dst, boolByte(*c.LeaderReads))
	}
	if c.Retention != nil {
		dst = binary.AppendUvarint(dst, milliseconds(*c.Retention))
	}
	if c.HistoryBytes != nil {
		dst = binary.AppendUvarint(dst, uint64(*c.HistoryBytes))
	}
	if c.Autopilot != nil {
		dst = append(dst, boolByte(*c.Autopilot))
	}
	if c.Voters != nil {
		dst = binary.AppendUvarint(dst, uint64(*c.Voters))
	}
	if c.DeadAfter != nil {
		dst = binary.AppendUvarint(dst, milliseconds(*c.DeadAfter))
	}
	if c.Level != nil {
		dst = binary.AppendUvarint(dst, uint64(*c.Level))
	}
	return dst
}

// staging says where in an upload the next large value stands.
type staging struct {
	least  int
	offset int
}

// appendRequest writes the id that makes a retry safe and notes it in the flags
// at dst[flags].
func appendRequest(dst []byte, flags int, id kv.RequestID) []byte {
	if id.IsZero() {
		return dst
	}
	dst[flags] |= hasRequest
	return binary.AppendUvarint(append(dst, id.Client[:]...), id.Seq)
}

func appendBranches(dst []byte, t *kv.Txn, s *staging) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(t.Compare)))
	for i := range t.Compare {
		dst = appendCompare(dst, &t.Compare[i])
	}
	for _, ops := range [...][]kv.Op{t.Success, t.Failure} {
		dst = binary.AppendUvarint(dst, uint64(len(ops)))
		for i := range ops {
			dst = appendOp(dst, &ops[i], s)
		}
	}
	return dst
}

func appendCompare(dst []byte, c *kv.Compare) []byte {
	dst = append(dst, byte(c.Target), byte(c.Relation), boolByte(len(c.End) > 0))
	dst = appendBytes(dst, c.Key)
	if len(c.End) > 0 {
		dst = appendBytes(dst, c.End)
	}
	if c.Target == kv.CompareValue {
		return appendBytes(dst, c.Value)
	}
	return binary.AppendVarint(dst, c.Number)
}

func appendOp(dst []byte, op *kv.Op, s *staging) []byte {
	dst = append(dst, byte(op.Kind))
	switch op.Kind {
	case kv.OpPut:
		return appendPut(dst, op, s)
	case kv.OpDelete:
		bits := byte(0)
		if op.PrevKV {
			bits |= bitPrev
		}
		if len(op.End) > 0 {
			bits |= bitEnd
		}
		dst = appendBytes(append(dst, bits), op.Key)
		if len(op.End) > 0 {
			dst = appendBytes(dst, op.End)
		}
		return dst
	case kv.OpRange:
		return appendRange(dst, op.Range)
	default:
		return appendBranches(dst, op.Txn, s)
	}
}

func appendPut(dst []byte, op *kv.Op, s *staging) []byte {
	bits := byte(0)
	for i, on := range [...]bool{op.PrevKV, op.IgnoreValue, op.IgnoreLease, op.Lease != 0, op.TTL > 0} {
		if on {
			bits |= 1 << i // in the order of bitPrev to bitTTL
		}
	}
	staged := s != nil && len(op.Value) >= s.least
	if staged {
		bits |= bitStaged
	}
	dst = appendBytes(append(dst, bits), op.Key)
	if staged {
		dst = binary.AppendUvarint(dst, uint64(s.offset))
		dst = binary.AppendUvarint(dst, uint64(len(op.Value)))
		s.offset += len(op.Value)
	} else {
		dst = appendBytes(dst, op.Value)
	}
	if op.Lease != 0 {
		dst = binary.AppendVarint(dst, int64(op.Lease))
	}
	if op.TTL > 0 {
		dst = binary.AppendUvarint(dst, milliseconds(op.TTL))
	}
	return dst
}

func appendRange(dst []byte, r *kv.Range) []byte {
	numbers := [...]int64{int64(r.Revision), r.Limit, int64(r.Sort.By)<<2 | int64(r.Sort.Order),
		int64(r.MinMod), int64(r.MaxMod), int64(r.MinCreate), int64(r.MaxCreate)}
	bits := uint64(0)
	for i, on := range [...]bool{len(r.End) > 0, r.KeysOnly, r.CountOnly} {
		if on {
			bits |= 1 << i // in the order of rangeEnd to rangeCountOnly
		}
	}
	for i, n := range numbers {
		if n != 0 {
			bits |= rangeRevision << i
		}
	}
	dst = appendBytes(binary.AppendUvarint(dst, bits), r.Key)
	if len(r.End) > 0 {
		dst = appendBytes(dst, r.End)
	}
	for _, n := range numbers {
		if n != 0 {
			dst = binary.AppendVarint(dst, n)
		}
	}
	return dst
}

func appendBytes[T ~string | ~[]byte](dst []byte, b T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// milliseconds rounds up, so that a deadline never comes early.
func milliseconds(d time.Duration) uint64 {
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}
