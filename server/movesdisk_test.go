package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/certstest"
	"github.com/concord-kv/concord/internal/lab"
	"github.com/concord-kv/concord/internal/loopback"
	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// sick is a disk that does not finish its writes, or takes no snapshots, while
// it is told so.
type sick struct {
	vfs.Mem
	hangs, refuses, holds atomic.Bool
	heals, goesOn         chan struct{}
}

func (d *sick) hook(op vfs.Op) error {
	switch {
	case op.Kind == vfs.OpSync && d.hangs.Load():
		<-d.heals
	case op.Kind == vfs.OpWrite && d.holds.Load() && strings.Contains(op.Name, "snap"):
		<-d.goesOn
	case d.refuses.Load() && strings.Contains(op.Name, "snap"):
		return syscall.EIO
	}
	return nil
}

// disks are some that hang, fail and are full.
func disks(l *lookout) {
	d := &sick{heals: make(chan struct{}), goesOn: make(chan struct{})}
	d.Hook = d.hook
	ctx := lab.With(l.Context(), &lab.Lab{Files: d})
	n := l.open(ctx, "/data", concord.SnapshotEvery(256<<10), concord.Timing(20*time.Millisecond, 200*time.Millisecond))
	must(struct{}{}, n.Ready(ctx))(l.T)
	d.refuses.Store(true)
	for i := range 20 {
		must(n.Put(ctx, fmt.Sprint(i), strings.Repeat("x", 64<<10)))(l.T)
	}
	l.until("concord_snapshot_errors_total")
	d.refuses.Store(false)
	// A snapshot that cannot be written holds the table of keys, which grows
	// meanwhile. (It may hold back a compaction too, of which nothing is kept then.)
	d.holds.Store(true)
	for end, i := time.Now().Add(30*time.Second), 0; !l.moved["concord_state_pinned_bytes"] && time.Now().Before(end); l.look() {
		must(n.Put(ctx, "a", strings.Repeat("y", 512<<10)))(l.T)
		var rev kv.Revision
		for last := 2*i + 1024; i < last; i++ {
			rev = must(n.Put(ctx, fmt.Sprint("more", i), "y"))(l.T).Revision
		}
		must(n.Compact(ctx, rev))(l.T)
	}
	d.holds.Store(false)
	close(d.goesOn)
	d.hangs.Store(true)
	var call sync.WaitGroup
	call.Go(func() { _, _ = n.Put(ctx, "late", "x") })
	l.until("concord_disk_stalled", "concord_disk_stalls_total")
	d.hangs.Store(false)
	close(d.heals)
	call.Wait()

	small := new(vfs.Mem)
	small.Capacity = 40 << 20
	n = l.open(lab.With(l.Context(), &lab.Lab{Files: small}), "/data")
	must(struct{}{}, n.Ready(ctx))(l.T)
	for i := range 200 {
		if _, err := n.Put(ctx, fmt.Sprint(i), strings.Repeat("x", 512<<10)); err != nil {
			break
		}
	}
	l.until("concord_disk_full")
}

// secured is a server with a certificate, and metrics without.
func secured(l *lookout) {
	n := must(concord.Open(l.Context(), l.TempDir()))(l.T)
	l.Cleanup(func() { _ = n.Close() })
	certificate, _ := certstest.New(l.T, "test")
	plain := must(net.Listen("tcp", "127.0.0.1:0"))(l.T)
	l.serve(n, server.Config{
		Listeners: []net.Listener{server.Listen(plain, nil, server.OnlyHealth)}, Addrs: []string{"127.0.0.1:0"},
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate}},
	})
	l.until("concord_certificate_expiry_timestamp_seconds")
}

// nonsense is what one says who has a member's place and does not speak its
// language.
func nonsense(l *lookout) {
	peers := map[string]string{}
	for _, name := range []string{"n1", "n2"} {
		addr, release, err := loopback.Reserve()
		if err != nil {
			l.Fatal(err)
		}
		l.Cleanup(release)
		peers[name] = addr
	}
	var opening sync.WaitGroup
	var other *concord.Node
	opening.Go(func() {
		var err error
		if other, err = concord.Open(l.Context(), l.TempDir(), concord.Name("n2"), concord.Peers(peers["n2"], peers)); err != nil {
			l.Error(err)
		}
	})
	n := l.open(l.Context(), l.TempDir(), concord.Name("n1"), concord.Peers(peers["n1"], peers))
	opening.Wait()
	if l.Failed() {
		return
	}
	must(struct{}{}, n.Ready(l.Context()))(l.T)
	cluster, id, _ := n.Identity()
	_, theirs, _ := other.Identity()
	must(struct{}{}, other.Close())(l.T)
	babble(l, transport.Config{ID: uint64(theirs), Cluster: uint64(cluster)}, uint64(id), peers["n1"])
}

// babble takes the place of the member me and talks to another.
func babble(l *lookout, me transport.Config, to uint64, addr string) {
	me.Listener, me.Handler = must(net.Listen("tcp", "127.0.0.1:0"))(l.T), deaf{}
	me.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	t := transport.New(me)
	ctx, cancel := context.WithCancel(l.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = t.Run(ctx) })
	t.SetPeer(to, addr)
	const bad = "concord_peer_bad_messages_total"
	for end := time.Now().Add(30 * time.Second); !l.moved[bad] && time.Now().Before(end); l.look() {
		t.Send(to, transport.Control, []byte("good morning"))
	}
	if !l.moved[bad] {
		l.Errorf("nobody heard: %+v", t.Peers())
	}
	cancel()
	running.Wait()
}

// deaf does nothing with what it is told.
type deaf struct{}

func (deaf) Receive(uint64, transport.Channel, []byte)     {}
func (deaf) ReceiveStream(uint64, []byte, io.Reader) error { return nil }
func (deaf) ReceiveCall(string, []byte) ([]byte, error)    { return nil, nil }
func (deaf) PeerUp(uint64)                                 {}
func (deaf) PeerDown(uint64)                               {}
