package concord

import (
	"io"

	"github.com/concord-kv/concord/internal/snap"
)

// snapshots is a snap.Store as the replica wants it.
type snapshots struct{ *snap.Store }

func (s snapshots) Open(index uint64) (io.ReadCloser, error) { return s.Store.Open(index) }
