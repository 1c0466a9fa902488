package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Entry payload, version 1. Integers are little endian, "v" marks uvarints.
//
//	normal entry   version u8 = 1 | cluster time i64 ms | group…
//	group          origin u64 | incarnation u64 | sequence v | count v | length v | data
//	data           count times: length v | command
//	change         version u8 = 1 | cluster time i64 ms | origin u64 | incarnation u64 | id u64 | context
//
// A change is the Context of a raftpb.ConfChangeV2. An entry without data is
// raft's own and carries nothing.
const (
	payloadVersion = 1
	payloadHeader  = 9
	changeHeader   = 33
	// groupOverhead is the most that a group adds to its data.
	groupOverhead = 16 + 3*binary.MaxVarintLen64
)

var errPayload = errors.New("replica: entry has no meaning here")

// groupRef is a group inside a payload.
type groupRef struct {
	origin, incarnation, seq uint64
	count                    int
	data                     []byte
}

func appendPayloadHeader(dst []byte, stamp int64) []byte {
	dst = append(dst, payloadVersion)
	return binary.LittleEndian.AppendUint64(dst, uint64(stamp))
}

func appendGroup(dst []byte, g groupRef) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, g.origin)
	dst = binary.LittleEndian.AppendUint64(dst, g.incarnation)
	dst = binary.AppendUvarint(dst, g.seq)
	dst = binary.AppendUvarint(dst, uint64(g.count))
	dst = binary.AppendUvarint(dst, uint64(len(g.data)))
	return append(dst, g.data...)
}

// payloadStamp returns the cluster time of a normal entry or change, and what
// follows it.
func payloadStamp(data []byte) (stamp int64, rest []byte, err error) {
	switch {
	case len(data) < payloadHeader:
		return 0, nil, fmt.Errorf("%w: %d bytes are too few", errPayload, len(data))
	case data[0] != payloadVersion:
		return 0, nil, fmt.Errorf("%w: version %d is not known", errPayload, data[0])
	}
	stamp = int64(binary.LittleEndian.Uint64(data[1:]))
	if stamp < 0 {
		return 0, nil, fmt.Errorf("%w: cluster time %d is negative", errPayload, stamp)
	}
	return stamp, data[payloadHeader:], nil
}

// cutGroup takes the first group off rest.
func cutGroup(rest []byte) (g groupRef, tail []byte, err error) {
	if len(rest) < 16 {
		return g, nil, fmt.Errorf("%w: a group is cut short", errPayload)
	}
	g.origin, g.incarnation = binary.LittleEndian.Uint64(rest), binary.LittleEndian.Uint64(rest[8:])
	rest = rest[16:]
	var v [3]uint64
	for i := range v {
		n := 0
		if v[i], n = binary.Uvarint(rest); n <= 0 {
			return g, nil, fmt.Errorf("%w: a group's header is damaged", errPayload)
		}
		rest = rest[n:]
	}
	// Every command takes a byte at least, so count is bounded by length.
	if v[2] > uint64(len(rest)) || v[1] > v[2] || v[1] == 0 {
		return g, nil, fmt.Errorf("%w: a group of %d commands claims %d of %d bytes", errPayload, v[1], v[2], len(rest))
	}
	g.seq, g.count = v[0], int(v[1])
	g.data, tail = rest[:v[2]:v[2]], rest[v[2]:]
	return g, tail, nil
}

// appendCommands appends g's commands to dst; they share g's memory.
func appendCommands(dst [][]byte, g groupRef) ([][]byte, error) {
	rest := g.data
	for i := range g.count {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return dst, fmt.Errorf("%w: command %d of %d is cut short", errPayload, i+1, g.count)
		}
		rest = rest[n:]
		dst = append(dst, rest[:size:size])
		rest = rest[size:]
	}
	if len(rest) != 0 {
		return dst, fmt.Errorf("%w: %d bytes follow the last command", errPayload, len(rest))
	}
	return dst, nil
}

// changeRef is what the context of a configuration change says.
type changeRef struct {
	stamp                   int64
	origin, incarnation, id uint64
	context                 []byte
}

func appendChange(dst []byte, c changeRef) []byte {
	dst = appendPayloadHeader(dst, c.stamp)
	dst = binary.LittleEndian.AppendUint64(dst, c.origin)
	dst = binary.LittleEndian.AppendUint64(dst, c.incarnation)
	dst = binary.LittleEndian.AppendUint64(dst, c.id)
	return append(dst, c.context...)
}

func parseChange(data []byte) (c changeRef, err error) {
	stamp, rest, err := payloadStamp(data)
	if err != nil {
		return c, err
	}
	if len(rest) < changeHeader-payloadHeader {
		return c, fmt.Errorf("%w: a membership change is cut short", errPayload)
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(rest[8*i:]) }
	return changeRef{stamp, u(0), u(1), u(2), rest[24:]}, nil
}
