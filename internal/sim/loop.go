package sim

import "time"

// event is something that happens at a virtual time.
type event struct {
	at  int64  // ns since the start of the run
	seq uint64 // order of scheduling: breaks ties, so that order is total
	fn  func()
}

// loop is the virtual clock: a queue of events by time. The zero value is
// ready. Everything runs in the goroutine that calls run.
type loop struct {
	now   int64
	seq   uint64
	queue []event // binary heap
	count uint64  // events run
}

// at schedules fn; a time in the past means now.
func (l *loop) at(t int64, fn func()) {
	l.seq++
	l.queue = append(l.queue, event{at: max(t, l.now), seq: l.seq, fn: fn})
	l.up(len(l.queue) - 1)
}

// after schedules fn d from now.
func (l *loop) after(d time.Duration, fn func()) { l.at(l.now+int64(d), fn) }

// run runs events until the queue is empty or the next one lies after end; the
// clock then stands at end.
func (l *loop) run(end int64) {
	for len(l.queue) > 0 && l.queue[0].at <= end {
		e := l.pop()
		l.now = e.at
		l.count++
		e.fn()
	}
	l.now = max(l.now, end)
}

func (l *loop) less(i, j int) bool {
	a, b := &l.queue[i], &l.queue[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (l *loop) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !l.less(i, parent) {
			return
		}
		l.queue[i], l.queue[parent] = l.queue[parent], l.queue[i]
		i = parent
	}
}

func (l *loop) pop() event {
	top := l.queue[0]
	last := len(l.queue) - 1
	l.queue[0] = l.queue[last]
	l.queue[last] = event{}
	l.queue = l.queue[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if child+1 < last && l.less(child+1, child) {
			child++
		}
		if !l.less(child, i) {
			return top
		}
		l.queue[i], l.queue[child] = l.queue[child], l.queue[i]
		i = child
	}
}
