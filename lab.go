package concord

import (
	"context"
	"net"
	"time"

	"github.com/concord-kv/concord/internal/lab"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/kv"
)

// site is a member's disk and memory, and the rest of its lab when it is in one;
// see package lab.
type site struct {
	fs     vfs.FS
	lab    lab.Lab
	limit  int64        // of memory; 0 is none
	heap   func() int64 // in tests, what the process takes besides the state
	memory *memory      // made by Open
}

// enter puts the member into the lab that ctx carries, if there is one.
func (s *site) enter(ctx context.Context) {
	if l := lab.From(ctx); l != nil {
		s.lab = *l
		if l.Files != nil {
			s.fs = l.Files
		}
	}
}

// dialTimeout bounds making a connection to another member.
const dialTimeout = 5 * time.Second

// reach makes a connection to another member.
func (s *site) reach(ctx context.Context, addr string) (net.Conn, error) {
	if s.lab.Dial != nil {
		return s.lab.Dial(ctx, addr)
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	return dialer.DialContext(ctx, "tcp", addr)
}

// labMember is a member as its lab sees it.
type labMember struct{ *Node }

var _ lab.Member = labMember{}

// Kill implements lab.Member.
func (m labMember) Kill() error {
	m.closing.killed.Store(true)
	return m.Close()
}

// ClusterTime implements lab.Member.
func (m labMember) ClusterTime() (ms int64, leads bool) {
	l := m.replica.Leadership()
	return l.Time, l.Term != 0
}

// Settled implements lab.Member.
func (m labMember) Settled(ctx context.Context) bool {
	p, err := m.replica.Peers(ctx)
	return err == nil && p.Term != 0 && !p.Changing
}

// advanceLook is how often AdvanceTo looks whether all has ended that is due.
const advanceLook = time.Millisecond

// AdvanceTo implements lab.Member. Whoever leads next counts on from what the
// log has; the lessor ends what is due.
func (m labMember) AdvanceTo(ctx context.Context, ms int64) error {
	for {
		lead := m.replica.Leadership()
		if lead.Term == 0 {
			return kv.ErrNotLeader
		}
		if lead.Time < ms {
			m.replica.AdvanceTime(ms)
		}
		if m.Status().Time < kv.Time(ms) { // a command without effect, for its stamp
			l := leader(m)
			if _, err := l.ProposeLocal(ctx, kv.Term(lead.Term), machine.EncodeSettings(nil, machine.SettingsChange{})); err != nil {
				return err
			}
		}
		if m.Status().Time >= kv.Time(ms) && m.machine.NextDeadline() > kv.Time(ms) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.done:
			return kv.ErrClosed
		case <-time.After(advanceLook):
		}
	}
}
