package discovery

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// mostProblems is how many problems are remembered; there are as many as there
// are addresses to ask, names to look up and interfaces.
const mostProblems = 512

// problems remembers what cannot be done, so that the log is told once of each,
// and once when it is over.
type problems struct {
	logger *slog.Logger

	mu  sync.Mutex
	now map[[2]string]Problem // by source and target
}

func newProblems(logger *slog.Logger) *problems {
	return &problems{logger: logger, now: map[[2]string]Problem{}}
}

// note takes how something went: err is nil when it went well.
func (p *problems) note(source, target string, err error) {
	key := [2]string{source, target}
	p.mu.Lock()
	old, was := p.now[key]
	switch {
	case err == nil:
		delete(p.now, key)
	case was && cause(old.Err) == cause(err):
		p.mu.Unlock()
		return
	case was || len(p.now) < mostProblems:
		p.now[key] = Problem{source, target, err, time.Now()}
	}
	p.mu.Unlock()
	args := []any{"source", source}
	if target != "" {
		args = append(args, "target", target)
	}
	switch {
	case err != nil:
		p.logger.Warn("discovery: a way to find others does not work", append(args, "error", err)...)
	case was:
		p.logger.Info("discovery: a way to find others works again", args...)
	}
}

// keep forgets problems of a source with targets that are not asked any more.
func (p *problems) keep(source string, asked func(target string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.now, func(key [2]string, _ Problem) bool { return key[0] == source && key[1] != "" && !asked(key[1]) })
}

func (p *problems) list() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.now), func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Target, b.Target))
	})
}

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
			return err.Error()
		}
		err = inner
	}
}

// jitter is d, more or less a fifth: processes that were started together do
// not stay together.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(max(d*2/5, 1))
}
