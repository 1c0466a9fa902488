package concord

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/internal/divergence"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/kv"
)

// compared is the cluster as the monitor of its leader sees it.
type compared struct{ *Node }

var _ divergence.Cluster = compared{}

// Leads implements [divergence.Cluster].
func (c compared) Leads() bool { return c.replica.Leadership().Term != 0 }

// Members implements [divergence.Cluster].
func (c compared) Members() []kv.Member { return c.machine.Members() }

// Hashes implements [divergence.Cluster].
func (c compared) Hashes(ctx context.Context, m kv.Member, at []kv.Index) (divergence.Hashes, error) {
	if m.ID == c.id {
		return *c.hashes(at), nil
	}
	reply, err := c.askMember(ctx, m, peerRequest{Hashes: &at})
	if err != nil {
		return divergence.Hashes{}, err
	}
	return *reply.Hashes, nil
}

// SetAlarm implements [divergence.Cluster]. Only the leader of the moment may.
func (c compared) SetAlarm(ctx context.Context, a kv.Alarm, raised bool) (changed bool, err error) {
	l := leader(c)
	term, _, leads := l.Leading()
	if !leads {
		return false, kv.ErrNotLeader
	}
	result, err := l.ProposeLocal(ctx, term, machine.EncodeAlarm(nil, a, raised))
	if err != nil {
		return false, err
	}
	return alarmChanged(result)
}

// hashes are those of this member's own state.
func (n *Node) hashes(at []kv.Index) *divergence.Hashes {
	newest, _ := n.machine.Hash()
	h := &divergence.Hashes{Member: n.id, Newest: kv.Index(newest), At: map[kv.Index]uint64{}}
	for _, index := range at[:min(len(at), divergence.MaxIndexes)] {
		if hash, ok := n.machine.HashAt(index); ok {
			h.At[index] = hash
		}
	}
	return h
}

// compare has this member's state compared with the others' while it leads.
func (n *Node) compare(ctx context.Context) error {
	if n.transport == nil {
		return nil
	}
	return divergence.New(divergence.Config{Cluster: compared{n}, Interval: 2 * n.cfg.election, Logger: n.log}).Run(ctx)
}

// service says whether this member serves. It does, until it ends or is set
// aside because its state is not the others'.
type service struct {
	aside atomic.Bool
	// halt is closed when the member ends or is set aside. Another takes its
	// place when it serves again.
	halt atomic.Pointer[chan struct{}]
	mu   sync.Mutex
}

// begin lets the member serve.
func (s *service) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halt.Store(new(make(chan struct{})))
	s.aside.Store(false)
}

// end ends reads and watches, for good unless aside.
func (s *service) end(aside bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside.Store(aside)
	select {
	case <-*s.halt.Load():
	default:
		close(*s.halt.Load())
	}
}

// halted is closed when watches have to end; see [Node.whyHalted].
func (n *Node) halted() <-chan struct{} { return *n.service.halt.Load() }

func (n *Node) whyHalted() error {
	select {
	case <-n.done:
		return kv.ErrClosed
	default:
		return kv.ErrSetAside
	}
}

// mayServe returns nil while the member serves.
func (n *Node) mayServe() error {
	select {
	case <-n.halted():
		return n.whyHalted()
	default:
		return nil
	}
}

// heedAlarms keeps the member from serving while the alarm stands that says that
// its state is not that of the majority.
func (n *Node) heedAlarms(ctx context.Context) error {
	alarm := kv.Alarm{Member: n.id, Type: kv.AlarmDivergent}
	for {
		changed := n.machine.Reconfigured()
		var retry <-chan time.Time
		wrong := slices.Contains(n.machine.Alarms(), alarm)
		switch aside := n.service.aside.Load(); {
		case wrong && !aside:
			n.service.end(true)
			n.log.Error("this member's state differs from that of a majority: it does not serve any more; keep its directory for whoever looks into it, and start it with --rejoin")
		case !wrong && aside:
			n.service.begin()
			n.log.Warn("this member serves again: the alarm was cleared that its state differs")
		}
		if n.recall().Divergent != wrong {
			if err := n.remember(func(f *memberfile.File) { f.Divergent = wrong }); err != nil {
				return err
			}
		}
		if wrong {
			n.stepAside(ctx)
			retry = time.After(n.cfg.election)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-retry:
		}
	}
}

// stepAside hands leadership to another member.
func (n *Node) stepAside(ctx context.Context) {
	if n.replica.Leadership().Term == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.election)
	defer cancel()
	_ = n.replica.TransferLeader(ctx, 0) // tried again while it is needed
}
