// Package divergence is the leader's duty to compare the members' states. Every
// member keeps a running hash over the effects of each entry; at one index all
// have the same one. [Judge] says who is wrong where they have not, as a function
// of the hashes at one index; a [Monitor] asks for them, and raises and clears the
// alarms that keep a member, or the cluster, from serving what is wrong.
package divergence

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Cluster is what a Monitor needs of its member.
type Cluster interface {
	// Leads tells whether this member is the leader.
	Leads() bool
	// Members are those of the cluster, this one too.
	Members() []kv.Member
	// Hashes asks a member for its running hashes at these indexes. Several
	// goroutines call it at once.
	Hashes(ctx context.Context, m kv.Member, at []kv.Index) (Hashes, error)
	// Alarms are those that stand, and SetAlarm raises or clears one.
	Alarms() []kv.Alarm
	SetAlarm(ctx context.Context, a kv.Alarm, raised bool) (changed bool, err error)
}

// Hashes is what a member tells of its state.
type Hashes struct {
	// Member is who tells.
	Member kv.MemberID `json:"member"`
	// Newest is the last entry that it has applied.
	Newest kv.Index `json:"newest"`
	// At has the hashes that it was asked for and still knows.
	At map[kv.Index]uint64 `json:"at,omitempty"`
}

// Split is the alarm of a cluster whose members differ where no majority agrees.
// It is raised for no member, so that it is told from one that a person raised.
func Split() kv.Alarm { return kv.Alarm{Type: kv.AlarmCorrupt} }

// MaxIndexes is at how many indexes a member's hashes are asked for at once.
const MaxIndexes = 2

// Step is how far apart the entries are whose hashes a member knows for long.
const Step = 256

// Config configures a Monitor. Cluster is required.
type Config struct {
	Cluster Cluster
	// Interval is the time between two comparisons; 0 means 2s.
	Interval time.Duration
	// Logger hears of members that differ; nil means nobody.
	Logger *slog.Logger
}

// askTimeout is how long a member may take to tell its hashes.
const askTimeout = time.Second

// patience is how many comparisons in a row must find no majority before the
// cluster is stopped: a member that is on its way back may settle it.
const patience = 3

// Monitor compares the members of a cluster while its member leads.
type Monitor struct {
	cfg Config

	// Owned by Run.
	at     []kv.Index // asked for next
	splits int        // in a row
	told   string     // what was logged last
}

