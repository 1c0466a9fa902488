package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// pieceBytes is the longest piece a stream is sent in.
	pieceBytes = 256 << 10
	// errorBytes is as much of an error's text as is sent.
	errorBytes = 4 << 10
	// grace is how long an answer is waited for behind a broken connection,
	// and how long the other has to read it before it is closed.
	grace = time.Second
)

// RemoteError is an error that the other's handler returned.
type RemoteError struct{ Text string }

// Error gives the other's words.
func (e *RemoteError) Error() string { return e.Text }

var errUnread = errors.New("transport: the stream was not read to its end")

// SendStream sends a stream on a connection of its own: a header of at most
// MaxCall bytes, and what write writes. It returns nil when the other's
// ReceiveStream has taken all and returned nil, a [RemoteError] with what it
// returned otherwise, or write's error. It ends when ctx ends, when the peer is
// removed or gone, and when nothing can be sent for StreamTimeout; write sees
// an error then too. How long the other may take after the end of the data is
// for it and for ctx to bound.
func (t *Transport) SendStream(ctx context.Context, to uint64, header []byte, write func(io.Writer) error) error {
	p := (*t.peers.Load())[to]
	switch {
	case p == nil:
		return ErrUnknownPeer
	case len(header) > t.cfg.MaxCall:
		return ErrTooLarge
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })()
	conn, err := t.dialStream(ctx, p)
	if err != nil {
		return ended(ctx, err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	var reader sync.WaitGroup
	var answer error
	reader.Go(func() {
		_, answer = readAnswer(newPatient(conn, t.cfg.StreamTimeout), errorBytes)
		conn.Close() // nothing more is to be said; a write that waits ends
	})
	out := &pieceWriter{conn: newPatient(conn, t.cfg.StreamTimeout)}
	err = out.stream(header, write)
	if out.err == nil && err != nil {
		conn.Close() // our own side gave up
	} else if err != nil {
		defer time.AfterFunc(grace, func() { conn.Close() }).Stop()
	}
	reader.Wait()
	var remote *RemoteError
	if err == nil || errors.As(answer, &remote) {
		err = answer
	}
	if err == nil {
		return nil
	}
	return ended(ctx, err)
}

// dialStream connects to the first of the peer's addresses that works.
func (t *Transport) dialStream(ctx context.Context, p *peer) (conn net.Conn, err error) {
	h := t.hello(p.id)
	h.purpose = purposeStream
	err = errNoAddress
	for _, addr := range *p.addrs.Load() {
		dctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
		conn, _, err = t.dial(dctx, addr, h)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return conn, err
}

// pieceWriter sends what is written to it as frames.
type pieceWriter struct {
	conn net.Conn
	err  error // of conn; nothing is written after it
}

func (w *pieceWriter) stream(header []byte, write func(io.Writer) error) error {
	if err := w.frame(kindHeader, header); err != nil {
		return err
	}
	buf := bufio.NewWriterSize(w, pieceBytes)
	if err := write(buf); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	return w.frame(kindEnd, nil)
}

// Write sends b in pieces.
func (w *pieceWriter) Write(b []byte) (n int, err error) {
	for len(b) > n {
		piece := b[n:min(len(b), n+pieceBytes)]
		if err := w.frame(kindData, piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

func (w *pieceWriter) frame(k kind, payload []byte) error {
	if w.err == nil {
		w.err = writeFrame(w.conn, k, payload)
	}
	return w.err
}

// writeFrame writes one frame at once.
func writeFrame(conn net.Conn, k kind, payload []byte) error {
	h := header(k, payload)
	if len(payload) <= inlineBytes {
		_, err := conn.Write(append(h[:], payload...))
		return err
	}
	bufs := net.Buffers{h[:], payload}
	if p, ok := conn.(*patient); ok { // net knows only its own types to write all at once
		if err := p.armWrite(); err != nil {
			return err
		}
		conn = p.Conn
	}
	_, err := bufs.WriteTo(conn)
	return err
}

// readAnswer reads what a handler answered, skipping signs of life.
func readAnswer(conn net.Conn, limit int) ([]byte, error) {
	r := frameReader{r: conn, max: limit}
	for {
		k, b, err := r.next()
		switch {
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case k == kindOK:
			return b, nil
		case k == kindFailed:
			return nil, &RemoteError{Text: string(b)}
		case k != kindPing:
			return nil, errUnexpected
		}
	}
}

// writeAnswer sends what a handler returned.
func writeAnswer(conn net.Conn, answer []byte, err error) error {
	if err != nil {
		text := err.Error()
		return writeFrame(conn, kindFailed, []byte(text[:min(len(text), errorBytes)]))
	}
	return writeFrame(conn, kindOK, answer)
}

// serveStream gives the handler a stream and the sender its answer.
func (t *Transport) serveStream(conn net.Conn, from uint64) error {
	in := &pieceReader{frames: frameReader{r: newPatient(conn, t.cfg.StreamTimeout), max: t.cfg.MaxCall}}
	k, header, err := in.frames.next()
	if err != nil || k != kindHeader {
		return errors.Join(err, errUnexpected)
	}
	header = bytes.Clone(header) // it is the handler's, and the slab is used again
	in.frames.max, in.frames.reuse = pieceBytes, true
	out := newPatient(conn, t.cfg.StreamTimeout)
	stop := signsOfLife(out, t.cfg.StreamTimeout/4)
	err = t.cfg.Handler.ReceiveStream(from, header, in)
	stop()
	if err == nil && in.err != io.EOF {
		err = errUnread
	}
	if err := writeAnswer(out, nil, err); err != nil {
		return err
	}
	return drain(conn)
}

// signsOfLife sends a ping now and then until it is stopped.
func signsOfLife(conn net.Conn, every time.Duration) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(max(every, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if writeFrame(conn, kindPing, nil) != nil {
					return
				}
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// drain waits until the other has closed, which it does when it has the answer:
// closing first with bytes unread would reset the connection and could take the
// answer away from it.
func drain(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(grace)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, conn)
	return err
}

// pieceReader is the stream that arrives.
type pieceReader struct {
	frames frameReader
	piece  []byte
	err    error // io.EOF after the end
}

// Read implements io.Reader.
func (r *pieceReader) Read(b []byte) (int, error) {
	for len(r.piece) == 0 && len(b) > 0 {
		if r.err != nil {
			return 0, r.err
		}
		k, piece, err := r.frames.next()
		switch {
		case err == io.EOF:
			r.err = io.ErrUnexpectedEOF
		case err != nil:
			r.err = err
		case k == kindEnd:
			r.err = io.EOF
		case k == kindData:
			r.piece = piece
		default:
			r.err = errUnexpected
		}
	}
	n := copy(b, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}
