package machine

import (
	"bufio"
	"fmt"
	"io"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/lease"
	"github.com/concord-kv/concord/internal/mvcc"
	"github.com/concord-kv/concord/kv"
)

// A snapshot is a stream, checksummed by who stores it:
//
//	snapshot = "CONCORDM" version (1 byte) section… keys
//	section  = tag (1 byte) contents
//	keys     = tagKeys, then what mvcc writes, up to the end
//
// Sections come in the order of their tags, each once, but the keys come last.
// Contents are made of
// unsigned varints and of strings, which are a length and the bytes:
//
//	position = index term time hash written
//	config   = cluster n (member…) n (removed id…) leaderReads retention history
//	           [version], up to format version 3
//	           n (alarm type, member)… downgrade, these from format version 3 on
//	           founders autopilot voters deadAfter level, these from 4 on
//	history  = n (time revision written)…
//	leases   = what lease writes
//	requests = n client…, in the order in which they were heard of last
//	client   = id (16 bytes) floor highest last slots n (seq time result)…
//	uploads  = n (id (16 bytes) size touched n (offset string)…)…
//	auth     = a string with what auth writes, from format version 3 on; with
//	           access tokens from 5 on
//
// All of it is logical state, in an order of its own, so members at one index
// write the same bytes before keys.
const (
	snapshotMagic   = "CONCORDM"
	snapshotVersion = 5
	oldestSnapshot  = 2 // that can still be read
)

// The tags of sections.
const (
	tagPosition = iota + 1
	tagConfig
	tagHistory
	tagLeases
	tagRequests
	tagUploads
	tagKeys
	tagAuth
)

// captured is the state at one index, to write while the machine goes on.
type captured struct {
	at       reached
	config   *config
	history  history
	leases   *lease.Table
	requests *requests
	uploads  []upload
	access   *access
	keys     mvcc.View
}

// Snapshot captures the state between two entries, in O(1) but for at most a
// thousand uploads, and a pointer for each client that names its requests. Write
// streams it, on any goroutine and as often as wanted, while entries are applied;
// release, called once after that, lets it go.
func (m *Machine) Snapshot() (write func(io.Writer) error, release func()) {
	c := &captured{
		at:       m.at,
		config:   m.config.Load(),
		requests: m.requests.copy(),
		uploads:  m.uploads.copy(),
		access:   m.gate.open.Load(),
		keys:     m.store.View(),
	}
	m.mu.Lock()
	c.history = m.shared.history.copy()
	c.leases = m.shared.leases.Copy()
	m.mu.Unlock()
	return c.write, c.keys.Close
}

func (c *captured) write(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	s := sectionWriter{w: buffered}
	s.raw(snapshotMagic)
	s.tag(snapshotVersion)
	s.tag(tagPosition)
	for _, n := range [...]uint64{uint64(c.at.index), uint64(c.at.term), uint64(c.at.now), uint64(c.at.hash), uint64(c.at.written)} {
		s.uint(n)
	}
	s.tag(tagConfig)
	c.config.write(&s)
	s.tag(tagHistory)
	s.uint(uint64(len(c.history.samples)))
	for _, x := range c.history.samples {
		s.uint(uint64(x.time))
		s.uint(uint64(x.revision))
		s.uint(uint64(x.written))
	}
	s.tag(tagLeases)
	if s.err == nil {
		s.err = c.leases.Write(buffered)
	}
	s.tag(tagRequests)
	c.requests.write(&s)
	s.tag(tagUploads)
	writeUploads(&s, c.uploads)
	s.tag(tagAuth)
	s.bytes(c.access.tokens.Append(c.access.tables.Append(nil)))
	s.tag(tagKeys)
	if s.err == nil {
		s.err = buffered.Flush()
	}
	if s.err == nil {
		_, s.err = c.keys.WriteTo(w)
	}
	if s.err != nil {
		return fmt.Errorf("write snapshot of index %d: %w", c.at.index, s.err)
	}
	return nil
}

// Restore replaces the state by what a Snapshot wrote. Readers keep the old one
// until it is done, and views of it until they are closed; after an error it
// stays as it was. Whatever r holds, it takes no more memory than its length,
// [MaxUploadBytes] and rememberedBytes.
func (m *Machine) Restore(r io.Reader) error {
	buffered := bufio.NewReaderSize(r, 64<<10)
	c, err := m.readSnapshot(buffered)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	store := mvcc.New(mvcc.Options{Keys: m.options.Keys})
	if err := store.Load(buffered, m.options.LoadParallel); err != nil {
		store.Close()
		return fmt.Errorf("restore keys: %w", err)
	}
	old, replaced := m.store, m.replaced
	m.swap.Lock()
	m.mu.Lock()
	m.store, m.replaced = store, make(chan struct{})
	m.shared = shared{leases: c.leases, history: c.history, published: c.at}
	c.access.tables.KeepUsed(m.Access())
	m.shared.trail.note(c.at.index, c.at.hash)
	m.gate.set(c.access.tables, c.access.tokens)
	m.mu.Unlock()
	m.swap.Unlock()
	m.at, m.requests = c.at, c.requests
	m.uploads = uploads{}
	for i := range c.uploads {
		m.uploads.all = append(m.uploads.all, &c.uploads[i])
		m.uploads.reserved += uint64(len(c.uploads[i].buf))
	}
	m.setConfig(c.config)
	m.clock.Store(int64(c.at.now))
	close(replaced)
	old.Close()
	return nil
}

func (m *Machine) readSnapshot(r *bufio.Reader) (*captured, error) {
	s := sectionReader{r: r}
	if magic := s.take(uint64(len(snapshotMagic))); s.err != nil || string(magic) != snapshotMagic {
		return nil, kv.Errorf(kv.DataLoss, "this is no state of Concord: %w", kv.ErrCorrupt)
	}
	if s.version = s.byte(); s.err == nil && (s.version < oldestSnapshot || s.version > snapshotVersion) {
		return nil, kv.Errorf(kv.Unsupported, "the state has format version %d, this program knows %d to %d; use a newer version of concord: %w", s.version, oldestSnapshot, snapshotVersion, kv.ErrUnsupported)
	}
	c := &captured{config: &config{}, requests: newRequests(), access: &access{tables: auth.New(), tokens: auth.NewTokens()}}
	for _, section := range [...]struct {
		tag  byte
		read func(*sectionReader)
	}{
		{tagPosition, c.at.read},
		{tagConfig, c.config.read},
		{tagHistory, c.history.read},
		{tagLeases, c.readLeases},
		{tagRequests, c.requests.read},
		{tagUploads, c.readUploads},
		{tagAuth, c.readAuth},
		{tagKeys, func(*sectionReader) {}},
	} {
		if section.tag == tagAuth && s.version < 3 {
			continue
		}
		if tag := s.byte(); s.err == nil && tag != section.tag {
			s.failf("section %d where %d belongs", tag, section.tag)
		}
		section.read(&s)
		if s.err != nil {
			return nil, kv.Errorf(kv.DataLoss, "section %d: %v: %w", section.tag, s.err, kv.ErrCorrupt)
		}
	}
	if level := c.config.settings.Level; level > m.options.Level {
		return nil, &LevelError{Cluster: level, Program: m.options.Level}
	}
	return c, nil
}
