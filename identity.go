package concord

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/concord-kv/concord/internal/founding"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/kv"
)

// identify reads who this data directory belongs to, or makes a new identity,
// and counts the start.
func (n *Node) identify() (memberfile.File, error) {
	f, err := memberfile.Load(n.cfg.fs, n.cfg.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := n.refuseStrangers(); err != nil {
			return f, err
		}
		f = memberfile.File{ID: uint64(randomMember())}
	case err != nil:
		return f, identityError(err)
	case f.Divergent && n.cfg.rejoin:
		return f, kv.Errorf(kv.DataLoss, "the state in %s differs from that of the other members", n.cfg.dir)
	case f.Left:
		return f, fmt.Errorf("%s: %w", n.cfg.dir, ErrRemoved)
	}
	if err := n.sameGroup(&f); err != nil {
		return f, err
	}
	if n.cfg.name == "" && f.Name == "" {
		l, err := n.peerListener()
		if err != nil {
			return f, err
		}
		f.Name = defaultName(l.Addr())
	}
	f.Name = cmp.Or(n.cfg.name, f.Name)
	n.cfg.name = f.Name
	f.Incarnation++
	return f, memberfile.Save(n.cfg.fs, n.cfg.dir, f)
}

// sameGroup keeps a member from looking for another cluster than its own, or for
// none. A member that was alone or had a list of peers may begin to.
func (n *Node) sameGroup(f *memberfile.File) error {
	switch group := n.cfg.group.name; {
	case f.Group == group:
	case f.Group == "" || f.Cluster == 0:
		f.Group = group
	case group == "" && n.cfg.peers == nil:
		return kv.Errorf(kv.FailedPrecondition, "%s is of a member of cluster %q, which finds the others by that name; give it and its secret, too", n.cfg.dir, f.Group)
	case group != "":
		return kv.Errorf(kv.FailedPrecondition, "%s is of a member of cluster %q, not of %q; give this member a directory of its own", n.cfg.dir, f.Group, group)
	}
	return nil
}

// remember changes member.json once the member belongs to a cluster.
func (n *Node) remember(change func(*memberfile.File)) error {
	n.disk.identity.mu.Lock()
	defer n.disk.identity.mu.Unlock()
	change(&n.disk.identity.file)
	return memberfile.Save(n.cfg.fs, n.cfg.dir, n.disk.identity.file)
}

// recall is what member.json says now.
func (n *Node) recall() memberfile.File {
	n.disk.identity.mu.Lock()
	defer n.disk.identity.mu.Unlock()
	return n.disk.identity.file
}

// refuseStrangers keeps a member from starting anew where data of one lies whose
// member.json is lost: under a new identity that data would be given up.
func (n *Node) refuseStrangers() error {
	names, err := n.cfg.fs.ReadDir(n.cfg.dir)
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	for _, name := range names {
		if name == "wal" || name == "snap" {
			return kv.Errorf(kv.DataLoss, "%s has a %s directory and no %s; put the file back, restore a backup, or give this member an empty directory", n.cfg.dir, name, memberfile.Name)
		}
	}
	return nil
}

// identityError classifies what Load found.
func identityError(err error) error {
	var format *memberfile.FormatError
	var corrupt *memberfile.CorruptError
	switch {
	case errors.As(err, &format):
		return kv.Errorf(kv.FailedPrecondition, "%w", err)
	case errors.As(err, &corrupt):
		return kv.Errorf(kv.DataLoss, "%w", err)
	}
	return err
}

// foundingStore keeps the founding record in the member file.
type foundingStore struct {
	node *Node
	file memberfile.File
}

// SaveFounding implements [founding.Store].
func (s *foundingStore) SaveFounding(r founding.Record) (err error) {
	if s.file.Founding, err = json.Marshal(r); err != nil {
		return fmt.Errorf("encode the founding record: %w", err)
	}
	return memberfile.Save(s.node.cfg.fs, s.node.cfg.dir, s.file)
}

// foundingRecord is what SaveFounding kept last.
func foundingRecord(f memberfile.File) (founding.Record, error) {
	r := founding.Record{ID: f.ID}
	if len(f.Founding) > 0 {
		if err := json.Unmarshal(f.Founding, &r); err != nil {
			return r, kv.Errorf(kv.DataLoss, "founding record in %s: %w", memberfile.Name, err)
		}
	}
	if r.ID != f.ID {
		return r, kv.Errorf(kv.DataLoss, "founding record in %s is of member %x, the file of %x", memberfile.Name, r.ID, f.ID)
	}
	return r, nil
}

// randomID is a random number that is not zero.
func randomID() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails, by its documentation
		if id := binary.LittleEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}

func randomMember() kv.MemberID { return kv.MemberID(randomID()) }
