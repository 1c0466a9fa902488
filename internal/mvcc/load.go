package mvcc

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"github.com/concord-kv/concord/kv"
)

const (
	// loadFill is how many items a loaded leaf gets: full ones would split at
	// the next insert.
	loadFill = 14
	loadKids = 30
	// maxHistory bounds the revisions that an index is made for.
	maxHistory = 1 << 32
	maxKeys    = 1 << 32
	maxLarge   = 1 << 40
)

// loader reads a stream: one goroutine reads chunks, some decode them into
// records, the caller puts their keys in order into the tree.
type loader struct {
	s              *Store
	r              io.Reader
	rev, compacted kv.Revision
	bound          int64

	jobs, order chan *loadJob
	buffers     chan []byte
	stop        chan struct{}
	wait        sync.WaitGroup

	mu sync.Mutex // guards growth of the index

	// Owned by the caller of Load.
	build treeBuilder
	sum   loadSum
	subs  []subChange
	// oldest is the last version read of the last key.
	oldest ref
}

// loadSum is what was counted.
type loadSum struct{ keys, live, versions, bytes, history int64 }

// subChange is a change that is not the first of its revision.
type subChange struct {
	rev kv.Revision
	sub int64
	ref ref
}

// loadJob is one chunk.
type loadJob struct {
	kind    uint32
	payload []byte
	large   []largeValue
	done    chan struct{}

	// Set by the decoder before done is closed.
	err       error
	keys      []ref
	sum       loadSum
	subs      []subChange
	continued ref // newest of versions that belong to the key before
	oldest    ref
}

type largeValue struct {
	slot  uint32
	bytes []byte
}

// Load fills a new store from what [View.WriteTo] wrote, decoding on parallel
// goroutines; 0 means GOMAXPROCS. It reads up to the end of the stream and not
// beyond. A stream that is not right is refused with a [kv.Error] of code
// DataLoss that says what is wrong; then the store is good for Close only.
func (s *Store) Load(r io.Reader, parallel int) error {
	if s.Revision() != 1 || s.hash.live.Load() != 0 {
		panic("mvcc: load into a store that is in use")
	}
	if parallel <= 0 {
		parallel = runtime.GOMAXPROCS(0)
	}
	l := &loader{s: s, r: r}
	if err := l.header(); err != nil {
		return err
	}
	s.hash.presize(l.bound)
	l.build.s = s
	l.jobs, l.order = make(chan *loadJob, parallel), make(chan *loadJob, 2*parallel)
	l.buffers, l.stop = make(chan []byte, 4*parallel), make(chan struct{})
	l.wait.Go(l.read)
	for range parallel {
		l.wait.Go(l.decode)
	}
	err := l.assemble()
	close(l.stop)
	l.wait.Wait()
	if err != nil {
		return fmt.Errorf("load snapshot: %w", err)
	}
	return l.finish()
}

func corrupt(format string, args ...any) error {
	return kv.Errorf(kv.DataLoss, format, args...)
}

func (l *loader) header() error {
	var b [headerSize]byte
	if _, err := io.ReadFull(l.r, b[:]); err != nil {
		return fmt.Errorf("load snapshot: read header: %w", noEOF(err))
	}
	if string(b[:8]) != streamMagic {
		return corrupt("load snapshot: no key space of a version known here: it begins with %q", b[:8])
	}
	l.rev = kv.Revision(binary.LittleEndian.Uint64(b[8:]))
	l.compacted = kv.Revision(binary.LittleEndian.Uint64(b[16:]))
	l.bound = int64(binary.LittleEndian.Uint64(b[24:]))
	switch {
	case l.rev < 1 || l.compacted < 0 || l.compacted > l.rev:
		return corrupt("load snapshot: revision %d with compacted revision %d", l.rev, l.compacted)
	case l.rev-l.compacted > maxHistory:
		return corrupt("load snapshot: a history of %d revisions", l.rev-l.compacted)
	case l.bound < 0 || l.bound > maxKeys:
		return corrupt("load snapshot: %d keys announced", l.bound)
	}
	return nil
}

// noEOF makes the end of the stream where more was expected an error by name.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("the stream ends early")
	}
	return err
}

