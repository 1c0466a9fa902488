package server

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// dripping is a body that comes in pieces with pauses, on a connection with a
// deadline for reading.
type dripping struct {
	http.ResponseWriter
	piece, pieces int
	left          int // of the piece that has come
	pause         time.Duration
	deadline      time.Time
}

// SetReadDeadline is what [http.ResponseController] calls.
func (d *dripping) SetReadDeadline(at time.Time) error {
	d.deadline = at
	return nil
}

// Read implements [io.Reader].
func (d *dripping) Read(p []byte) (int, error) {
	if d.left > 0 {
		n := copy(p, bytes.Repeat([]byte("x"), min(d.left, len(p))))
		d.left -= n
		return n, nil
	}
	if d.pieces == 0 {
		return 0, io.EOF
	}
	if left := time.Until(d.deadline); !d.deadline.IsZero() && left < d.pause {
		<-time.After(max(0, left))
		return 0, os.ErrDeadlineExceeded
	}
	<-time.After(d.pause)
	d.pieces--
	d.left = d.piece
	return d.Read(p)
}

// Close implements [io.Closer].
func (d *dripping) Close() error { return nil }

// TestPacedBody: a body that comes slower than it may is cut, and not a moment
// sooner or later; one that keeps to the rate, or pauses once, is not, however
// long it takes; and when it has come there is no deadline.
func TestPacedBody(t *testing.T) {
	second := leastBodyRate
	for name, test := range map[string]struct {
		drip dripping
		cut  time.Duration // 0: it comes whole
	}{
		"nothing":                {drip: dripping{}},
		"at once":                {drip: dripping{piece: 1 << 20, pieces: 1}},
		"at the rate for hours":  {drip: dripping{piece: second, pieces: 10_000, pause: time.Second}},
		"a pause, then at once":  {drip: dripping{piece: 1 << 20, pieces: 1, pause: bodyPause - 1}},
		"small, within the time": {drip: dripping{piece: 1, pieces: 29, pause: time.Second}},
		"a byte a second":        {drip: dripping{piece: 1, pieces: 1000, pause: time.Second}, cut: bodyPause},
		"half the rate":          {drip: dripping{piece: second / 2, pieces: 1000, pause: time.Second}, cut: 2*bodyPause - time.Second/2},
		"silence":                {drip: dripping{piece: 1, pieces: 1, pause: time.Hour}, cut: bodyPause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := test.drip
				d.ResponseWriter = httptest.NewRecorder()
				began := time.Now()
				r := &http.Request{Body: &d, ContentLength: int64(d.piece) * int64(d.pieces)}
				n, err := io.Copy(io.Discard, struct{ io.Reader }{newPacedBody(r, http.NewResponseController(&d))})
				took := time.Since(began)
				switch {
				case test.cut == 0 && (err != nil || n != r.ContentLength):
					t.Errorf("%d bytes of %d after %v: %v", n, r.ContentLength, took, err)
				case test.cut == 0 && !d.deadline.IsZero():
					t.Error("a body that has come leaves a deadline")
				case test.cut > 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || took < bodyPause || took > test.cut+time.Second):
					t.Errorf("cut after %v, not %v: %v", took, test.cut, err)
				}
			})
		})
	}
}
