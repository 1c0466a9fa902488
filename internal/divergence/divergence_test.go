package divergence

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func member(id kv.MemberID) kv.Member  { return kv.Member{ID: id} }
func learner(id kv.MemberID) kv.Member { return kv.Member{ID: id, Learner: true} }

func TestJudge(t *testing.T) {
	three := []kv.Member{member(1), member(2), member(3)}
	five := append(slices.Clone(three), member(4), member(5))
	for name, c := range map[string]struct {
		members      []kv.Member
		hashes       map[kv.MemberID]uint64
		right, wrong []kv.MemberID
		split        bool
	}{
		"all agree":                  {three, map[kv.MemberID]uint64{1: 7, 2: 7, 3: 7}, []kv.MemberID{1, 2, 3}, nil, false},
		"one is silent":              {three, map[kv.MemberID]uint64{1: 7, 2: 7}, []kv.MemberID{1, 2}, nil, false},
		"one differs":                {three, map[kv.MemberID]uint64{1: 7, 2: 8, 3: 7}, []kv.MemberID{1, 3}, []kv.MemberID{2}, false},
		"two differ, one is silent":  {three, map[kv.MemberID]uint64{1: 7, 2: 8}, nil, nil, true},
		"all differ":                 {three, map[kv.MemberID]uint64{1: 7, 2: 8, 3: 9}, nil, nil, true},
		"one says nothing of others": {three, map[kv.MemberID]uint64{1: 7}, nil, nil, false},
		"nobody knows":               {three, nil, nil, nil, false},
		"two of five differ alike":   {five, map[kv.MemberID]uint64{1: 8, 2: 7, 3: 8, 4: 7, 5: 7}, []kv.MemberID{2, 4, 5}, []kv.MemberID{1, 3}, false},
		"two of five differ":         {five, map[kv.MemberID]uint64{1: 8, 2: 7, 3: 9, 4: 7, 5: 7}, []kv.MemberID{2, 4, 5}, []kv.MemberID{1, 3}, false},
		"two against two of five":    {five, map[kv.MemberID]uint64{1: 8, 2: 7, 3: 8, 4: 7}, nil, nil, true},
		"a learner differs":          {[]kv.Member{member(1), learner(2)}, map[kv.MemberID]uint64{1: 7, 2: 8}, []kv.MemberID{1}, []kv.MemberID{2}, false},
		"learners do not vote":       {[]kv.Member{member(1), member(2), learner(3), learner(4)}, map[kv.MemberID]uint64{1: 7, 2: 8, 3: 8, 4: 8}, nil, nil, true},
		"others are no members":      {three, map[kv.MemberID]uint64{1: 7, 2: 7, 3: 7, 9: 8}, []kv.MemberID{1, 2, 3}, nil, false},
	} {
		v := Judge(c.members, c.hashes)
		slices.Sort(v.Wrong)
		if !slices.Equal(v.Right, c.right) || !slices.Equal(v.Wrong, c.wrong) || v.Split != c.split {
			t.Errorf("%s: %+v, want right %v, wrong %v, split %v", name, v, c.right, c.wrong, c.split)
		}
	}
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		newest []kv.Index
		want   []kv.Index
	}{
		{nil, nil},
		{[]kv.Index{12}, []kv.Index{12}},
		{[]kv.Index{700, 600, 900}, []kv.Index{512, 600}},
		{[]kv.Index{512, 600}, []kv.Index{512}},
		{[]kv.Index{0, 600}, []kv.Index{512, 600}}, // one that has applied nothing cannot be compared
	} {
		answers := map[kv.MemberID]Hashes{}
		for i, n := range c.newest {
			answers[kv.MemberID(i+1)] = Hashes{Newest: n}
		}
		if got := next(answers); !slices.Equal(got, c.want) {
			t.Errorf("newest %v: %v, want %v", c.newest, got, c.want)
		}
	}
}

// fake is a cluster in which each member has one hash for all indexes.
type fake struct {
	mu      sync.Mutex
	leads   bool
	members []kv.Member
	hash    map[kv.MemberID]uint64
	alarms  []kv.Alarm
	refused bool
}

func (f *fake) Members() []kv.Member { return f.members }

func (f *fake) Leads() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leads
}

func (f *fake) Alarms() []kv.Alarm {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.alarms)
}

func (f *fake) Hashes(_ context.Context, m kv.Member, at []kv.Index) (Hashes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hash, ok := f.hash[m.ID]
	if !ok {
		return Hashes{}, errors.New("no answer")
	}
	h := Hashes{Member: m.ID, Newest: 1000, At: map[kv.Index]uint64{}}
	for _, i := range at {
		h.At[i] = hash
	}
	return h, nil
}

func (f *fake) SetAlarm(_ context.Context, a kv.Alarm, raised bool) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused {
		return false, kv.ErrNotLeader
	}
	i := slices.Index(f.alarms, a)
	if raised == (i >= 0) {
		return false, nil
	}
	if raised {
		f.alarms = append(f.alarms, a)
	} else {
		f.alarms = slices.Delete(f.alarms, i, i+1)
	}
	return true, nil
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Alarms follow what the members say, and what a person raised is left alone.
func TestMonitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byHand := kv.Alarm{Member: 2, Type: kv.AlarmCorrupt}
		f := &fake{
			leads: true, members: []kv.Member{member(1), member(2), member(3)},
			hash:   map[kv.MemberID]uint64{1: 7, 2: 7, 3: 7},
			alarms: []kv.Alarm{byHand, {Member: 9, Type: kv.AlarmDivergent}},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- New(Config{Cluster: f, Interval: time.Second}).Run(ctx) }()
		expect := func(when string, seconds int, want ...kv.Alarm) {
			t.Helper()
			<-time.After(time.Duration(seconds)*time.Second + time.Millisecond)
			synctest.Wait()
			if got := f.Alarms(); !slices.Equal(got, want) {
				t.Errorf("%s: alarms %v, want %v", when, got, want)
			}
		}
		wrong := kv.Alarm{Member: 3, Type: kv.AlarmDivergent}
		expect("all agree", 3, byHand)
		f.set(func() { f.hash[3] = 8 })
		expect("one differs", 2, byHand, wrong)
		f.set(func() { f.hash[3] = 7 })
		expect("it was restored", 2, byHand)

		f.set(func() { f.hash[3] = 8; delete(f.hash, 2) })
		expect("two differ, one is away for a moment", 2, byHand)
		expect("it stays away", 3, byHand, Split())
		f.set(func() { f.hash[2] = 7 })
		expect("it is back and settles it", 2, byHand, wrong)

		f.set(func() { f.leads = false; f.hash[3] = 7 })
		expect("another leads", 5, byHand, wrong)
		f.set(func() { f.leads, f.refused = true, true })
		expect("it leads again and cannot propose", 3, byHand, wrong)
		f.set(func() { f.refused = false })
		expect("it can", 2, byHand)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
