package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

const (
	slowReader = 5 * time.Second
	// putTime is after how long a put has failed.
	putTime = 30 * time.Second
	calm    = 3 * time.Second
)

func run(ctx context.Context, p plan) (err error) {
	dir, err := os.MkdirTemp("", "concord-siege-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := start(ctx, p, dir)
	if err != nil {
		return err
	}
	defer m.end()
	w, err := startWriters(ctx, m)
	if err != nil {
		return err
	}
	defer w.stop()
	<-time.After(calm)
	before, err := m.state()
	if err != nil {
		return err
	}
	fmt.Println("before:", before, "-", w.lap())
	s := &siege{member: m, plan: p}
	defer s.lift()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"idle connections", s.idle}, {"watchers that never read", s.watch}, {"slow headers and silence", s.headers},
		{"messages that do not come whole", s.hoard}, {"watchers are cut", s.watchersCut},
	} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w; the member said:\n%s", step.name, err, m.said())
		}
		now, err := m.state()
		if err != nil {
			return err
		}
		s.peak = max(s.peak, now.resident)
		fmt.Printf("%s: %v; %v - %s\n", step.name, time.Since(began).Round(100*time.Millisecond), now, w.lap())
		if err := w.check(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	limit, err := numberAfter(must(m.page("/metrics")), "\nconcord_memory_limit_bytes ")
	if err != nil || s.peak > int64(limit) {
		return fmt.Errorf("%d MiB were resident, of %d: %w", s.peak>>20, limit>>20, errors.Join(err))
	}
	s.lift()
	return s.after(ctx, before, w)
}

func must(text string, err error) string {
	if err != nil {
		return err.Error()
	}
	return text
}

// writers put all the time.
type writers struct {
	puts    atomic.Int64
	slowest atomic.Int64
	failed  atomic.Pointer[error]
	stop    func()
	since   time.Time
	counted int64
}

func startWriters(ctx context.Context, m *member) (*writers, error) {
	c, err := client.New(client.Config{Endpoints: []string{m.addr}, Timeout: putTime})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &writers{since: time.Now()}
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
				began := time.Now()
				if _, err := kv.Put(ctx, c, "hot", make([]byte, 1<<10)); err != nil && ctx.Err() == nil {
					w.failed.Store(&err)
					return err
				}
				w.puts.Add(1)
				for took := int64(time.Since(began)); ; {
					if most := w.slowest.Load(); took <= most || w.slowest.CompareAndSwap(most, took) {
						break
					}
				}
			}
		})
	}
	w.stop = func() {
		cancel()
		_ = group.Wait() // check has told
		_ = c.Close()    // nothing hangs on it any more
	}
	return w, nil
}

// lap tells what was put since the last lap.
func (w *writers) lap() string {
	puts, took := w.puts.Load(), time.Since(w.since)
	text := fmt.Sprintf("%.0f puts a second, the slowest %v", float64(puts-w.counted)/took.Seconds(), time.Duration(w.slowest.Load()).Round(time.Millisecond))
	w.counted, w.since = puts, time.Now()
	return text
}

func (w *writers) check() error {
	if err := w.failed.Load(); err != nil {
		return fmt.Errorf("a put failed: %w", *err)
	}
	w.slowest.Store(0)
	return nil
}

// siege is what the clients that mean no good have open.
type siege struct {
	*member
	plan    plan
	conns   []net.Conn
	grpc    []*grpc.ClientConn
	streams []pb.Watch_WatchClient
	peak    int64
}

func (s *siege) lift() {
	for _, c := range s.conns {
		_ = c.Close() // many are closed already
	}
	for _, c := range s.grpc {
		_ = c.Close() // nothing is expected of it
	}
	s.conns, s.grpc, s.streams = nil, nil, nil
}

func (s *siege) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", s.addr, 30*time.Second)
	if err == nil {
		s.conns = append(s.conns, c)
	}
	return c, err
}

// greet makes a connection of HTTP/2.
func (s *siege) greet() (net.Conn, *http2.Framer, error) {
	c, err := s.dial()
	if err != nil {
		return nil, nil, err
	}
	f := http2.NewFramer(c, nil)
	_, err = io.WriteString(c, http2.ClientPreface)
	return c, f, errors.Join(err, f.WriteSettings())
}

func (s *siege) idle(ctx context.Context) error {
	for range s.plan.idle {
		if _, _, err := s.greet(); err != nil {
			return err
		}
	}
	return eventually(ctx, func() error {
		now, err := s.state()
		if err == nil && now.sockets < s.plan.idle {
			err = fmt.Errorf("%d sockets", now.sockets)
		}
		return err
	})
}

