package replica

import (
	"cmp"
	"math"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Peers is what a leader knows of the other members of its configuration.
type Peers struct {
	// Term is the one that this member leads; 0 where it does not lead or has
	// not applied an entry of its own, and then the rest is empty.
	Term uint64
	// Changing says that no change of the configuration can be proposed now,
	// because one is under way, or a transfer of leadership.
	Changing bool
	List     []Peer
}

// Peer is one of them.
type Peer struct {
	ID uint64
	// Silent is for how long nothing was heard of it while this process ran,
	// since it leads.
	Silent time.Duration
	// Behind counts the committed entries that it is not known to have, and
	// CaughtUp says that they are few enough for it to vote.
	Behind   uint64
	CaughtUp bool
}

// Peers answers at once, as of the last Step.
func (c *Core) Peers() (p Peers) {
	if c.state.LeaderSince == 0 || c.state.Stalled {
		return p
	}
	p.Term = c.state.Term
	p.Changing = c.intake.change != nil || c.state.Applied < c.conf.pending || c.conf.joint() || c.conf.transferring
	c.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id != c.id {
			behind := c.state.Commit - min(pr.Match, c.state.Commit)
			p.List = append(p.List, Peer{ID: id, Silent: c.silent(id), Behind: behind, CaughtUp: c.upToDate(id, &pr)})
		}
	})
	slices.SortFunc(p.List, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	return p
}

// contacts are when the other members were heard of, by a clock that stands
// still while the process does: after a pause nobody has been silent for long.
type contacts struct {
	skipped int64 // of the replica's time, while the process did not run
	began   int64 // to lead
	last    map[uint64]int64
}

// maxContacts bounds contacts, because anyone might send a message.
const maxContacts = 1 << 12

func (c *Core) awake() int64 { return c.now - c.contacts.skipped }

// hear notes that a member lives.
func (c *Core) hear(id uint64) {
	if c.contacts.last == nil {
		c.contacts.last = map[uint64]int64{}
	}
	if len(c.contacts.last) < maxContacts {
		c.contacts.last[id] = c.awake()
	}
}

// silent is for how long nothing was heard of a member. Beyond an election
// timeout a leader counts its own time only: what its predecessor heard it does
// not know.
func (c *Core) silent(id uint64) time.Duration {
	now, own := c.awake(), int64(math.MaxInt64)
	if last, ever := c.contacts.last[id]; ever {
		own = now - last
	}
	return time.Duration(min(own, max(now-c.contacts.began, int64(c.opt.Election))))
}

// inContact reports whether a member was heard of within an election timeout.
func (c *Core) inContact(id uint64) bool { return c.silent(id) < c.opt.Election }

// keepContacts follows a change of the configuration: who is new counts from
// now, as out of contact; who is gone is forgotten.
func (c *Core) keepContacts() {
	cs, old := c.conf.state, c.contacts.last
	c.contacts.last = map[uint64]int64{}
	for _, ids := range [...][]uint64{cs.GetVoters(), cs.GetLearners(), cs.GetVotersOutgoing()} {
		for _, id := range ids {
			if at, ever := old[id]; ever {
				c.contacts.last[id] = at
			} else {
				c.contacts.last[id] = c.awake() - int64(c.opt.Election)
			}
		}
	}
}

// upToDate reports whether a learner could vote without holding up commits: it
// is at most a few entries behind, as many as may be under way.
func (c *Core) upToDate(id uint64, pr *tracker.Progress) bool {
	const behind = 16
	return c.inContact(id) && pr.State == tracker.StateReplicate && pr.Match+behind >= c.state.Commit
}

// caughtUp is upToDate for a member that may not be there.
func (c *Core) caughtUp(id uint64) bool {
	ok := false
	c.node.WithProgress(func(peer uint64, _ raft.ProgressType, pr tracker.Progress) {
		ok = ok || peer == id && c.upToDate(id, &pr)
	})
	return ok
}

// mostCaughtUp returns the voter, besides this member, with the longest log, of
// those in contact if there are any.
func (c *Core) mostCaughtUp() uint64 {
	best, active, match := raft.None, false, uint64(0)
	c.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == c.id || pr.IsLearner || !c.conf.isVoter(id) {
			return
		}
		if here := c.inContact(id); best == raft.None || here && !active || here == active && pr.Match > match {
			best, active, match = id, here, pr.Match
		}
	})
	return best
}

// notLeading marks that no entry of an own term is in the log.
const notLeading = math.MaxUint64
