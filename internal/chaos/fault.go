package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// The kinds of faults.
const (
	killLeader  = "leader"
	killMember  = "member"
	killAll     = "all"
	pauseLeader = "pause"
	cutOff      = "cut"
	cutIn       = "cut-in"
	cutOut      = "cut-out"
	power       = "power"
	moveLeader  = "move"
	roll        = "roll"
)

var faultKinds = []string{killLeader, killMember, killAll, pauseLeader, cutOff, cutIn, cutOut, power, moveLeader, roll}

// isPlanned reports whether the kind is what operators do on purpose.
func isPlanned(kind string) bool { return kind == moveLeader || kind == roll }

func isCut(kind string) bool { return kind == cutOff || kind == cutIn || kind == cutOut }

// isSilence reports whether the kind leaves the others to find out, by their
// election timeout, that there is no leader.
func isSilence(kind string) bool { return kind == pauseLeader || isCut(kind) }

// silence is how long a leader is paused or cut off, in election timeouts: the
// others have a leader long before.
const silence = 3

// longSilence, in halves of an election timeout, is what an outage after silence
// should not exceed.
const longSilence = 5

// fault does one fault under load and waits until writes flow and every member
// is back. It returns the longest time without an acknowledged write.
func (p plan) fault(ctx context.Context, c *cluster, l *load, kind string, rng *rand.Rand) (time.Duration, error) {
	// A moment of calm, so that the fault meets a working cluster.
	if err := pause(ctx, time.Duration(200+rng.IntN(600))*time.Millisecond); err != nil {
		return 0, err
	}
	leader, err := c.leader(ctx)
	if err != nil {
		return 0, err
	}
	victims := c.victims(kind, leader, rng)
	start := time.Now()
	if isPlanned(kind) {
		if err := c.planned(ctx, kind, leader, rng); err != nil {
			return 0, err
		}
		victims = nil
	}
	for _, m := range victims {
		if err := c.hurt(m, kind); err != nil {
			return 0, err
		}
	}
	var lasts time.Duration
	switch {
	case isSilence(kind):
		lasts = silence * p.election
	case kind == killLeader || kind == killMember:
		// Some faults meet a cluster that has one member less for a while.
		lasts = time.Duration(rng.IntN(1500)) * time.Millisecond
	}
	if err := pause(ctx, lasts); err != nil {
		return 0, err
	}
	for _, m := range victims {
		if err := c.heal(m, kind); err != nil {
			return 0, err
		}
	}
	if err := l.flows(ctx, time.Now()); err != nil {
		return 0, err
	}
	if err := c.ready(ctx); err != nil {
		return 0, err
	}
	return l.longestGap(start), nil
}

// planned moves leadership to another member, or restarts all of them, one after
// the other, each when the one before has caught up.
func (c *cluster) planned(ctx context.Context, kind string, leader *member, rng *rand.Rand) error {
	if kind == moveLeader {
		to := leader
		for to == leader {
			to = c.members[rng.IntN(len(c.members))]
		}
		s, err := c.client.Status(ctx, to.clientAddr)
		if err != nil {
			return err
		}
		return c.client.MoveLeader(ctx, s.Member)
	}
	for _, m := range c.members {
		if err := m.end(); err != nil {
			return err
		}
		if err := m.start(); err != nil {
			return err
		}
		if err := c.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// victims are those whom a fault of the kind meets.
func (c *cluster) victims(kind string, leader *member, rng *rand.Rand) []*member {
	switch kind {
	case killMember:
		return []*member{c.members[rng.IntN(len(c.members))]}
	case killAll:
		return slices.Clone(c.members)
	case power:
		n := len(c.members)
		if rng.IntN(2) == 0 && n > 1 {
			n = 1 + rng.IntN(n-1)
		}
		return slices.Clone(c.members[:n])
	}
	return []*member{leader}
}

// pause waits, less when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// outages are the times without an acknowledged write, by kind of fault.
type outages map[string][]time.Duration

// summary gives the median and the worst of each kind, those after silence in
// election timeouts too.
func (o outages) summary(election time.Duration) string {
	var parts []string
	for kind, all := range o {
		sorted := slices.Sorted(slices.Values(all))
		show := func(d time.Duration) string {
			text := d.Round(time.Millisecond).String()
			if isSilence(kind) {
				text += fmt.Sprintf(" (%.2f election timeouts)", float64(d)/float64(election))
			}
			return text
		}
		parts = append(parts, fmt.Sprintf("%s: median %s, p99 %s, worst %s of %d", kind,
			show(sorted[len(sorted)/2]), show(sorted[(len(sorted)*99+99)/100-1]), show(sorted[len(sorted)-1]), len(sorted)))
	}
	slices.Sort(parts)
	return "outage " + strings.Join(parts, "; ")
}