// watch opens watchers whose windows fill, of which each has seen that it watches.
func (s *siege) watch(ctx context.Context) error {
	for range 10 {
		c, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<20))
		if err != nil {
			return err
		}
		s.grpc = append(s.grpc, c)
	}
	for i := range s.plan.watchers {
		w, err := pb.NewWatchClient(s.grpc[i%len(s.grpc)]).Watch(ctx)
		if err != nil {
			return err
		}
		create := &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("hot")}}
		if err := w.Send(&pb.WatchRequest{RequestUnion: create}); err != nil {
			return err
		}
		if _, err := w.Recv(); err != nil {
			return err
		}
		s.streams = append(s.streams, w)
	}
	return nil
}

// watchersCut sees that each watcher has been ended, with the error that is
// documented.
func (s *siege) watchersCut(ctx context.Context) error {
	<-time.After(2 * slowReader)
	for i, w := range s.streams {
		for {
			_, err := w.Recv()
			if err == nil {
				continue // what was sent before
			}
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "does not read") {
				return fmt.Errorf("watcher %d: %w", i, err)
			}
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// headers opens connections that are silent, and ones that send a byte a second,
// and waits until all are cut.
func (s *siege) headers(ctx context.Context) error {
	var group errgroup.Group
	var first, last atomic.Int64
	first.Store(int64(time.Hour))
	for i := range 2 * s.plan.slow {
		c, err := s.dial()
		if err != nil {
			return err
		}
		group.Go(func() error {
			began := time.Now()
			if i%2 == 0 {
				go func() {
					for _, b := range []byte("GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + strings.Repeat("x", 100)) {
						if _, err := c.Write([]byte{b}); err != nil {
							return // cut, which is what is waited for
						}
						select {
						case <-ctx.Done():
						case <-time.After(time.Second):
						}
					}
				}()
			}
			if err := c.SetReadDeadline(began.Add(time.Minute)); err != nil {
				return err
			}
			_, err := io.Copy(io.Discard, c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("a slow one is not cut in a minute")
			}
			took := int64(time.Since(began))
			for now := first.Load(); took < now && !first.CompareAndSwap(now, took); now = first.Load() {
			}
			for now := last.Load(); took > now && !last.CompareAndSwap(now, took); now = last.Load() {
			}
			return nil
		})
	}
	err := group.Wait()
	fmt.Printf("  %d were cut after %v to %v\n", 2*s.plan.slow, time.Duration(first.Load()).Round(time.Millisecond), time.Duration(last.Load()).Round(time.Millisecond))
	return err
}

// hoard sends most of messages, on many streams, as far as their windows go.
func (s *siege) hoard(ctx context.Context) error {
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/etcdserverpb.KV/Put"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			return err
		}
	}
	data := make([]byte, 16<<10)
	var sent int64
	for range s.plan.hoarders {
		c, f, err := s.greet()
		if err != nil {
			return err
		}
		if err := c.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		go func() { _, _ = io.Copy(io.Discard, c) }() // until it is cut
		for id := uint32(1); id < 32 && err == nil; id += 2 {
			err = errors.Join(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(block.String()), EndHeaders: true}),
				f.WriteData(id, false, []byte{0, 0, 16, 0, 0}))
			for i := 0; i < 15 && err == nil; i++ {
				if err = f.WriteData(id, false, data); err == nil {
					sent += int64(len(data))
				}
			}
		}
		if now, err := s.state(); err == nil {
			s.peak = max(s.peak, now.resident)
		}
	}
	var cut int
	err := eventually(ctx, func() (err error) {
		page, err := s.page("/metrics")
		if err == nil {
			cut, err = numberAfter(page, `concord_limit_hits_total{limit="arriving"} `)
		}
		return err
	})
	fmt.Printf("  %d MiB were sent and never a message, %d connections were cut; at most %d MiB were resident\n", sent>>20, cut, s.peak>>20)
	return err
}

// after waits until the process is as it was.
func (s *siege) after(ctx context.Context, before state, w *writers) error {
	began := time.Now()
	var now state
	err := eventually(ctx, func() (err error) {
		if now, err = s.state(); err == nil && (now.sockets > before.sockets+2 || now.goroutines > before.goroutines+50) {
			err = fmt.Errorf("it does not become as it was, %v: %v", before, now)
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("after: %v; %v - %s\n", time.Since(began).Round(100*time.Millisecond), now, w.lap())
	return w.check()
}
