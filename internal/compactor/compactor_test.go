package compactor

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// member writes one revision of 10 bytes a second, and keeps the compactions
// proposed.
type member struct {
	began     time.Time
	follows   bool
	age       time.Duration
	bytes     int64
	watched   kv.Revision
	err       error
	compacted []kv.Revision
}

func (m *member) current() kv.Revision { return kv.Revision(time.Since(m.began) / time.Second) }

func (m *member) Leading() (kv.Term, time.Duration, bool) { return 5, 0, !m.follows }
func (m *member) ClusterTime() kv.Time                    { return kv.Time(time.Since(m.began).Milliseconds()) }
func (m *member) Retention() (time.Duration, int64)       { return m.age, m.bytes }
func (m *member) RevisionAt(t kv.Time) kv.Revision        { return kv.Revision(max(0, t/1000)) }
func (m *member) RevisionWithin(bytes int64) kv.Revision {
	return max(0, m.current()-kv.Revision(bytes/10))
}

func (m *member) CompactRevision() kv.Revision {
	if len(m.compacted) == 0 {
		return 0
	}
	return m.compacted[len(m.compacted)-1]
}

func (m *member) ProposeLocal(_ context.Context, term kv.Term, command []byte) (any, error) {
	if term != 5 {
		return nil, errors.New("wrong term")
	}
	if m.err == nil {
		m.compacted = append(m.compacted, kv.Revision(binary.BigEndian.Uint64(command)))
	}
	return nil, m.err
}

// run lets a Compactor work until d after the member began.
func run(t *testing.T, m *member, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithDeadline(context.Background(), m.began.Add(d+time.Millisecond))
	defer cancel()
	c := New(Config{Leader: m, History: m, Watched: func() kv.Revision { return m.watched }, Encode: func(dst []byte, rev kv.Revision) []byte {
		return binary.BigEndian.AppendUint64(dst, uint64(rev))
	}})
	if err := c.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), age: 10 * time.Second, bytes: 1 << 30}
		run(t, m, 10*time.Second)
		if len(m.compacted) != 0 {
			t.Fatalf("compacted at %v", m.compacted)
		}
		run(t, m, 13*time.Second)
		if !slices.Equal(m.compacted, []kv.Revision{1, 2, 3}) {
			t.Fatalf("compacted at %v", m.compacted)
		}
	})
}

// Watchers hold up compaction by age, but not by size.
func TestSparesWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), age: 10 * time.Second, bytes: 200, watched: 4}
		run(t, m, 24*time.Second)
		if got := m.CompactRevision(); got != 4 {
			t.Fatalf("compacted at %d", got)
		}
		run(t, m, 30*time.Second)
		if got := m.CompactRevision(); got != 10 {
			t.Fatalf("compacted at %d", got)
		}
		m.watched = 0
		run(t, m, 31*time.Second)
		if got := m.CompactRevision(); got != 21 {
			t.Fatalf("compacted at %d", got)
		}
	})
}

func TestFollowerAndFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{began: time.Now(), follows: true}
		run(t, m, 20*time.Second)
		m.follows, m.err = false, kv.ErrNotLeader
		run(t, m, 25*time.Second)
		if len(m.compacted) != 0 {
			t.Fatalf("compacted at %v", m.compacted)
		}
		m.err = nil
		run(t, m, 26*time.Second)
		if got := m.CompactRevision(); got != 26 {
			t.Fatalf("compacted at %d", got)
		}
	})
}
