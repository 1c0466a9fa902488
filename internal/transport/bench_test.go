package transport

import (
	"io"
	"net"
	"testing"
)

// BenchmarkPingPong is the time of a 64-byte message to a peer and back.
func BenchmarkPingPong(b *testing.B) {
	back := make(chan struct{}, 1)
	var x, y *node
	x = start(b, loopback{}, 1, func(_ *Config, r *recorder) {
		r.receive = func(uint64, Channel, []byte) { back <- struct{}{} }
	})
	y = start(b, loopback{}, 2, func(_ *Config, r *recorder) {
		r.receive = func(from uint64, ch Channel, p []byte) { y.Send(from, ch, p) }
	})
	x.SetPeer(2, y.addr)
	y.SetPeer(1, x.addr)
	x.want(b, true, 2)
	y.want(b, true, 1)
	payload := make([]byte, 64)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if !x.Send(2, Control, payload) {
			b.Fatal("not sent")
		}
		<-back
	}
}

// BenchmarkRawPingPong is the floor of BenchmarkPingPong: two goroutines and a
// TCP connection.
func BenchmarkRawPingPong(b *testing.B) {
	here, there := tcpPair(b)
	go io.Copy(there, struct{ io.Reader }{there})
	p := make([]byte, 64)
	for b.Loop() {
		if _, err := here.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(here, p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMessages is the flow one way, in messages of a size.
func BenchmarkMessages(b *testing.B) {
	for name, size := range map[string]int{"64B": 64, "1KiB": 1 << 10, "64KiB": 64 << 10, "1MiB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			const window = 4 << 20
			free := make(chan struct{}, max(window/size, 1))
			x := start(b, loopback{}, 1, nil)
			y := start(b, loopback{}, 2, func(_ *Config, r *recorder) {
				r.receive = func(uint64, Channel, []byte) { <-free }
			})
			x.SetPeer(2, y.addr)
			x.want(b, true, 2)
			payload := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				free <- struct{}{}
				if !x.Send(2, Append, payload) {
					b.Fatal("not sent")
				}
			}
			for len(free) > 0 {
				if x.Peers()[0].Connected {
					continue
				}
				b.Fatal("lost")
			}
		})
	}
}

// BenchmarkRawStream is the floor: 64 KiB writes into a TCP connection.
func BenchmarkRawStream(b *testing.B) {
	here, there := tcpPair(b)
	go func() {
		for buf := make([]byte, 256<<10); ; {
			if _, err := there.Read(buf); err != nil {
				return
			}
		}
	}()
	p := make([]byte, 64<<10)
	b.SetBytes(64 << 10)
	for b.Loop() {
		if _, err := here.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSendStream(b *testing.B) {
	x := start(b, loopback{}, 1, nil)
	y := start(b, loopback{}, 2, func(_ *Config, r *recorder) {
		r.stream = func(_ uint64, _ []byte, in io.Reader) error {
			for buf := make([]byte, 256<<10); ; {
				if _, err := in.Read(buf); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
			}
		}
	})
	x.SetPeer(2, y.addr)
	x.want(b, true, 2)
	p := make([]byte, 64<<10)
	b.SetBytes(64 << 10)
	b.ResetTimer()
	err := x.SendStream(b.Context(), 2, nil, func(w io.Writer) error {
		for b.Loop() {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

func tcpPair(b *testing.B) (here, there net.Conn) {
	l := loopback{}.listen(b)
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	there, err = l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { here.Close(); there.Close() })
	return here, there
}
