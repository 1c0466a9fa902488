package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func TestStreamArrivesWhole(t *testing.T) {
	for _, size := range []int{0, 1, pieceBytes - 1, pieceBytes, pieceBytes + 1, 20<<20 + 7} {
		data := make([]byte, size)
		rng := rand.NewChaCha8([32]byte{byte(size)})
		rng.Read(data)
		var got bytes.Buffer
		a, _ := pair(t, loopback{}, func(_ *Config, r *recorder) {
			r.stream = func(from uint64, header []byte, in io.Reader) error {
				if from != 1 || string(header) != "a header" {
					return fmt.Errorf("from %d: %q", from, header)
				}
				_, err := got.ReadFrom(iotest.HalfReader(in))
				if string(header) != "a header" {
					return errors.New("header was overwritten")
				}
				return err
			}
		})
		err := a.SendStream(t.Context(), 2, []byte("a header"), func(w io.Writer) error {
			for b := data; len(b) > 0; {
				n := min(len(b), 1+rand.IntN(2*pieceBytes))
				if _, err := w.Write(b[:n]); err != nil {
					return err
				}
				b = b[n:]
			}
			return nil
		})
		if err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%d bytes: %d arrived, %v", size, got.Len(), err)
		}
	}
}

func forever(w io.Writer) error {
	for b := make([]byte, 100<<10); ; {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write stopped: %w", err)
		}
	}
}

func TestStreamErrors(t *testing.T) {
	errOurs := errors.New("disk is gone")
	for name, c := range map[string]struct {
		receive func(in io.Reader) error
		send    func(io.Writer) error
		want    string
	}{
		"refused at once": {
			receive: func(io.Reader) error { return errors.New("no space here") },
			send:    forever, want: "no space here",
		},
		"refused at the end": {
			receive: func(in io.Reader) error { io.Copy(io.Discard, in); return errors.New("bad checksum") },
			send:    func(w io.Writer) error { _, err := w.Write(make([]byte, 1<<20)); return err }, want: "bad checksum",
		},
		"not read": {
			receive: func(in io.Reader) error { return nil },
			send:    forever, want: "not read to its end",
		},
		"sender gives up": {
			receive: func(in io.Reader) error {
				if _, err := io.Copy(io.Discard, in); err != io.ErrUnexpectedEOF {
					return fmt.Errorf("receiver saw %v", err)
				}
				return nil
			},
			send: func(w io.Writer) error { w.Write(make([]byte, 1<<20)); return errOurs }, want: "disk is gone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan error, 1)
			a, _ := pair(t, loopback{}, func(_ *Config, r *recorder) {
				r.stream = func(_ uint64, _ []byte, in io.Reader) error {
					err := c.receive(in)
					done <- err
					return err
				}
			})
			err := a.SendStream(t.Context(), 2, nil, c.send)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("sender: %v, want %q", err, c.want)
			}
			if err := <-done; name == "sender gives up" && err != nil {
				t.Errorf("receiver: %v", err)
			}
		})
	}
}

// TestStreamEndsWithEitherSide ends it in every way that is not an answer.
func TestStreamEndsWithEitherSide(t *testing.T) {
	for name, end := range map[string]func(a, b *node, cancel func()){
		"context":           func(_, _ *node, cancel func()) { cancel() },
		"sender stops":      func(a, _ *node, _ func()) { a.stop() },
		"receiver stops":    func(_, b *node, _ func()) { b.stop() },
		"sender removes":    func(a, _ *node, _ func()) { a.RemovePeer(2) },
		"receiver removes":  func(_, b *node, _ func()) { b.RemovePeer(1) },
		"receiver is at it": func(_, b *node, cancel func()) { cancel(); b.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			began, ended := make(chan struct{}), make(chan error, 1)
			a, b := pair(t, loopback{}, func(_ *Config, r *recorder) {
				r.stream = func(_ uint64, _ []byte, in io.Reader) error {
					close(began)
					_, err := io.Copy(io.Discard, in)
					ended <- err
					return err
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error, 1)
			go func() { result <- a.SendStream(ctx, 2, nil, forever) }()
			<-began
			end(a, b, cancel)
			if err := <-result; err == nil {
				t.Error("the sender saw no error")
			}
			if err := <-ended; err == nil {
				t.Error("the receiver saw no error")
			}
		})
	}
}

func TestStreamWithoutProgressEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		ended := make(chan error, 1)
		release := make(chan struct{})
		a, b := pair(t, mem, func(_ *Config, r *recorder) {
			r.stream = func(_ uint64, header []byte, in io.Reader) error {
				if string(header) == "stuck" {
					<-release
				}
				_, err := io.Copy(io.Discard, in)
				ended <- err
				return err
			}
		})
		// The receiver does not read.
		began := time.Now()
		if err := a.SendStream(t.Context(), 2, []byte("stuck"), forever); err == nil {
			t.Error("stream to a stuck receiver succeeded")
		}
		if d := time.Since(began); d < 8*time.Second || d > 11*time.Second {
			t.Errorf("gave up after %v", d)
		}
		close(release)
		<-ended

		// The sender sends nothing.
		err := a.SendStream(t.Context(), 2, nil, func(w io.Writer) error {
			<-time.After(time.Minute)
			_, err := w.Write(make([]byte, pieceBytes))
			return err
		})
		if err == nil {
			t.Error("a stream that stopped for a minute succeeded")
		}
		if err := <-ended; !isTimeout(err) {
			t.Errorf("receiver: %v", err)
		}

		// The receiver takes long at the end, and says that it lives.
		b.recorder.stream = func(_ uint64, _ []byte, in io.Reader) error {
			io.Copy(io.Discard, in)
			<-time.After(time.Hour)
			return nil
		}
		if err := a.SendStream(t.Context(), 2, nil, func(io.Writer) error { return nil }); err != nil {
			t.Errorf("slow end: %v", err)
		}
		a.stop()
		b.stop()
	})
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestStreamToNobody(t *testing.T) {
	a := start(t, loopback{}, 1, nil)
	if err := a.SendStream(t.Context(), 9, nil, forever); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("unknown: %v", err)
	}
	a.SetPeer(9)
	if err := a.SendStream(t.Context(), 9, nil, forever); !errors.Is(err, errNoAddress) {
		t.Errorf("no address: %v", err)
	}
	if err := a.SendStream(t.Context(), 9, make([]byte, 2<<20), forever); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large header: %v", err)
	}
}