// read feeds the decoders until the end, an error or stop.
func (l *loader) read() {
	defer close(l.jobs)
	defer close(l.order)
	for {
		job, err := l.readChunk()
		if err != nil {
			job = &loadJob{kind: chunkEnd, err: err, done: make(chan struct{})}
		}
		end := job.kind == chunkEnd
		if end {
			close(job.done)
		}
		select {
		case l.order <- job:
		case <-l.stop:
			return
		}
		if end {
			return
		}
		select {
		case l.jobs <- job:
		case <-l.stop:
			close(job.done)
			return
		}
	}
}

func (l *loader) readHeader() (kind, large uint32, size int64, err error) {
	var b [chunkHeader]byte
	if _, err := io.ReadFull(l.r, b[:]); err != nil {
		return 0, 0, 0, noEOF(err)
	}
	size = int64(binary.LittleEndian.Uint64(b[8:]))
	return binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:]), size, nil
}

func (l *loader) readChunk() (*loadJob, error) {
	kind, large, size, err := l.readHeader()
	switch {
	case err != nil:
		return nil, err
	case kind == chunkEnd && size != 16 || kind == chunkRecords && (size <= 0 || size > maxChunk):
		return nil, corrupt("a chunk of kind %d has %d bytes", kind, size)
	case kind != chunkEnd && kind != chunkRecords:
		return nil, corrupt("a chunk of kind %d where records or the end were expected", kind)
	case large > 16:
		return nil, corrupt("%d large values follow one chunk", large)
	}
	job := &loadJob{kind: kind, done: make(chan struct{})}
	select {
	case job.payload = <-l.buffers:
	default:
	}
	if int64(cap(job.payload)) < size {
		job.payload = make([]byte, max(size, chunkBytes+chunkBytes/4))
	}
	job.payload = job.payload[:size]
	if _, err := io.ReadFull(l.r, job.payload); err != nil {
		return nil, noEOF(err)
	}
	for range large {
		value, err := l.readLarge()
		if err != nil {
			return nil, err
		}
		job.large = append(job.large, value)
	}
	return job, nil
}

// readLarge reads a value to where it stays.
func (l *loader) readLarge() (v largeValue, err error) {
	kind, _, size, err := l.readHeader()
	if err != nil {
		return v, err
	}
	if kind != chunkLarge || size < largeRecord/2 || size > maxLarge {
		return v, corrupt("a chunk of kind %d with %d bytes where a large value was expected", kind, size)
	}
	room := largeRoom + pad8(size)
	p, err := tryMap(room) // a length that is wrong must not end the process
	if err != nil {
		return v, corrupt("a value of %d bytes: %w", size, err)
	}
	unmapMemory(p, room)
	r, p := l.s.mem.allocLarge(room, 0)
	v = largeValue{r.slot(), unsafe.Slice((*byte)(unsafe.Add(p, largeRoom)), size)}
	if _, err := io.ReadFull(l.r, v.bytes); err != nil {
		return v, noEOF(err)
	}
	return v, nil
}

// assemble takes the chunks in order.
func (l *loader) assemble() error {
	for job := range l.order {
		<-job.done
		if job.err != nil {
			return job.err
		}
		if job.kind == chunkEnd {
			return l.checkEnd(job.payload)
		}
		if err := l.addChunk(job); err != nil {
			return err
		}
		select {
		case l.buffers <- job.payload:
		default:
		}
	}
	return corrupt("the stream has no end")
}

func (l *loader) checkEnd(b []byte) error {
	keys, versions := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	if uint64(l.sum.keys) != keys || uint64(l.sum.versions) != versions {
		return corrupt("%d keys and %d versions were read, the end tells of %d and %d", l.sum.keys, l.sum.versions, keys, versions)
	}
	return nil
}

func (l *loader) addChunk(job *loadJob) error {
	s := l.s
	if job.continued != 0 {
		if err := l.addContinued(job.continued); err != nil {
			return err
		}
	}
	if n := len(l.build.items); n > 0 && len(job.keys) > 0 {
		last, first := s.key(ref(l.build.items[n-1])).bytes(), s.key(job.keys[0]).bytes()
		if compareKeys(last, first) >= 0 {
			return corrupt("key %.64q follows key %.64q", first, last)
		}
	}
	for _, r := range job.keys {
		l.build.add(r)
	}
	l.oldest = job.oldest
	l.subs = append(l.subs, job.subs...)
	a, b := &l.sum, &job.sum
	a.keys, a.live, a.versions = a.keys+b.keys, a.live+b.live, a.versions+b.versions
	a.bytes, a.history = a.bytes+b.bytes, a.history+b.history
	return nil
}

