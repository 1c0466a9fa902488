package founding

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Member is a process as it will stand in the cluster's first configuration.
type Member struct {
	// ID is random, never 0.
	ID uint64 `json:"id,string"`
	// Name is unique in the list.
	Name string `json:"name"`
	// PeerAddrs and ClientAddrs are where members and clients reach it.
	PeerAddrs   []string `json:"peer_addrs,omitempty"`
	ClientAddrs []string `json:"client_addrs,omitempty"`
}

// Proposal is a cluster that may come to be.
type Proposal struct {
	// Cluster is the random id of the cluster, never 0. No two proposals have
	// the same.
	Cluster uint64 `json:"cluster,string"`
	// Proposer is the id of the member that made it, in its record number Seq.
	Proposer uint64 `json:"proposer,string"`
	Seq      uint64 `json:"seq"`
	// Members has everybody, by id.
	Members []Member `json:"members"`
}

// member returns the member of that id, or nil.
func (p *Proposal) member(id uint64) *Member {
	for i := range p.Members {
		if p.Members[i].ID == id {
			return &p.Members[i]
		}
	}
	return nil
}

func (p *Proposal) same(q *Proposal) bool {
	return p != nil && q != nil && p.Cluster == q.Cluster && p.Proposer == q.Proposer && p.Seq == q.Seq
}

// Phase is how far a process has come.
type Phase string

// The phases. The zero Phase is Free.
const (
	Free     Phase = ""
	Promised Phase = "promised"
	Proposed Phase = "proposed"
	Founded  Phase = "founded"
)

// Record is what a process must not forget.
type Record struct {
	// ID is the process's own.
	ID uint64 `json:"id,string"`
	// Seq grows with every change of the record.
	Seq uint64 `json:"seq,omitempty"`
	// Phase says what Proposal is to the process; Free has none.
	Phase    Phase     `json:"phase,omitempty"`
	Proposal *Proposal `json:"proposal,omitempty"`
}

// Status is the one message of the protocol.
type Status struct {
	// Version of the message, now 1. Others are refused by number.
	Version int `json:"version"`
	// Group is the cluster's name, equal for all; it may be empty.
	Group string `json:"group,omitempty"`
	// Name is the sender's in the list, Names the whole list, sorted.
	Name  string   `json:"name"`
	Names []string `json:"names"`
	// ClientAddrs are where clients will reach the sender.
	ClientAddrs []string `json:"client_addrs,omitempty"`
	// Record is on the sender's disk.
	Record Record `json:"record"`
}

// version of Status.
const version = 1

// Bounds on what is believed of others. A whole Status stays below the
// transport's bound on calls.
const (
	// MaxMembers is the most processes that can found a cluster together.
	MaxMembers = 100
	maxText    = 512 // bytes of a name or address
	maxAddrs   = 8
	maxBytes   = 1 << 20
)

// VersionError tells that another process speaks another version.
type VersionError struct{ Version int }

// Error names both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("speaks version %d of the founding protocol, this release %d; found the cluster with one release", e.Version, version)
}

// errMessage is wrapped by every error about a message that makes no sense.
var errMessage = errors.New("founding: bad message")

func (s *Status) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("founding: encode %+v: %v", s, err)) // all fields can be encoded
	}
	return b
}

// decode accepts only what encode can have made of a valid Status.
func decode(b []byte) (*Status, error) {
	if len(b) > maxBytes {
		return nil, fmt.Errorf("%w: %d bytes", errMessage, len(b))
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	if v.Version != version {
		return nil, &VersionError{Version: v.Version}
	}
	s := new(Status)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return s, s.check()
}

func (s *Status) check() error {
	ok := len(s.Group) <= maxText && s.Name != "" && slices.Contains(s.Names, s.Name) &&
		goodTexts(s.Names, MaxMembers) && slices.IsSorted(s.Names) && len(slices.Compact(slices.Clone(s.Names))) == len(s.Names) &&
		goodTexts(s.ClientAddrs, maxAddrs)
	if !ok {
		return fmt.Errorf("%w: names or addresses", errMessage)
	}
	return s.Record.Check()
}

func goodTexts(texts []string, most int) bool {
	return len(texts) <= most && !slices.ContainsFunc(texts, func(t string) bool { return t == "" || len(t) > maxText })
}

// MemberOf is the record of a process that came into its cluster in another way
// than by founding it: it joined, or was restored from a backup. With it a
// Founder answers that there is a cluster, and does nothing else.
func MemberOf(cluster, id uint64, name string) Record {
	return Record{ID: id, Phase: Founded, Proposal: &Proposal{Cluster: cluster, Proposer: id, Members: []Member{{ID: id, Name: name}}}}
}

// Check tells what is wrong with a record that was read, if anything.
func (r *Record) Check() error {
	p := r.Proposal
	switch {
	case r.ID == 0:
		return fmt.Errorf("%w: no id", errMessage)
	case r.Phase == Free && p == nil:
		return nil
	case p == nil || r.Phase != Promised && r.Phase != Proposed && r.Phase != Founded:
		return fmt.Errorf("%w: phase %q", errMessage, r.Phase)
	case p.Cluster == 0 || len(p.Members) == 0 || len(p.Members) > MaxMembers:
		return fmt.Errorf("%w: proposal", errMessage)
	case p.member(r.ID) == nil || p.member(p.Proposer) == nil:
		return fmt.Errorf("%w: proposal without its proposer or the member that holds it", errMessage)
	case (r.ID == p.Proposer) != (r.Phase == Proposed) && r.Phase != Founded:
		return fmt.Errorf("%w: %x is %s to a proposal of %x", errMessage, r.ID, r.Phase, p.Proposer)
	case r.ID == p.Proposer && r.Seq < p.Seq:
		return fmt.Errorf("%w: proposal from a later record", errMessage)
	}
	names := map[string]bool{}
	for i, m := range p.Members {
		if m.ID == 0 || i > 0 && cmp.Compare(p.Members[i-1].ID, m.ID) >= 0 || names[m.Name] ||
			!goodTexts([]string{m.Name}, 1) || !goodTexts(m.PeerAddrs, maxAddrs) || !goodTexts(m.ClientAddrs, maxAddrs) {
			return fmt.Errorf("%w: member %d of the proposal", errMessage, i)
		}
		names[m.Name] = true
	}
	return nil
}
