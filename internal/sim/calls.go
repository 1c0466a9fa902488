package sim

import (
	"errors"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/kv"
)

// waiter is a call that waits for its command to be applied.
type waiter func(res any, err error)

// calls are the proposals under way on one member: what Replica.Propose keeps.
type calls struct {
	seq     uint64
	open    *replica.Group // gathers calls until the core wants them
	waiters []waiter       // of open
	waiting map[uint64][]waiter
	failed  map[uint64]error // groups that were given up
	groups  map[uint64]replica.Group
	locals  []localCall

	// changes of the membership under way.
	changeID uint64
	changes  map[uint64]waiter
	tending  bool // one of the steward's is
}

// localCall is a proposal that only the leader of its term may make.
type localCall struct {
	group *replica.Group
	done  waiter
}

// propose takes a call. An error that says that nothing was done is believed:
// if the command is applied after all, there were more of it than tries.
func (n *node) propose(cmd *command, answer waiter) {
	life := n.life
	cmd.tries++
	done := func(res any, err error) {
		if isRefusal(err) {
			if cmd.tries--; cmd.applied > cmd.tries {
				violate("%s answers that nothing was done (%v), but it was: %s", n, err, describe(cmd))
			}
		}
		answer(res, err)
	}
	n.w.loop.after(n.w.net.opt.floor, func() {
		n.do(life, func() {
			c := &n.proc.calls
			if n.state.Leaderless {
				done(nil, outcome(replica.ErrNoLeader))
				return
			}
			if c.open == nil {
				c.open = &replica.Group{}
			}
			c.open.Add(cmd.bytes)
			c.waiters = append(c.waiters, done)
			n.proc.wake()
		})
	})
}

// proposeLocal takes a decision of the leader of term.
func (p *process) proposeLocal(term uint64, cmd *command) {
	g := &replica.Group{Term: term}
	g.Add(cmd.bytes)
	cmd.tries++
	p.calls.locals = append(p.calls.locals, localCall{g, func(any, error) {}})
	p.wake()
}

// leadership tells the term that this member leads and cluster time now, once
// it has led for an election timeout: before that it decides no expiry.
func (p *process) leadership() (term kv.Term, now kv.Time, ok bool) {
	s := &p.n.state
	if s.LeaderSince == 0 || s.Stalled || p.n.now()-s.LeaderSince < int64(p.n.w.opt.election) {
		return 0, 0, false
	}
	return kv.Term(s.Term), kv.Time(s.ClusterTime(p.n.now())), true
}

// wake lets the core have a turn.
func (p *process) wake() {
	if !p.turning {
		p.turning = true
		p.after(0, p.turn)
	}
}

// propose hands the core what waits, as far as it wants it.
func (p *process) propose() {
	c := &p.calls
	for _, l := range c.locals {
		p.give(l.group, []waiter{l.done})
	}
	c.locals = nil
	if p.n.state.Leaderless {
		waiters := c.waiters
		c.open, c.waiters = nil, nil
		for _, done := range waiters {
			done(nil, outcome(replica.ErrNoLeader))
		}
	}
	if c.open != nil && c.open.Count > 0 && p.core.Wants(c.open.Count, int64(len(c.open.Data))) {
		p.give(c.open, c.waiters)
		c.open, c.waiters = nil, nil
	}
}

func (p *process) give(g *replica.Group, waiters []waiter) {
	c := &p.calls
	c.seq++
	g.Seq = c.seq
	if c.waiting == nil {
		c.waiting, c.failed, c.groups = map[uint64][]waiter{}, map[uint64]error{}, map[uint64]replica.Group{}
	}
	c.waiting[g.Seq] = waiters
	if p.n.w.bug().shell.blindRetry {
		c.groups[g.Seq] = *g
	}
	p.step(replica.Input{Kind: replica.InputPropose, Group: g})
}

// resolve answers the callers of a group that this member has applied.
func (p *process) resolve(r replica.Result) {
	c := &p.calls
	if r.Change {
		if done := c.changes[r.Seq]; done != nil {
			delete(c.changes, r.Seq)
			done(split(r.Values[0]))
		}
		return
	}
	waiters := c.waiting[r.Seq]
	if err := c.failed[r.Seq]; errors.Is(err, replica.ErrUnknown) {
		return // it was in a snapshot's gap, as far as the core could know
	} else if err != nil {
		violate("%s: group %d is applied after its callers were told: %v", p.n, r.Seq, err)
	}
	if waiters == nil {
		violate("%s: group %d is answered twice", p.n, r.Seq)
	}
	delete(c.waiting, r.Seq)
	if len(waiters) != len(r.Values) {
		violate("%s: %d results for %d calls", p.n, len(r.Values), len(waiters))
	}
	for i, done := range waiters {
		done(split(r.Values[i]))
	}
}