func TestStreamsAreCapped(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	a, _ := pair(t, loopback{}, func(_ *Config, r *recorder) {
		r.stream = func(_ uint64, _ []byte, in io.Reader) error {
			began <- struct{}{}
			<-release
			_, err := io.Copy(io.Discard, in)
			return err
		}
	})
	results := make(chan error, maxStreams)
	for range maxStreams {
		go func() { results <- a.SendStream(t.Context(), 2, nil, func(io.Writer) error { return nil }) }()
		<-began
	}
	var refused *RefusedError
	if err := a.SendStream(t.Context(), 2, nil, forever); !errors.As(err, &refused) || refused.Reason != Busy {
		t.Errorf("one more: %v", err)
	}
	close(release)
	for range maxStreams {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestCall(t *testing.T) {
	none := func(c *Config, r *recorder) {
		c.Cluster = 0
		r.call = func(from string, p []byte) ([]byte, error) {
			switch string(p) {
			case "large":
				return make([]byte, 2<<20), nil
			case "fail":
				return nil, errors.New(strings.Repeat("no ", errorBytes))
			}
			return append([]byte(from+" said "), p...), nil
		}
	}
	a, b := start(t, loopback{}, 1, none), start(t, loopback{}, 2, none)
	got, err := a.Call(t.Context(), b.addr, []byte("hello"))
	if err != nil || !strings.HasPrefix(string(got), "127.0.0.1:") || !strings.HasSuffix(string(got), " said hello") {
		t.Errorf("call: %q, %v", got, err)
	}
	if got, err := a.Call(t.Context(), a.addr, []byte("me")); err != nil || !strings.HasSuffix(string(got), "me") {
		t.Errorf("call to itself: %q, %v", got, err)
	}
	if got, err := a.Call(t.Context(), b.addr, make([]byte, 1<<20)); err != nil && len(got) < 1<<20 {
		var remote *RemoteError
		if !errors.As(err, &remote) { // the answer is longer than the request and than allowed
			t.Errorf("longest call: %v", err)
		}
	}
	var remote *RemoteError
	if _, err := a.Call(t.Context(), b.addr, []byte("fail")); !errors.As(err, &remote) || len(remote.Text) != errorBytes {
		t.Errorf("failed call: %v", err)
	}
	if _, err := a.Call(t.Context(), b.addr, []byte("large")); !errors.As(err, &remote) || remote.Text != ErrTooLarge.Error() {
		t.Errorf("large answer: %v", err)
	}
	if _, err := a.Call(t.Context(), b.addr, make([]byte, 1<<20+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large request: %v", err)
	}
	b.stop()
	if _, err := a.Call(t.Context(), b.addr, nil); err == nil {
		t.Error("a call to nobody was answered")
	}
}

func TestCallHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		l := mem.listen(t) // accepts nothing that it then answers
		a := start(t, mem, 1, nil)
		began := time.Now()
		go func() {
			c, _ := l.Accept()
			io.Copy(io.Discard, c)
		}()
		if _, err := a.Call(t.Context(), l.Addr().String(), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call: %v", err)
		}
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("took %v", d)
		}
		a.stop()
	})
}
