package machine

import (
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Bounds on large values that are being staged.
const (
	// MaxUploadBytes bounds the sizes of all uploads together, and so the
	// largest value.
	MaxUploadBytes = 512 << 20
	// MaxUploads bounds how many there are.
	MaxUploads = 1024
	// uploadAge is after how many milliseconds of cluster time without a piece
	// an upload is dropped.
	uploadAge = 60_000
)

// span is bytes at an offset of an upload.
type span struct {
	offset uint64
	data   []byte
}

func (s span) end() uint64 { return s.offset + uint64(len(s.data)) }

// upload is a large value that comes in pieces. Its memory is reserved whole
// with the first piece, so that uploads cannot wait for each other.
type upload struct {
	id UploadID
	// buf is the value. What spans cover is never written again, so a
	// snapshot may read it while later pieces arrive.
	buf []byte
	// spans are the parts that have come, in order, none touching the next.
	// The slice is replaced, never changed.
	spans   []span
	touched kv.Time
}

func (u *upload) complete() bool { return len(u.spans) == 1 && len(u.spans[0].data) == len(u.buf) }

// uploads are the large values being staged, in the order in which they were
// begun.
type uploads struct {
	all      []*upload
	reserved uint64
}

func (s *uploads) find(id UploadID) int {
	return slices.IndexFunc(s.all, func(u *upload) bool { return u.id == id })
}

// add stages a piece. A piece that is there already changes nothing but the
// time at which the upload expires.
func (s *uploads) add(id UploadID, piece span, total uint64, now kv.Time) error {
	if len(piece.data) == 0 || total > MaxUploadBytes || piece.offset > total || uint64(len(piece.data)) > total-piece.offset {
		return kv.Errorf(kv.InvalidArgument, "a piece of %d bytes at %d of %d makes no sense; a value has at most %d", len(piece.data), piece.offset, total, MaxUploadBytes)
	}
	i := s.find(id)
	if i < 0 {
		if len(s.all) >= MaxUploads || s.reserved+total > MaxUploadBytes {
			return kv.ErrTooManyUploads
		}
		i = len(s.all)
		s.all = append(s.all, &upload{id: id, buf: make([]byte, total)})
		s.reserved += total
	}
	u := s.all[i]
	if uint64(len(u.buf)) != total {
		return kv.Errorf(kv.InvalidArgument, "a piece says that the value has %d bytes, an earlier one said %d", total, len(u.buf))
	}
	u.touched = now
	return u.add(piece)
}

func (u *upload) add(piece span) error {
	at, _ := slices.BinarySearchFunc(u.spans, piece.offset, func(s span, offset uint64) int {
		if s.end() < offset {
			return -1
		}
		return 1
	}) // the first span that ends at or after the piece
	from, to, until := piece.offset, piece.end(), at
	if at < len(u.spans) {
		s := u.spans[at]
		if s.offset <= from && s.end() >= to {
			return nil // seen before
		}
		if s.end() == from { // it goes on where s ends
			from, until = s.offset, at+1
		}
	}
	if until < len(u.spans) {
		s := u.spans[until]
		if s.offset < to {
			return kv.Errorf(kv.InvalidArgument, "the piece at %d overlaps another", piece.offset)
		}
		if s.offset == to { // it fills the gap before s
			to, until = s.end(), until+1
		}
	}
	copy(u.buf[piece.offset:], piece.data)
	spans := slices.Clone(u.spans)
	u.spans = slices.Replace(spans, at, until, span{from, u.buf[from:to]})
	return nil
}

// take ends an upload and returns its value, or nil where it is not complete.
func (s *uploads) take(id UploadID) []byte {
	i := s.find(id)
	if i < 0 {
		return nil
	}
	u := s.all[i]
	s.remove(i)
	if !u.complete() {
		return nil
	}
	return u.buf
}

func (s *uploads) remove(i int) {
	s.reserved -= uint64(len(s.all[i].buf))
	s.all = slices.Delete(s.all, i, i+1)
}

// expire drops the uploads that nobody goes on with.
func (s *uploads) expire(now kv.Time) {
	for i := len(s.all) - 1; i >= 0; i-- {
		if now-s.all[i].touched >= uploadAge {
			s.remove(i)
		}
	}
}

// copy captures the uploads for a snapshot.
func (s *uploads) copy() []upload {
	all := make([]upload, len(s.all))
	for i, u := range s.all {
		all[i] = *u
	}
	return all
}