// split tells a result from an error that the machine gave as one.
func split(v any) (any, error) {
	if err, ok := v.(error); ok {
		return nil, err
	}
	return v, nil
}

// answer ends requests that failed, and starts reads that may be served.
func (p *process) answer(a replica.Answer) {
	switch a.Kind {
	case replica.AnswerGroup:
		waiters := p.calls.waiting[a.ID]
		delete(p.calls.waiting, a.ID)
		p.calls.failed[a.ID] = a.Err
		if p.n.w.bug().shell.blindRetry && errors.Is(a.Err, replica.ErrUnknown) {
			p.give(&replica.Group{Count: p.calls.groups[a.ID].Count, Data: p.calls.groups[a.ID].Data}, waiters)
			return
		}
		for _, done := range waiters {
			done(nil, outcome(a.Err))
		}
	case replica.AnswerRead:
		p.readAnswered(a)
	case replica.AnswerConfChange:
		if done := p.calls.changes[a.ID]; done != nil {
			delete(p.calls.changes, a.ID)
			done(nil, outcome(a.Err))
		}
	}
}

// outcome says in kv's words whether something may have been done.
func outcome(err error) error {
	if errors.Is(err, replica.ErrUnknown) {
		return kv.ErrLeaderChanged
	}
	return refusal{err}
}

// refusal is an error of a replica that says that nothing was done.
type refusal struct{ error }

func isRefusal(err error) bool {
	_, ok := err.(refusal)
	return ok
}

// fail answers everybody when the process ends: connections break.
func (c *calls) fail() {
	var all []waiter
	all = append(all, c.waiters...)
	for seq := uint64(1); seq <= c.seq; seq++ {
		all = append(all, c.waiting[seq]...)
	}
	*c = calls{}
	for _, done := range all {
		done(nil, kv.ErrLeaderChanged)
	}
}

// reads are the strong reads under way on one member: what Replica.ReadIndex
// keeps. One read index is under way; who comes meanwhile joins the next.
type reads struct {
	id       uint64
	asking   []func(error)
	waiting  []func(error)
	applying []confirmed
}

// confirmed reads may be served once index is applied.
type confirmed struct {
	index uint64
	reads []func(error)
}

// read serves a range at its level.
func (n *node) read(ask *kv.Range, done waiter) {
	life := n.life
	n.w.loop.after(n.w.net.opt.floor, func() {
		n.do(life, func() {
			p := n.proc
			serve := func(err error) {
				if err != nil {
					done(nil, err)
					return
				}
				v := p.machine.View()
				defer v.Close()
				res, err := v.Range(ask)
				done(&res, err)
			}
			switch {
			case n.w.bug().shell.staleReads || ask.Level == kv.Eventual || ask.Level == kv.Leader && p.leaderRead():
				serve(nil)
			default:
				p.readIndex(serve)
			}
		})
	})
}

func (p *process) readIndex(serve func(error)) {
	p.reads.waiting = append(p.reads.waiting, serve)
	p.askIndex()
}

func (p *process) askIndex() {
	r := &p.reads
	if len(r.asking) > 0 || len(r.waiting) == 0 {
		return
	}
	r.asking, r.waiting = r.waiting, nil
	r.id++
	p.step(replica.Input{Kind: replica.InputRead, ID: r.id})
}

func (p *process) readAnswered(a replica.Answer) {
	r := &p.reads
	if a.ID != r.id {
		violate("%s: read %d is answered, but %d was asked", p.n, a.ID, r.id)
	}
	asked := r.asking
	r.asking = nil
	if a.Err != nil {
		for _, serve := range asked {
			serve(outcome(a.Err))
		}
	} else {
		r.applying = append(r.applying, confirmed{a.Index, asked})
		p.serve()
	}
	p.askIndex()
}

// serve answers the reads whose index is applied.
func (p *process) serve() {
	r := &p.reads
	for len(r.applying) > 0 && (r.applying[0].index <= p.applies.applied || p.n.w.bug().shell.earlyReads) {
		first := r.applying[0]
		r.applying = r.applying[1:]
		for _, serve := range first.reads {
			serve(nil)
		}
	}
}

// leaderRead reports whether this member holds the read lease now.
func (p *process) leaderRead() bool {
	s := &p.n.state
	if p.n.w.bug().shell.looseLease {
		return s.Role == replica.Leader && s.Caught
	}
	return s.LeaseUntil != 0 && p.applies.applied >= s.Commit && p.n.now() < s.LeaseUntil
}
