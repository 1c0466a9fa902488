// Package lab is the door by which package concordtest puts a member into
// surroundings of its own: a disk in memory, a network that can be cut, a clock,
// and an end without a goodbye. A [Lab] travels in the context that a member is
// opened with, so that none of it is an option that programs could use.
//
// Source: the idea is that of internal/nettrace in Go's standard library.
package lab

import (
	"context"
	"net"

	"github.com/concord-kv/concord/internal/vfs"
)

// Lab is what one member has around it instead of the machine that it runs on.
// Zero fields mean the machine's. One goroutine opens the member.
type Lab struct {
	Files vfs.FS
	// Dial connects to another member's address, instead of the network. TLS,
	// where the members speak it, is spoken on what it returns.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Now is monotonic time in nanoseconds.
	Now func() int64
	// Member is set when the member was opened.
	Member Member
}

// Member is what only a lab can do to a member.
type Member interface {
	// Kill ends the member as the end of its process would: it hands nothing
	// over and tells nobody. It returns when all of it has ended.
	Kill() error
	// ClusterTime is the cluster's time in milliseconds, and whether this
	// member leads and so may say it.
	ClusterTime() (ms int64, leads bool)
	// AdvanceTo brings cluster time to ms or later, unless it is there already,
	// and returns when the log has it and nothing is left that ends by then.
	// The error is kv.ErrNotLeader where another member leads.
	AdvanceTo(ctx context.Context, ms int64) error
	// Settled reports whether this member leads, and no change of the membership
	// is under way: half of one needs majorities of both halves.
	Settled(ctx context.Context) bool
}

type key struct{}

// With has members that are opened with the context be in l.
func With(ctx context.Context, l *Lab) context.Context { return context.WithValue(ctx, key{}, l) }

// From returns the lab that a context carries, or nil.
func From(ctx context.Context) *Lab {
	l, _ := ctx.Value(key{}).(*Lab)
	return l
}