// addContinued hangs versions below the last of the key before.
func (l *loader) addContinued(newest ref) error {
	s := l.s
	if l.oldest == 0 {
		return corrupt("the first chunk continues an entry")
	}
	above := s.version(l.oldest)
	if above.mod() <= l.compacted || s.version(newest).mod() >= above.mod() {
		return corrupt("version %d continues an entry after version %d", s.version(newest).mod(), above.mod())
	}
	above.setPrev(newest)
	for r := newest; r != 0; r = s.version(r).prev() {
		s.version(r).setKey(above.key())
	}
	return nil
}

// finish builds the tree and the lists of revisions with several changes, and
// makes the state visible.
func (l *loader) finish() error {
	s := l.s
	slices.SortFunc(l.subs, func(a, b subChange) int {
		return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.sub, b.sub))
	})
	for from := 0; from < len(l.subs); {
		rev := l.subs[from].rev
		refs := []ref{ref(s.index.get(rev))}
		for ; from < len(l.subs) && l.subs[from].rev == rev; from++ {
			if refs[0] == 0 || l.subs[from].sub != int64(len(refs)) {
				return corrupt("load snapshot: change %d of revision %d is missing", len(refs)-b2i(refs[0] == 0), rev)
			}
			refs = append(refs, l.subs[from].ref)
		}
		s.index.set(rev, s.newList(refs, rev))
	}
	l.build.finish()
	s.hash.used = uint64(l.sum.keys)
	if s.hash.used > uint64(l.bound)/2 {
		s.hash.both.Load().cur.full()
	}
	s.counts.keys.Store(l.sum.live)
	s.counts.versions.Store(l.sum.versions)
	s.counts.live.Store(l.sum.bytes)
	s.counts.history.Store(l.sum.history)
	s.compacted.Store(int64(l.compacted))
	s.compact = compaction{next: max(l.compacted, 1), target: l.compacted, edge: l.compacted}
	s.rev.Store(int64(l.rev))
	s.hub.settled.Store(int64(l.rev))
	return nil
}

// treeBuilder makes a tree of keys that come in order.
type treeBuilder struct {
	s     *Store
	items []uint64 // of leaves to come
	kids  []ref
	seps  []ref
}

func (b *treeBuilder) add(r ref) {
	b.items = append(b.items, uint64(r))
	if len(b.items) > loadFill {
		s := b.s
		sep := separator(s.key(ref(b.items[loadFill-1])).bytes(), s.key(r).bytes())
		sepRef, _ := newKey(&s.keys, sep, 0, keySeparator)
		b.leaf(loadFill, sepRef)
		b.seps = append(b.seps, sepRef)
	}
}

func (b *treeBuilder) leaf(n int, hi ref) {
	var lo ref
	if len(b.seps) > 0 {
		lo = b.seps[len(b.seps)-1]
	}
	b.kids = append(b.kids, b.s.tree.buildLeaf(b.items[:n], lo, hi))
	b.items = append(b.items[:0], b.items[n:]...)
}

func (b *treeBuilder) finish() {
	if len(b.items) == 0 {
		return
	}
	b.leaf(len(b.items), 0)
	t := &b.s.tree
	height := 0
	for ; len(b.kids) > 1; height++ {
		b.level(height + 1)
	}
	old, _ := t.rootAndHeight()
	t.setRoot(b.kids[0], height)
	t.s.retire(retired{kind: retiredLeaf, ref: old})
}

// level puts inner nodes above the nodes of the last level.
func (b *treeBuilder) level(level int) {
	var kids, seps []ref
	fence := func(i int) ref {
		if i < 0 || i >= len(b.seps) {
			return 0
		}
		return b.seps[i]
	}
	for from := 0; from < len(b.kids); {
		to := min(from+loadKids, len(b.kids))
		if left := len(b.kids) - to; left > 0 && left < fewKids {
			to = from + (len(b.kids)-from+1)/2 // no tiny last node
		}
		k := kidList{n: to - from, level: uint64(level)}
		copy(k.kids[:], b.kids[from:to])
		copy(k.seps[:], b.seps[from:min(to, len(b.seps))])
		kids = append(kids, b.s.tree.buildInner(&k, 0, k.n, fences{fence(from - 1), fence(to - 1)}))
		if to < len(b.kids) {
			seps = append(seps, b.seps[to-1])
		}
		from = to
	}
	b.kids, b.seps = kids, seps
}