// New returns a Monitor.
func New(cfg Config) *Monitor {
	cfg.Interval = cmp.Or(cfg.Interval, 2*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Monitor{cfg: cfg}
}

// Run compares until ctx ends, and returns nil then.
func (m *Monitor) Run(ctx context.Context) error {
	tick := time.NewTicker(m.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !m.cfg.Cluster.Leads() {
			m.at, m.splits, m.told = nil, 0, ""
			continue
		}
		m.compare(ctx)
	}
}

// compare asks all members once, and acts on what they say.
func (m *Monitor) compare(ctx context.Context) {
	members := m.cfg.Cluster.Members()
	m.forget(ctx, members)
	asked := m.at
	answers := m.ask(ctx, members, asked)
	m.at = next(answers)
	if len(members) < 2 {
		return
	}
	split := false
	for _, index := range asked {
		v := Judge(members, hashesAt(answers, index))
		if len(v.Groups) > 1 {
			m.tell(index, &v)
		}
		split = split || v.Split
		m.act(ctx, &v)
	}
	if !split {
		m.splits = 0
	} else if m.splits++; m.splits >= patience {
		m.set(ctx, Split(), true)
	}
}

// ask asks all members at once.
func (m *Monitor) ask(ctx context.Context, members []kv.Member, at []kv.Index) map[kv.MemberID]Hashes {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	answers := map[kv.MemberID]Hashes{}
	for _, member := range members {
		group.Go(func() {
			if h, err := m.cfg.Cluster.Hashes(ctx, member, at); err == nil {
				mu.Lock()
				defer mu.Unlock()
				answers[member.ID] = h
			}
		})
	}
	group.Wait()
	return answers
}

// next chooses at which indexes to compare: what all who answered have applied,
// and, because those far ahead have forgotten that when many entries come, the
// last step before it, too.
func next(answers map[kv.MemberID]Hashes) []kv.Index {
	least := kv.Index(0)
	for _, h := range answers {
		if h.Newest > 0 && (least == 0 || h.Newest < least) {
			least = h.Newest
		}
	}
	step := least / Step * Step
	switch {
	case least == 0:
		return nil
	case step == 0 || step == least:
		return []kv.Index{least}
	}
	return []kv.Index{step, least}
}

func hashesAt(answers map[kv.MemberID]Hashes, index kv.Index) map[kv.MemberID]uint64 {
	at := map[kv.MemberID]uint64{}
	for id, h := range answers {
		if hash, ok := h.At[index]; ok {
			at[id] = hash
		}
	}
	return at
}

// act raises and clears alarms as v says.
func (m *Monitor) act(ctx context.Context, v *Verdict) {
	for _, id := range v.Wrong {
		m.set(ctx, kv.Alarm{Member: id, Type: kv.AlarmDivergent}, true)
	}
	for _, id := range v.Right {
		m.set(ctx, kv.Alarm{Member: id, Type: kv.AlarmDivergent}, false)
	}
	if len(v.Right) > 0 { // after those who are wrong are out
		m.set(ctx, Split(), false)
	}
}

// forget clears the alarms of members that are none any more.
func (m *Monitor) forget(ctx context.Context, members []kv.Member) {
	for _, a := range m.cfg.Cluster.Alarms() {
		if a.Type == kv.AlarmDivergent && !slices.ContainsFunc(members, func(e kv.Member) bool { return e.ID == a.Member }) {
			m.set(ctx, a, false)
		}
	}
}

// set brings an alarm about, unless it stands so already.
func (m *Monitor) set(ctx context.Context, a kv.Alarm, raised bool) {
	if slices.Contains(m.cfg.Cluster.Alarms(), a) == raised {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	changed, err := m.cfg.Cluster.SetAlarm(ctx, a, raised)
	switch {
	case err != nil:
		m.cfg.Logger.Warn("alarm not changed; tried again", "alarm", a.Type, "member", a.Member, "error", err)
	case changed:
		m.cfg.Logger.Warn("alarm changed", "alarm", a.Type, "member", a.Member, "raised", raised)
	}
}

// tell logs that members differ, once for each way in which they do.
func (m *Monitor) tell(index kv.Index, v *Verdict) {
	text := v.String()
	if text == m.told {
		return
	}
	m.told = text
	m.cfg.Logger.Error("members differ in what they have applied", "index", index, "members", text, "majority", !v.Split)
}

// Verdict says who is wrong.
type Verdict struct {
	// Groups are the members that agree, the largest group first.
	Groups [][]kv.MemberID
	// Right are the members that agree with a majority of all voters, and Wrong
	// those that do not.
	Right, Wrong []kv.MemberID
	// Split tells that members differ and no majority of all voters agrees.
	Split bool
}

// String names the groups.
func (v *Verdict) String() string {
	text := ""
	for i, group := range v.Groups {
		if i > 0 {
			text += " against "
		}
		for j, id := range group {
			if j > 0 {
				text += ", "
			}
			text += id.String()
		}
	}
	return text
}

// Judge compares the hashes that members have at one index. Only voters count
// towards a majority. Nothing is said of members whose hash is not known.
func Judge(members []kv.Member, hashes map[kv.MemberID]uint64) (v Verdict) {
	groups := map[uint64][]kv.MemberID{}
	votes := map[uint64]int{}
	voters := 0
	for _, m := range members {
		if !m.Learner {
			voters++
		}
		hash, ok := hashes[m.ID]
		if !ok {
			continue
		}
		groups[hash] = append(groups[hash], m.ID)
		if !m.Learner {
			votes[hash]++
		}
	}
	order := slices.SortedFunc(maps.Keys(groups), func(a, b uint64) int {
		return cmp.Or(cmp.Compare(votes[b], votes[a]), cmp.Compare(len(groups[b]), len(groups[a])), cmp.Compare(groups[a][0], groups[b][0]))
	})
	for i, hash := range order {
		v.Groups = append(v.Groups, groups[hash])
		switch {
		case votes[order[0]] <= voters/2:
			v.Split = len(order) > 1
		case i == 0:
			v.Right = groups[hash]
		default:
			v.Wrong = append(v.Wrong, groups[hash]...)
		}
	}
	return v
}
