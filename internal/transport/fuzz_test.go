package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime/metrics"
	"testing"
	"testing/iotest"
)

func frameBytes(k kind, payload []byte) []byte {
	h := header(k, payload)
	return append(h[:], payload...)
}

// FuzzFrames feeds arbitrary bytes to both ways of reading frames: they agree,
// cost no more memory than bytes came, and what was accepted is what is encoded.
func FuzzFrames(f *testing.F) {
	f.Add(frameBytes(kindMessage, []byte("hello")), uint8(1))
	f.Add(append(frameBytes(kindPing, nil), frameBytes(kindData, make([]byte, 5000))...), uint8(0))
	f.Add([]byte("\xff\xff\xff\x03\x01\x00\x00\x00\x00\x00\x00\x00"), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		limit := 64 << 20
		var src io.Reader = bytes.NewReader(data)
		switch how % 3 {
		case 1:
			src = iotest.OneByteReader(src)
		case 2:
			src = iotest.DataErrReader(src)
		}
		a := frameReader{r: src, max: limit}
		b := frameReader{r: bytes.NewReader(data), max: limit, reuse: true}
		rest := data
		for {
			ka, pa, erra := a.next()
			kb, pb, errb := b.next()
			if ka != kb || !bytes.Equal(pa, pb) || (erra == nil) != (errb == nil) {
				t.Fatalf("readers differ: %v %x %v, %v %x %v", ka, pa, erra, kb, pb, errb)
			}
			if max(len(a.slab), len(b.slab)) > max(2*len(data), trusted)+maxSlab {
				t.Fatalf("%d bytes made slabs of %d and %d", len(data), len(a.slab), len(b.slab))
			}
			if erra != nil {
				if (erra == io.EOF) != (len(rest) == 0) {
					t.Fatalf("%v with %d bytes left", erra, len(rest))
				}
				return
			}
			want := frameBytes(ka, pa)
			if !bytes.HasPrefix(rest, want) {
				t.Fatalf("accepted %x, which is encoded as %x", rest, want)
			}
			rest = rest[len(want):]
		}
	})
}

// TestFlippedBitsAreFound flips every bit of a frame.
func TestFlippedBitsAreFound(t *testing.T) {
	good := frameBytes(kindMessage, []byte("some payload"))
	for bit := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		r := frameReader{r: bytes.NewReader(bad), max: 1 << 20}
		if k, p, err := r.next(); err == nil {
			t.Errorf("bit %d: accepted as %v %q", bit, k, p)
		}
	}
	good = hello{purpose: 2, cluster: 1, from: 2, to: 3, incarnation: 4, link: 5}.encode()
	for bit := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		if h, known, err := readHello(bytes.NewReader(bad)); err == nil && known {
			t.Errorf("bit %d: accepted as %+v", bit, h)
		}
	}
}

func TestFrameOverTheLimit(t *testing.T) {
	r := frameReader{r: bytes.NewReader(frameBytes(kindMessage, make([]byte, 11))), max: 10}
	if _, _, err := r.next(); !errors.Is(err, ErrTooLarge) || len(r.slab) > minSlab {
		t.Errorf("%v, slab of %d", err, len(r.slab))
	}
}

// memoryBase is what any input may cost, what is trusted of a length, copied once,
// among it; memoryGrowth is what a byte of it may cost, garbage included.
const (
	memoryBase   = 4*trusted + 4<<20
	memoryGrowth = 64
)

// frugal fails when what costs more memory than data is worth.
func frugal(t *testing.T, data []byte, what func()) {
	t.Helper()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	what()
	metrics.Read(sample)
	if cost := sample[0].Value.Uint64() - before; cost > uint64(memoryBase+memoryGrowth*len(data)) {
		t.Errorf("%d bytes cost %d", len(data), cost)
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(hello{purpose: 1, cluster: 1, from: 2, to: 3, incarnation: 4, link: 5}.encode())
	f.Add(welcome{cluster: 1, id: 2, incarnation: 3, refusal: Busy}.encode())
	f.Add([]byte("cncd\x02\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		frugal(t, data, func() {
			_, _, _ = readHello(bytes.NewReader(data)) // what they say is looked at below
			_, _ = readWelcome(bytes.NewReader(data))
		})
		if h, known, err := readHello(bytes.NewReader(data)); err == nil && known && !bytes.HasPrefix(data, h.encode()) {
			t.Errorf("hello %+v came from %x", h, data)
		}
		if w, err := readWelcome(bytes.NewReader(data)); err == nil {
			if w.version == version && !bytes.HasPrefix(data, w.encode()) {
				t.Errorf("welcome %+v came from %x", w, data)
			}
			if err := judgeWelcome("addr", hello{cluster: 1, to: 2, from: 3}, w); err != nil && err.Error() == "" {
				t.Error("a refusal without words")
			}
		}
	})
}

// FuzzEndpoint lets an admitted peer, or a stranger, say anything.
func FuzzEndpoint(f *testing.F) {
	good := hello{cluster: cluster, from: 7, to: 1, incarnation: 4, link: 5}
	for purpose := range uint8(purposes) {
		f.Add(purpose, append(frameBytes(kindMessage, []byte("x")), frameBytes(kindPing, make([]byte, 8))...))
		f.Add(purpose, frameBytes(kindHeader, []byte("x")))
		f.Add(purpose, frameBytes(kindRequest, []byte("x")))
	}
	f.Fuzz(func(t *testing.T, purpose uint8, data []byte) {
		mem := newMemory()
		a := start(t, mem, 1, func(_ *Config, r *recorder) {
			r.stream = func(_ uint64, _ []byte, in io.Reader) error { _, err := io.Copy(io.Discard, in); return err }
			r.call = func(_ string, p []byte) ([]byte, error) { return p, nil }
		})
		conn, err := mem.dial(context.Background(), a.addr)
		if err != nil {
			t.Fatal(err)
		}
		if purpose < purposes {
			h := good
			h.purpose = purpose
			greet(t, conn, h)
		}
		frugal(t, data, func() {
			go func() { conn.Write(data); conn.Close() }()
			io.Copy(io.Discard, conn)
			a.stop()
		})
	})
}

func greet(t *testing.T, conn net.Conn, h hello) {
	t.Helper()
	if _, err := conn.Write(h.encode()); err != nil {
		t.Fatal(err)
	}
	if w, err := readWelcome(conn); err != nil || w.refusal != 0 {
		t.Fatal(w, err)
	}
}
