package snap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func state(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(rng.Uint32() >> 8)
	}
	return b
}

func put(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		for len(b) > 0 {
			n := min(len(b), 777)
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
			b = b[n:]
		}
		return nil
	}
}

func meta(index uint64) Meta {
	return Meta{Index: index, Term: index / 10, ConfState: []byte{1, 2, 3, byte(index)}, Cluster: 77, Time: -5, Hash: index * 31}
}

func equal(a, b Meta) bool {
	return bytes.Equal(a.ConfState, b.ConfState) && a.Index == b.Index && a.Term == b.Term &&
		a.Cluster == b.Cluster && a.Time == b.Time && a.Hash == b.Hash && a.Size == b.Size
}

func mustOpen(t testing.TB, fs vfs.FS, dir string, chunk int) *Store {
	t.Helper()
	s, err := Open(fs, dir, Options{ChunkSize: chunk})
	must(t, err)
	return s
}

func check(t testing.TB, s *Store, index uint64, want []byte) {
	t.Helper()
	r, err := s.Open(index)
	must(t, err)
	m := meta(index)
	m.Size = int64(len(want))
	if !equal(r.Meta(), m) {
		t.Fatalf("meta %+v, want %+v", r.Meta(), m)
	}
	got, err := io.ReadAll(r)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("the state differs")
	}
	var wg sync.WaitGroup
	for i := range r.Chunks() {
		wg.Go(func() {
			b, err := r.ReadChunk(i, nil)
			lo := i * r.ChunkSize()
			if err != nil || !bytes.Equal(b, want[lo:min(lo+r.ChunkSize(), len(want))]) {
				t.Errorf("chunk %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if _, err := r.ReadChunk(r.Chunks(), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("chunk behind the end: %v", err)
	}
	must(t, r.Close())
}

func TestCreateReadSendReceive(t *testing.T) {
	for _, fs := range []vfs.FS{&vfs.Mem{}, vfs.OS()} {
		dir := "snap"
		if fs == vfs.OS() {
			dir = filepath.Join(t.TempDir(), "snap")
		}
		for i, size := range []int{0, 1, 999, 1000, 1001, 123_456} {
			s := mustOpen(t, fs, dir, 1000)
			index := uint64(10 * (i + 1))
			want := state(index, size)
			m, err := s.Create(meta(index), put(want))
			must(t, err)
			if m.Size != int64(size) {
				t.Fatalf("size %d, want %d", m.Size, size)
			}
			check(t, s, index, want)
			var file bytes.Buffer
			must(t, s.SendTo(index, &file))
			vm, err := Verify(bytes.NewReader(file.Bytes()))
			must(t, err)
			if !equal(vm, m) {
				t.Fatalf("verified %+v, want %+v", vm, m)
			}
			other := mustOpen(t, &vfs.Mem{}, "x", 0)
			file.WriteString("bytes of the next message")
			_, err = other.Receive(&file)
			must(t, err)
			check(t, other, index, want)
			s = mustOpen(t, fs, dir, 0)
			check(t, s, index, want)
			if got := s.List(); len(got) != i+1 || !equal(got[0], m) {
				t.Fatalf("list %+v", got)
			}
		}
	}
}

// TestEveryFlip flips each bit of a snapshot file: each is told, by stream, by
// file and by chunk, at the place, and no wrong byte is read.
func TestEveryFlip(t *testing.T) {
	fs := &vfs.Mem{}
	s := mustOpen(t, fs, "snap", 300)
	want := state(7, 3*300+50)
	_, err := s.Create(meta(70), put(want))
	must(t, err)
	path := s.path(70)
	whole, err := fs.ReadFile(path)
	must(t, err)
	for off := range int64(len(whole)) {
		for bit := range 8 {
			must(t, fs.Flip(path, off, 1<<bit))
			b, err := fs.ReadFile(path)
			must(t, err)
			var c *CorruptError
			if _, err := Verify(bytes.NewReader(b)); !errors.As(err, &c) {
				t.Fatalf("byte %d bit %d: verify: %v", off, bit, err)
			}
			if length := off >= 16 && off < preludeSize; off < c.Offset && !length {
				t.Fatalf("byte %d bit %d: told at byte %d", off, bit, c.Offset)
			}
			got, err := readAll(s, 70)
			if err == nil || !bytes.HasPrefix(want, got) {
				t.Fatalf("byte %d bit %d: read %d bytes, %v", off, bit, len(got), err)
			}
			if err := s.SendTo(70, io.Discard); !errors.As(err, &c) || c.File != path {
				t.Fatalf("byte %d bit %d: send: %v", off, bit, err)
			}
			fresh := mustOpen(t, fs, "snap", 0)
			_ = fresh.Retain(2)
			if _, err := fresh.Verify(70); err == nil {
				t.Fatalf("byte %d bit %d: the store does not tell", off, bit)
			}
			if len(fresh.List()) != 0 || len(fresh.Damaged()) != 1 {
				t.Fatalf("byte %d bit %d: listed %v, damaged %v", off, bit, fresh.List(), fresh.Damaged())
			}
			must(t, fs.Flip(path, off, 1<<bit))
		}
	}
	check(t, s, 70, want)
}

func readAll(s *Store, index uint64) ([]byte, error) {
	r, err := s.Open(index)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func TestCutAndContinued(t *testing.T) {
	var file bytes.Buffer
	_, err := encode(&file, meta(70), 300, put(state(7, 900)))
	must(t, err)
	whole := file.Bytes()
	try := func(what string, b []byte) {
		t.Helper()
		var c *CorruptError
		if _, err := Verify(bytes.NewReader(b)); !errors.As(err, &c) {
			t.Fatalf("%s: %v", what, err)
		}
		fs := &vfs.Mem{}
		must(t, fs.MkdirAll("snap"))
		must(t, fs.WriteFile(filepath.Join("snap", "0000000000000046.snap"), b))
		s := mustOpen(t, fs, "snap", 0)
		if _, err := s.Verify(70); !errors.As(err, &c) {
			t.Fatalf("%s: %v", what, err)
		}
		if len(s.List()) != 0 || len(s.Damaged()) != 1 {
			t.Fatalf("%s: listed %v", what, s.List())
		}
	}
	for n := range whole {
		try("cut", whole[:n])
	}
	try("continued", append(bytes.Clone(whole), 0))
	head, chunk := fixedSize+4+crcSize, 308
	swapped := bytes.Clone(whole)
	copy(swapped[head:], whole[head+chunk:head+2*chunk])
	copy(swapped[head+chunk:], whole[head:head+chunk])
	try("chunks swapped", swapped)
	fs := &vfs.Mem{}
	must(t, fs.WriteFile("f", swapped))
	r, err := openReader(fs, "f")
	must(t, err)
	var c *CorruptError
	if _, err := r.ReadChunk(0, nil); !errors.As(err, &c) || c.Offset != int64(head) {
		t.Errorf("a chunk in the place of another: %v", err)
	}
	must(t, r.Close())
	try("a chunk left out", append(bytes.Clone(whole[:head+chunk]), whole[head+2*chunk:]...))
	try("a chunk twice", append(bytes.Clone(whole[:head+chunk]), whole[head:]...))
}

func TestNewerFormat(t *testing.T) {
	var file bytes.Buffer
	_, err := Write(&file, meta(70), put(nil))
	must(t, err)
	b := file.Bytes()
	b[len(magic)]++
	size := fixedSize + 4 + crcSize
	binary.LittleEndian.PutUint32(b[size-crcSize:], crc32.Checksum(b[:size-crcSize], castagnoli))
	if _, err := Verify(bytes.NewReader(b)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "format 2") {
		t.Fatal(err)
	}
	fs := &vfs.Mem{}
	must(t, fs.MkdirAll("snap"))
	must(t, fs.WriteFile("snap/0000000000000046.snap", b))
	if _, err := Open(fs, "snap", Options{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "0046.snap") {
		t.Fatal(err)
	}
}

func TestRetain(t *testing.T) {
	fs := &vfs.Mem{}
	s := mustOpen(t, fs, "snap", 100)
	for i := uint64(1); i <= 6; i++ {
		_, err := s.Create(meta(i), put(state(i, 1000)))
		must(t, err)
	}
	reader, err := s.Open(1)
	must(t, err)
	must(t, fs.Flip(s.path(5), 500, 1)) // found only by reading the chunks
	s = mustOpen(t, fs, "snap", 0)
	must(t, s.Retain(0))
	var left []uint64
	for _, m := range s.List() {
		left = append(left, m.Index)
	}
	if len(left) != 2 || left[0] != 6 || left[1] != 4 || len(s.Damaged()) != 1 {
		t.Fatalf("kept %v, damaged %v", left, s.Damaged())
	}
	if b, err := io.ReadAll(reader); err != nil || !bytes.Equal(b, state(1, 1000)) {
		t.Fatalf("open reader after its file was removed: %v", err)
	}
	must(t, reader.Close())
	if _, err := s.Open(1); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := s.Open(5); err == nil {
		t.Fatal("opened a damaged snapshot")
	}
}

// TestFaultsAndCrashes fails each operation in turn, then cuts the power: what
// Create returned is there, nothing else that checks is, no leftovers stay.
func TestFaultsAndCrashes(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, &vfs.ShortWrite{N: 100, Err: syscall.ENOSPC}} {
		for at := 1; ; at++ {
			rng := rand.New(rand.NewPCG(uint64(at), 1))
			n, hit := 0, false
			fs := &vfs.Mem{}
			fs.Hook = func(op vfs.Op) error {
				if n++; n == at {
					hit = true
					return fault
				}
				return nil
			}
			var done []uint64
			s, err := Open(fs, "snap", Options{ChunkSize: 200})
			for i := uint64(1); i <= 4 && err == nil; i++ {
				if _, err = s.Create(meta(i), put(state(i, 700))); err == nil {
					done = append(done, i)
					err = s.Retain(2)
				}
			}
			if hit != (err != nil) {
				t.Fatalf("operation %d failed: %v, told: %v", at, hit, err)
			}
			if hit && !errors.Is(err, fault) && !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("operation %d: %v does not say %v", at, err, fault)
			}
			fs.Hook = nil
			fs.Crash(rng)
			s = mustOpen(t, fs, "snap", 0)
			for _, i := range done[max(0, len(done)-2):] {
				check(t, s, i, state(i, 700))
			}
			for _, m := range s.List() {
				check(t, s, m.Index, state(m.Index, 700))
			}
			names, err := fs.ReadDir("snap")
			must(t, err)
			if len(s.Damaged()) != 0 || len(names) != len(s.List()) {
				t.Fatalf("operation %d: files %v, damaged %v", at, names, s.Damaged())
			}
			if !hit {
				t.Logf("%v at each of %d operations", fault, at-1)
				break
			}
		}
	}
}

// TestCreateCrash cuts the power after each operation without any error.
func TestCreateCrash(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		stop := errors.New("power")
		n, at := 0, 1+rng.IntN(60)
		fs := &vfs.Mem{Hook: func(vfs.Op) error {
			if n++; n >= at {
				return stop
			}
			return nil
		}}
		var done []uint64
		s, err := Open(fs, "snap", Options{ChunkSize: 100})
		for i := uint64(1); i <= 5 && err == nil; i++ {
			if _, err = s.Create(meta(i), put(state(i, rng.IntN(1000)))); err == nil {
				done = append(done, i)
				err = s.Retain(2)
			}
		}
		fs.Hook = nil
		fs.Crash(rng)
		s = mustOpen(t, fs, "snap", 0)
		listed := make(map[uint64]bool)
		for _, m := range s.List() {
			listed[m.Index] = true
			if _, err := s.Verify(m.Index); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for _, i := range done[max(0, len(done)-2):] {
			if !listed[i] {
				t.Fatalf("seed %d: snapshot %d is lost, there are %v", seed, i, s.List())
			}
		}
		if len(s.Damaged()) > 0 {
			t.Fatalf("seed %d: %v", seed, s.Damaged())
		}
	}
}

func TestFailedWriter(t *testing.T) {
	fs := &vfs.Mem{}
	s := mustOpen(t, fs, "snap", 0)
	boom := errors.New("boom")
	_, err := s.Create(meta(1), func(w io.Writer) error { return boom })
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, err := s.Receive(io.MultiReader(strings.NewReader("concord"), &failing{boom})); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if names, err := fs.ReadDir("snap"); err != nil || len(names) > 0 {
		t.Fatalf("left %v, %v", names, err)
	}
	if _, err := s.Create(Meta{ConfState: make([]byte, maxConf+1)}, put(nil)); err == nil {
		t.Fatal("took too large a configuration")
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzVerify(f *testing.F) {
	for _, n := range []int{0, 10, 900} {
		var file bytes.Buffer
		if _, err := encode(&file, meta(3), 300, put(state(1, n))); err != nil {
			f.Fatal(err)
		}
		f.Add(file.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Verify(bytes.NewReader(b))
		fs := &vfs.Mem{}
		must(t, fs.WriteFile("f", b))
		file, ferr := fs.OpenFile("f", os.O_RDONLY)
		must(t, ferr)
		r, rerr := NewReader(file, "f")
		var got []byte
		if rerr == nil {
			got, rerr = io.ReadAll(r)
		}
		if (err == nil) != (rerr == nil) {
			t.Fatalf("stream: %v, file: %v", err, rerr)
		}
		if err == nil && int64(len(got)) != m.Size {
			t.Fatalf("%d bytes, size %d", len(got), m.Size)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := mustOpen(b, vfs.OS(), b.TempDir(), 0)
	data := state(1, 1<<20)
	_, err := s.Create(meta(1), func(w io.Writer) error {
		for range 256 {
			if _, err := w.Write(data); err != nil {
				return err
			}
		}
		return nil
	})
	must(b, err)
	b.SetBytes(256 << 20)
	for b.Loop() {
		if _, err := s.Verify(1); err != nil {
			b.Fatal(err)
		}
	}
}
