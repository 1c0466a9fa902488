package observe

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Hub gives events to any number of observers that come and go. The zero value
// is ready. All methods may be called at once.
//
//	if f := hub.Load().Lease; f != nil {
//		f(observe.Lease{…})
//	}
type Hub struct {
	joined atomic.Pointer[Observer]

	mu     sync.Mutex
	all    []*Observer
	change func(*Observer)

	panics atomic.Uint64
	report func(name string, panicked any)
}

// OnPanic has f called for the first panic of an observer's function. It must be
// set before the first observer.
func (h *Hub) OnPanic(f func(name string, panicked any)) { h.report = f }

// OnChange has f called, one call at a time, whenever observers came or went,
// and once now; its argument is what Load returns from then on.
func (h *Hub) OnChange(f func(*Observer)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.change = f
	f(h.Load())
}

// none is what nobody listens with.
var none = [1]Observer{}

// Load returns the functions to call now, never nil: those of all observers in
// the order they came, where a function is nil if nobody has one.
func (h *Hub) Load() *Observer {
	if o := h.joined.Load(); o != nil {
		return o
	}
	return &none[0]
}

// Add adds an observer until remove is called. A function may still be running
// when remove returns.
func (h *Hub) Add(o Observer) (remove func()) {
	added := &o
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, added)
	h.join()
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if i := slices.Index(h.all, added); i >= 0 {
			h.all = slices.Delete(h.all, i, i+1)
			h.join()
		}
	}
}

// Panics counts the panics of observers' functions, which went no further.
func (h *Hub) Panics() uint64 { return h.panics.Load() }

// join puts the functions of all observers together; h.mu is held.
func (h *Hub) join() {
	h.joined.Store(&Observer{
		API:        each(h, func(o *Observer) func(API) { return o.API }),
		Apply:      each(h, func(o *Observer) func(Apply) { return o.Apply }),
		Proposal:   each(h, func(o *Observer) func(Proposal) { return o.Proposal }),
		State:      each(h, func(o *Observer) func(State) { return o.State }),
		Snapshot:   each(h, func(o *Observer) func(Snapshot) { return o.Snapshot }),
		Status:     each(h, func(o *Observer) func(Status) { return o.Status }),
		Disk:       each(h, func(o *Observer) func(Disk) { return o.Disk }),
		Transport:  each(h, func(o *Observer) func(Transport) { return o.Transport }),
		Membership: each(h, func(o *Observer) func(Membership) { return o.Membership }),
		Watch:      each(h, func(o *Observer) func(Watch) { return o.Watch }),
		Lease:      each(h, func(o *Observer) func(Lease) { return o.Lease }),
		Expiry:     each(h, func(o *Observer) func(Expiry) { return o.Expiry }),
		Compaction: each(h, func(o *Observer) func(Compaction) { return o.Compaction }),
		Auth:       each(h, func(o *Observer) func(Auth) { return o.Auth }),
		Limit:      each(h, func(o *Observer) func(Limit) { return o.Limit }),
		Backup:     each(h, func(o *Observer) func(Backup) { return o.Backup }),
	})
	if h.change != nil {
		h.change(h.Load())
	}
}

// each is one function that calls those that pick finds, each kept from doing
// harm.
func each[E Event](h *Hub, pick func(*Observer) func(E)) func(E) {
	var all []func(E)
	for _, o := range h.all {
		if f := pick(o); f != nil {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return func(e E) {
		for _, f := range all {
			call(h, f, e)
		}
	}
}

func call[E Event](h *Hub, f func(E), e E) {
	defer func() {
		if p := recover(); p != nil && h.panics.Add(1) == 1 && h.report != nil {
			h.report(e.Name(), p)
		}
	}()
	f(e)
}
