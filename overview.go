package concord

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/concord-kv/concord/kv"
)

var _ kv.Overseer = (*Node)(nil)

// overviewTime bounds how long an overview waits for another member.
const overviewTime = time.Second

// memberFigures is what a member answers when another asks how it is.
type memberFigures struct {
	Report kv.Report `json:"report"`
	Marks  []mark    `json:"marks"`
}

// measure tells how this member is.
func (n *Node) measure() *memberFigures {
	now, f := time.Now(), n.figures
	writes := f.pulse.recentWrites(&f.logWrites, minuteOfWrites)
	r := kv.Report{
		Status: n.Status(), UpTime: f.pulse.upTime(now), LogWrite: writes.Quantile(0.99),
		Resident: resident(), DiskFree: diskFree(n.cfg.dir),
		DiskFull: n.disk.log.NoSpace(), DiskStalled: n.replica.Status().Stalled,
		Processor: processorTime(), Figures: n.Figures(), Served: f.served.load(),
	}
	for _, c := range n.Conditions() {
		if c.Reason != "" {
			r.Wrong = append(r.Wrong, c)
		}
	}
	r.MemoryLimit, r.MemoryUsed, r.MemoryFull = n.cfg.memory.told()
	if n.transport != nil {
		for _, p := range n.transport.Peers() {
			r.Peers = append(r.Peers, kv.PeerReport{Member: kv.MemberID(p.ID), Connected: p.Connected, RoundTrip: p.RoundTrip, Silent: p.Silent})
		}
	}
	return &memberFigures{Report: r, Marks: f.pulse.marks(now)}
}

// Overview implements [kv.Overseer].
func (n *Node) Overview(ctx context.Context) (kv.Overview, error) {
	if err := n.Authorize(ctx, kv.AnyUser); err != nil {
		return kv.Overview{}, err
	}
	select {
	case <-n.done:
		return kv.Overview{}, kv.ErrClosed
	default:
	}
	// The newest list of members, where there is a majority that has one.
	fresh, cancel := context.WithTimeout(ctx, overviewTime/2)
	_ = n.barrier(fresh, kv.Strong)
	cancel()
	if err := ctx.Err(); err != nil {
		return kv.Overview{}, err
	}
	members := n.machine.Members()
	answers := make([]heard, len(members))
	var group sync.WaitGroup
	for i, m := range members {
		if m.ID == n.id {
			answers[i].figures = n.measure()
			continue
		}
		group.Go(func() {
			reply, err := n.askMember(ctx, m, peerRequest{Figures: true})
			answers[i] = heard{reply.Figures, err}
		})
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		return kv.Overview{}, err
	}
	o := assemble(members, answers)
	o.Cluster, o.Asked, o.Alarms = n.machine.Cluster(), n.id, n.Alarms()
	return o, nil
}

// heard is what one member said, or why it did not.
type heard struct {
	figures *memberFigures
	err     error
}

// askMember asks a member, at all its addresses at once, and takes no answer of
// another.
func (n *Node) askMember(ctx context.Context, m kv.Member, req peerRequest) (peerReply, error) {
	addrs := slices.Compact(n.peerAddrs(m))
	if len(addrs) == 0 || n.transport == nil {
		return peerReply{}, errNoAddr
	}
	ctx, cancel := context.WithTimeout(ctx, overviewTime)
	defer cancel()
	type answer struct {
		peerReply
		err error
	}
	answers := make(chan answer, len(addrs))
	for _, addr := range addrs {
		go func() {
			reply, err := n.ask(ctx, addr, req)
			switch from := reply.member(); {
			case errors.Is(err, context.DeadlineExceeded):
				err = fmt.Errorf("no answer from %s in %v", addr, overviewTime)
			case err != nil:
			case from == 0:
				err = kv.Errorf(kv.Unsupported, "it runs a version that does not tell")
			case from != m.ID:
				err = kv.Errorf(kv.FailedPrecondition, "member %v is at its address %s", from, addr)
			}
			answers <- answer{reply, err}
		}()
	}
	var errs []error
	for range addrs {
		a := <-answers
		if a.err == nil {
			return a.peerReply, nil
		}
		errs = append(errs, a.err)
	}
	return peerReply{}, errors.Join(errs...)
}

// member is who tells of itself; 0 where nobody does.
func (r *peerReply) member() kv.MemberID {
	switch {
	case r.Figures != nil:
		return r.Figures.Report.Member
	case r.Hashes != nil:
		return r.Hashes.Member
	}
	return 0
}

var errNoAddr = errors.New("no address of it is known")

// assemble puts the answers of the members together, answers[i] being that of
// members[i].
func assemble(members []kv.Member, answers []heard) (o kv.Overview) {
	reports := map[kv.MemberID]*memberFigures{}
	for i, a := range answers {
		if a.figures == nil || a.err != nil {
			continue
		}
		reports[members[i].ID] = a.figures
		if s := &a.figures.Report.Status; s.Term > o.Term || s.Term == o.Term && o.Leader == 0 {
			o.Term, o.Leader = s.Term, s.Leader
		}
	}
	leader := reports[o.Leader]
	for i, m := range members {
		view := kv.MemberOverview{Member: m}
		if leader != nil {
			view.Connected = m.ID == o.Leader
			if p := peerOf(leader, m.ID); p != nil {
				view.Connected, view.RoundTrip = p.Connected, p.RoundTrip
			}
		}
		if f := reports[m.ID]; f != nil {
			view.Report = &f.Report
			if leader != nil && leader.Report.Committed > f.Report.Applied && m.ID != o.Leader {
				view.Lag = leader.Report.Committed - f.Report.Applied
				view.Behind = behind(leader.Marks, f.Report.Applied)
			}
		} else {
			view.Err = fmt.Sprint(answers[i].err)
			view.Silent = silentFor(reports, m.ID)
		}
		o.Members = append(o.Members, view)
	}
	slices.SortFunc(o.Members, func(a, b kv.MemberOverview) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return o
}

func peerOf(f *memberFigures, id kv.MemberID) *kv.PeerReport {
	for i := range f.Report.Peers {
		if f.Report.Peers[i].Member == id {
			return &f.Report.Peers[i]
		}
	}
	return nil
}

// silentFor is how long none of those who answered has heard of a member.
func silentFor(reports map[kv.MemberID]*memberFigures, id kv.MemberID) (least time.Duration) {
	known := false
	for _, f := range reports {
		if p := peerOf(f, id); p != nil && (!known || p.Silent < least) {
			least, known = p.Silent, true
		}
	}
	return least
}
