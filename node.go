package concord

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/kv"
)

// Node is one member. It implements [kv.Store] and [kv.Cluster]; all methods may
// be called concurrently. After Close, and after the member has failed, calls
// return [kv.ErrClosed].
type Node struct {
	// Set by Open, then read only.
	cfg       config
	log       *slog.Logger
	id        kv.MemberID
	disk      disk
	machine   *machine.Machine
	replica   *replica.Replica
	transport *transport.Transport // nil for a member that is alone
	circle    *circle              // nil for one that does not look for others
	closers   []closer
	stop      stops

	watches watches
	logins  logins
	figures *figures
	service service

	// done is closed when the member has ended, after closing.failed was
	// written.
	done chan struct{}

	closing struct {
		once        sync.Once
		err, failed error
		// left is set while the member leaves its cluster, and after that.
		left atomic.Bool
		// killed says that nobody is told of the end, see package lab.
		killed atomic.Bool
	}
}

// stops end what runs; each is nil before it does.
type stops struct{ loops, transport context.CancelFunc }

var (
	_ kv.Store   = (*Node)(nil)
	_ kv.Cluster = (*Node)(nil)
)

// closer is something that Open opened.
type closer struct {
	what  string
	close func() error
}

// onClose has Close call f, before everything registered earlier.
func (n *Node) onClose(what string, f func() error) {
	n.closers = append(n.closers, closer{what, f})
}

// start runs the member's loops until its end, which an error of one of them
// brings about.
func (n *Node) start(loops ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	n.stop.loops = cancel
	var group sync.WaitGroup
	var once sync.Once
	for _, loop := range loops {
		group.Go(func() {
			err := loop(ctx)
			if err != nil && !errors.Is(err, context.Canceled) && !(n.closing.left.Load() && errors.Is(err, ErrRemoved)) {
				once.Do(func() { n.closing.failed = err })
				n.figures.events.ended(err)
				n.log.Error("member ends", "error", err)
				cancel()
			}
		})
	}
	go func() {
		group.Wait()
		if n.stop.transport != nil {
			n.stop.transport() // others see at once that this member is gone
		}
		close(n.done)
		n.service.end(false)
	}()
}

// Done is closed when the member has ended: by Close, or because it cannot go
// on. [Node.Err] then says why.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err is nil until Done is closed, and after Close. Else it is what ended the
// member, such as a failed disk.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.closing.failed
	default:
		return nil
	}
}

// Ready returns when the member serves linearizable reads: it belongs to a
// cluster that has a leader, and has caught up with it. It does not wait for a
// member that was set aside: that ends with [kv.ErrSetAside].
func (n *Node) Ready(ctx context.Context) error {
	for {
		err := n.barrier(ctx, kv.Strong)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		select {
		case <-n.done:
			return errors.Join(kv.ErrClosed, n.closing.failed)
		default:
		}
		if kv.CodeOf(err) != kv.Unavailable && !errors.Is(err, kv.ErrOverloaded) || errors.Is(err, kv.ErrSetAside) {
			return err
		}
		select { // where no leader is known, that is said at once
		case <-ctx.Done():
		case <-n.done:
		case <-time.After(n.cfg.heartbeat):
		}
	}
}

// handOver is how long Close waits for another member to take leadership over.
const handOver = 500 * time.Millisecond

// Close ends the member and gives everything back. A leader hands leadership
// over first. What was acknowledged is durable already; calls under way get an
// error. Later calls of Close return what the first did.
func (n *Node) Close() error {
	n.closing.once.Do(func() {
		if n.stop.loops != nil {
			n.resign()
			n.stop.loops()
			<-n.done
		}
		var errs []error
		for i := len(n.closers) - 1; i >= 0; i-- {
			c := n.closers[i]
			if err := c.close(); err != nil {
				errs = append(errs, fmt.Errorf("close %s: %w", c.what, err))
			}
		}
		n.closing.err = errors.Join(errs...)
	})
	return n.closing.err
}

// resign gives leadership to another member, if there is one to take it.
func (n *Node) resign() {
	if n.closing.killed.Load() {
		return
	}
	if s := n.replica.Status(); n.transport == nil || s.Role != replica.Leader || len(s.Voters) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOver)
	defer cancel()
	if err := n.replica.TransferLeader(ctx, 0); err != nil {
		n.log.Info("leadership not handed over", "error", err)
	}
}
