package server

import (
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	// bodyPause is how long a body may take beyond what it takes at
	// leastBodyRate, in bytes a second.
	bodyPause     = 30 * time.Second
	leastBodyRate = 64 << 10
)

// pacedBody is the body of a request that has to come at some rate. Once it has
// come there is no deadline: what it asks for may take as long as it likes.
type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
	began   time.Time
	read    int64
}

func newPacedBody(r *http.Request, c *http.ResponseController) io.ReadCloser {
	b := &pacedBody{ReadCloser: r.Body, control: c, began: time.Now()}
	if b.extend(); r.ContentLength == 0 {
		b.arrived()
	}
	return b
}

func (b *pacedBody) arrived() { _ = b.control.SetReadDeadline(time.Time{}) }

// extend gives what comes next its time. A connection that cannot have a
// deadline has none to lift either.
func (b *pacedBody) extend() {
	_ = b.control.SetReadDeadline(b.began.Add(bodyPause + time.Duration(b.read)*time.Second/leastBodyRate))
}

// Read implements [io.Reader].
func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	switch {
	case err == nil:
		b.extend()
	case errors.Is(err, io.EOF):
		b.arrived()
	}
	return n, err
}
