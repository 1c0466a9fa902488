package discovery

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"sync"
	"time"
)

// mostProblems is how many problems are remembered; there are as many as there
// are addresses to ask, names to look up and interfaces.
const mostProblems = 512

// settle is how long something cannot be done with a target before the log is
// told: who starts together is not there at once, and an interface needs a
// moment for its address.
const settle = 3 * time.Second

// problems remembers what cannot be done, so that the log is told once of each,
// and once when it is over.
type problems struct {
	logger *slog.Logger

	mu  sync.Mutex
	now map[[2]string]*problem // by source and target
}

type problem struct {
	Problem
	told bool
}

func newProblems(logger *slog.Logger) *problems {
	return &problems{logger: logger, now: map[[2]string]*problem{}}
}

// note takes how something went: err is nil when it went well.
func (p *problems) note(source, target string, err error) {
	key := [2]string{source, target}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.now[key]
	args := []any{"source", source, "target", target}
	if target == "" {
		args = args[:2]
	}
	if err == nil {
		if delete(p.now, key); old != nil && old.told {
			p.logger.Info("discovery: a way to find others works again", args...)
		}
		return
	}
	if old == nil {
		if len(p.now) >= mostProblems {
			return
		}
		old = &problem{Problem: Problem{source, target, err, time.Now()}}
		p.now[key] = old
	}
	if cause(old.Err) != cause(err) {
		old.told = false // in a new way
	}
	old.Err = err
	if old.told || target != "" && time.Since(old.Since) < settle {
		return
	}
	old.told = true
	level := slog.LevelInfo
	if target == "" {
		level = slog.LevelWarn
	}
	p.logger.Log(context.Background(), level, "discovery: a way to find others does not work", append(args, "error", err)...)
}

// keep forgets problems of a source with targets that are not asked any more.
func (p *problems) keep(source string, asked func(target string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.now, func(key [2]string, _ *problem) bool { return key[0] == source && key[1] != "" && !asked(key[1]) })
}

func (p *problems) list() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Problem
	for _, one := range p.now { // sorted below, whatever the order
		out = append(out, one.Problem)
	}
	slices.SortFunc(out, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Target, b.Target))
	})
	return out
}

// ownPort is this process's end of a connection, in the text of an error.
var ownPort = regexp.MustCompile(`\S+->`)

// cause is what is at the bottom of an error, without the ports and addresses
// that differ from one attempt to the next.
func cause(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		switch {
		case dns.IsNotFound:
			return "no such name"
		case dns.IsTimeout:
			return "no answer from DNS"
		}
		return "DNS"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return ownPort.ReplaceAllString(err.Error(), "")
		}
		err = inner
	}
}

// jitter is d, more or less a fifth: processes that were started together do
// not stay together.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(max(d*2/5, 1))
}
