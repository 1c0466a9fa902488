package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/concord-kv/concord/internal/vfs"
)

// The numbers of the byte format; doc.go describes it.
const (
	version     = 1
	sectorSize  = vfs.SectorSize
	trailerSize = 8
	// payloadSize is 3 × 168, the stride at which the standard library's CRC32C
	// uses its three-way interleaved loop.
	payloadSize = sectorSize - trailerSize
	magic       = "concord\x00log\x00"
	// maxSegment bounds the size a header may claim, in bytes.
	maxSegment = 1 << 40
)

// The last byte of a written sector. These are words of the extended Hamming
// code [8,4,4]: any two, and any and zero, differ in four bits, so that no
// lesser fault turns one into another or into "never written".
const (
	markNone   byte = 0x00
	markMiddle byte = 0x0F
	markFirst  byte = 0x33
	markLast   byte = 0x55
	markOnly   byte = 0x3C // first and last
	markHeader byte = 0x5A
)

// The kinds of records.
const (
	kindBegin    byte = 1 + iota // seq, chain before
	kindBase                     // base index, base term, oldest segment, last index
	kindReset                    // mark index, mark term
	kindPosition                 // index and term of the entry that follows
	kindEntry                    // type byte, data
	kindMark                     // index, term
	kindState                    // term, vote, commit
	kindCommit                   // sectors of the write, chain before this sector
	kindEnd
)

// bodySize is the exact length of each kind's body; an entry's is at least this.
var bodySize = [kindEnd]uint32{
	kindBegin: 16, kindBase: 32, kindReset: 16, kindPosition: 16,
	kindEntry: 1, kindMark: 16, kindState: 24, kindCommit: 16,
}

const (
	recordHeader = 5 // kind, length of the body
	maxBody      = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mix is the finalizer of splitmix64: Steele, Lea, Flood, "Fast splittable
// pseudorandom number generators", OOPSLA 2014.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// writeKey keys the sectors of one write in one segment.
func writeKey(segmentKey, seq uint64) uint64 { return mix(segmentKey + seq*0x9e3779b97f4a7c15) }

// checksum is the CRC32C of a sector's payload, started from what the sector
// is and where it stands. CRCs of equal length with different starts always
// differ, so a sector never passes for another one unless the starts collide.
func checksum(payload []byte, key uint64, sector int64, mark byte) uint32 {
	start := uint32(mix(key ^ uint64(sector)<<8 ^ uint64(mark)))
	return crc32.Update(start, castagnoli, payload[:payloadSize])
}

// fold adds a sector's checksum to the chain over all sectors of the log.
func fold(chain uint64, crc uint32) uint64 {
	return bits.RotateLeft64(chain, 23)*0x9e3779b97f4a7c15 + uint64(crc) + 1
}

// place is where a sector belongs.
type place struct {
	key    uint64 // of its write in its segment
	seq    uint64 // the write's number
	number int64  // of the sector in the file
}

// seal completes a sector whose payload is filled, and returns its checksum.
func seal(sector []byte, at place, mark byte) uint32 {
	crc := checksum(sector, at.key, at.number, mark)
	binary.LittleEndian.PutUint32(sector[payloadSize:], crc)
	binary.LittleEndian.PutUint32(sector[payloadSize+4:], uint32(at.seq)&0xffffff|uint32(mark)<<24)
	return crc
}

// sealed tells whether the sector is exactly as seal left it.
func sealed(sector []byte, at place) bool {
	mark := sector[sectorSize-1]
	tail := binary.LittleEndian.Uint32(sector[payloadSize+4:])
	return tail&0xffffff == uint32(at.seq)&0xffffff &&
		binary.LittleEndian.Uint32(sector[payloadSize:]) == checksum(sector, at.key, at.number, mark)
}

// header is the first sector of a segment file.
type header struct {
	number uint64 // of the segment, from 1
	log    uint64 // random, the same in all segments of a log
	key    uint64 // random, of this segment alone
}

func (h header) encode(sector []byte) {
	clear(sector)
	copy(sector, magic)
	le := binary.LittleEndian
	le.PutUint32(sector[12:], version)
	le.PutUint64(sector[16:], h.number)
	le.PutUint64(sector[24:], h.log)
	le.PutUint64(sector[32:], h.key)
	seal(sector, place{}, markHeader)
}

// decodeHeader returns ErrFormat for an intact header of another version: the
// magic, the version's place and the checksum are the same in all versions.
func decodeHeader(sector []byte, path string) (header, error) {
	damaged := func(reason string) (header, error) {
		return header{}, &CorruptError{File: path, Reason: reason}
	}
	if string(sector[:len(magic)]) != magic {
		return damaged("the header has no magic: not a log segment")
	}
	if sector[sectorSize-1] != markHeader || !sealed(sector, place{}) {
		return damaged("the header does not match its checksum")
	}
	le := binary.LittleEndian
	if v := le.Uint32(sector[12:]); v != version {
		return header{}, fmt.Errorf("%w: %s has log format %d, this program reads %d: use the program that wrote it, or a newer one",
			ErrFormat, path, v, version)
	}
	return header{number: le.Uint64(sector[16:]), log: le.Uint64(sector[24:]), key: le.Uint64(sector[32:])}, nil
}

const (
	segmentSuffix = ".wal"
	tempSuffix    = ".tmp"
	freeSuffix    = ".free"
	reserveName   = "reserve"
)

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", number, segmentSuffix))
}

// parseName returns the segment number in a file name.
func parseName(name string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 64)
	return n, err == nil && n > 0
}

// errUnwritten: the sector was never written, or not to its end.
var errUnwritten = errors.New("never written")
