// Package telemetry keeps figures for Prometheus: counts of gRPC calls, which it
// takes itself, figures of the process and the Go runtime, and what sources tell
// when somebody looks.
package telemetry

import (
	"sync"
	"time"
)

// Metrics is a set of figures. Its methods may be called concurrently.
type Metrics struct {
	mu      sync.Mutex
	calls   []*Call
	sources []func(yield func(Figure))
}

// New makes a set with the figures of the process and of the Go runtime.
func New() *Metrics {
	m := new(Metrics)
	m.Add(runtimeFigures)
	m.Add(processFigures)
	return m
}

// Add adds a source: a function that is called for each look at the figures,
// and calls yield with each of its own.
func (m *Metrics) Add(source func(yield func(Figure))) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources = append(m.sources, source)
}

// Kind is how a figure changes.
type Kind uint8

// The kinds. A Count only grows until the process ends, a Level goes up and
// down, a Spread tells how long things took.
const (
	Count Kind = iota
	Level
	Spread
)

// Figure is one figure at one moment.
type Figure struct {
	// Name and Help are Prometheus's.
	Name, Help string
	Kind       Kind
	// Labels are names and values in turn.
	Labels []string
	// Value is of a Count or Level.
	Value float64
	// Times are of a Spread.
	Times Times
}

// Times are how long things took.
type Times struct {
	// Below[i] of them took at most Bounds[i]; Count is how many there were
	// and Sum what they took together.
	Bounds []time.Duration
	Below  []uint64
	Count  uint64
	Sum    time.Duration
}
