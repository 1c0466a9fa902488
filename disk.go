package concord

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// disk is what a member keeps in its data directory.
type disk struct {
	log   *diskLog
	snaps *snap.Store
	// identity is member.json; see remember.
	identity struct {
		mu   sync.Mutex
		file memberfile.File
	}
}

// snapshots is a snap.Store as the replica wants it.
type snapshots struct{ *snap.Store }

func (s snapshots) Open(index uint64) (io.ReadCloser, error) { return s.Store.Open(index) }

// diskRetry is how often a member with a full disk looks for space.
const diskRetry = time.Second

// diskLog is a wal.Log that tries, while the disk is full, to get its reserve
// back before it uses more of it.
type diskLog struct {
	*wal.Log
	events *events
	// Owned by the goroutine that appends.
	retried time.Time
}

func (l *diskLog) Append(batches ...wal.Batch) error {
	if l.NoSpace() && time.Since(l.retried) >= diskRetry {
		l.retried = time.Now()
		if err := l.Prepare(); err != nil && !errors.Is(err, wal.ErrNoSpace) {
			return err
		}
	}
	return l.events.append(l.Log, batches)
}

// checkSpace refuses what would fill a full disk further. The log's reserve is
// kept for what frees space: deletes, compactions, the end of leases.
func (n *Node) checkSpace(t *kv.Txn) error {
	if n.disk.log.NoSpace() && puts(t) {
		return kv.Errorf(kv.ResourceExhausted, "the disk of this member's data directory is full; free some of it, nothing was done: %w", kv.ErrNoSpace)
	}
	return nil
}

// puts reports whether a branch of t puts a key.
func puts(t *kv.Txn) bool {
	for _, ops := range [...][]kv.Op{t.Success, t.Failure} {
		for i := range ops {
			if ops[i].Kind == kv.OpPut || ops[i].Kind == kv.OpTxn && puts(ops[i].Txn) {
				return true
			}
		}
	}
	return false
}

// tendDisk lets a member with a full disk look for space now and then, also when
// nothing is written, and hand leadership to one that has some.
func (n *Node) tendDisk(ctx context.Context) error {
	full := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(diskRetry):
		}
		was := full
		if full = n.disk.log.NoSpace(); !full {
			if was {
				n.figures.events.disk(observe.DiskRecovered)
				n.log.Info("the disk has space again; writes are taken")
			}
			continue
		}
		if !was {
			n.figures.events.disk(observe.DiskFull)
			n.log.Error("the disk of the data directory is full; puts are refused until there is space", "dir", n.cfg.dir)
		}
		s := n.replica.Status()
		if s.Role != replica.Leader {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, diskRetry)
		if len(s.Voters) > 1 {
			_ = n.replica.TransferLeader(ctx, 0) // tried again while it is needed
		} else {
			// A command without effect makes the log look for space.
			_, _ = n.submit(ctx, nil, machine.EncodeSettings(nil, machine.SettingsChange{}))
		}
		cancel()
	}
}
