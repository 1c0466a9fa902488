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
	// Placeholder is set where nobody was there: the id was made up by the
	// proposer and has promised nothing. The place waits for the listed process
	// of that name.
	Placeholder bool `json:"placeholder,omitempty"`
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

// holds reports whether a process of that id is part of the proposal, which a
// placeholder is not.
func (p *Proposal) holds(id uint64) bool {
	m := p.member(id)
	return m != nil && !m.Placeholder
}

// place returns the placeholder of that name, or nil.
func (p *Proposal) place(name string) *Member {
	for i := range p.Members {
		if p.Members[i].Placeholder && p.Members[i].Name == name {
			return &p.Members[i]
		}
	}
	return nil
}

// names returns the names of the members, sorted.
func (p *Proposal) names() []string {
	names := make([]string, len(p.Members))
	for i, m := range p.Members {
		names[i] = m.Name
	}
	slices.Sort(names)
	return names
}

// addrs returns where the members were, without placeholders.
func (p *Proposal) addrs() []string {
	var addrs []string
	for _, m := range p.Members {
		if !m.Placeholder {
			addrs = append(addrs, m.PeerAddrs...)
		}
	}
	return addrs
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
	// Renounced are the cluster ids of proposals that the process will have no
	// part in, whatever their proposers may say.
	Renounced []uint64 `json:"renounced,omitempty"`
}

func (r *Record) renounced(p *Proposal) bool { return slices.Contains(r.Renounced, p.Cluster) }

// in reports whether the process belongs to a cluster.
func (r *Record) in(cluster uint64) bool { return r.Phase == Founded && r.Proposal.Cluster == cluster }

// newer reports whether the record was kept after the one of that number. Who
// belongs to a cluster stays there, and may have stopped to count.
func (r *Record) newer(seq uint64) bool { return r.Seq > seq || r.Phase == Founded }

// Status is the one message of the protocol.
type Status struct {
	// Version of the message, now 2. Others are refused by number.
	Version int `json:"version"`
	// Group is the cluster's name, equal for all; it may be empty.
	Group string `json:"group,omitempty"`
	// Name is the sender's. Names is the whole list, sorted, where there is
	// one; else Expect says how many found the cluster.
	Name   string   `json:"name"`
	Names  []string `json:"names,omitempty"`
	Expect int      `json:"expect,omitempty"`
	// Free is how many processes the sender could propose now, itself included.
	Free int `json:"free,omitempty"`
	// Joins is the cluster that the sender was told of and asks to let it in.
	Joins uint64 `json:"joins,omitempty,string"`
	// PeerAddrs and ClientAddrs are where members and clients will reach the
	// sender.
	PeerAddrs   []string `json:"peer_addrs,omitempty"`
	ClientAddrs []string `json:"client_addrs,omitempty"`
	// Record is on the sender's disk.
	Record Record `json:"record"`
}

// version of Status. Version 1 knew lists only, of which all had to be there.
const version = 2

// Bounds on what is believed of others. A whole Status stays below the
// transport's bound on calls.
const (
	// MaxMembers is the most processes that can found a cluster together.
	MaxMembers = 100
	maxText    = 512 // bytes of a name or address
	maxAddrs   = 8
	maxBytes   = 1 << 20
	maxDead    = 1000 // proposals that a process renounces
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
	listed := slices.Contains(s.Names, s.Name) && s.Expect == 0
	ok := len(s.Group) <= maxText && goodTexts([]string{s.Name}, 1) &&
		(listed || len(s.Names) == 0 && s.Expect > 0 && s.Expect <= MaxMembers) &&
		goodTexts(s.Names, MaxMembers) && slices.IsSorted(s.Names) && len(slices.Compact(slices.Clone(s.Names))) == len(s.Names) &&
		goodTexts(s.PeerAddrs, maxAddrs) && goodTexts(s.ClientAddrs, maxAddrs)
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
	case len(r.Renounced) > maxDead:
		return fmt.Errorf("%w: %d proposals renounced", errMessage, len(r.Renounced))
	case r.Phase == Free && p == nil:
		return nil
	case p == nil || r.Phase != Promised && r.Phase != Proposed && r.Phase != Founded:
		return fmt.Errorf("%w: phase %q", errMessage, r.Phase)
	case p.Cluster == 0 || len(p.Members) == 0 || len(p.Members) > MaxMembers:
		return fmt.Errorf("%w: proposal", errMessage)
	case !p.holds(r.ID) || !p.holds(p.Proposer):
		return fmt.Errorf("%w: proposal without its proposer or the member that holds it", errMessage)
	case (r.ID == p.Proposer) != (r.Phase == Proposed) && r.Phase != Founded:
		return fmt.Errorf("%w: %x is %s to a proposal of %x", errMessage, r.ID, r.Phase, p.Proposer)
	case r.ID == p.Proposer && r.Seq < p.Seq:
		return fmt.Errorf("%w: proposal from a later record", errMessage)
	}
	names := map[string]bool{}
	there := 0
	for i, m := range p.Members {
		if m.ID == 0 || i > 0 && cmp.Compare(p.Members[i-1].ID, m.ID) >= 0 || names[m.Name] ||
			!goodTexts([]string{m.Name}, 1) || !goodTexts(m.PeerAddrs, maxAddrs) || !goodTexts(m.ClientAddrs, maxAddrs) {
			return fmt.Errorf("%w: member %d of the proposal", errMessage, i)
		}
		names[m.Name] = true
		if !m.Placeholder {
			there++
		}
	}
	if 2*there <= len(p.Members) {
		return fmt.Errorf("%w: %d of %d members in the proposal", errMessage, there, len(p.Members))
	}
	return nil
}
