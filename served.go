package concord

import (
	"sync/atomic"

	"github.com/concord-kv/concord/kv"
)

var _ kv.Fronted = (*Node)(nil)

// served is where the figures of the server before a member come from.
type served struct {
	source atomic.Pointer[func() kv.ServedFigures]
}

// TellServed implements [kv.Fronted].
func (n *Node) TellServed(source func() kv.ServedFigures) { n.figures.served.source.Store(&source) }

// load is zero where no server has told.
func (s *served) load() kv.ServedFigures {
	if source := s.source.Load(); source != nil {
		return (*source)()
	}
	return kv.ServedFigures{}
}
