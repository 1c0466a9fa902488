package concord

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/concord-kv/concord/internal/backup"
	"github.com/concord-kv/concord/internal/founding"
	"github.com/concord-kv/concord/internal/lab"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/steward"
	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// Open opens the member whose data is in dir, and makes it if there is none.
// The directory belongs to this member alone and is locked while it is open.
//
// A member of a cluster whose founding is not complete waits for the others
// until ctx ends. After Open has returned, ctx has no effect; [Node.Ready] waits
// until the member serves.
func Open(ctx context.Context, dir string, opts ...Option) (*Node, error) {
	cfg := config{dir: dir}
	for _, opt := range opts {
		opt(&cfg)
	}
	cfg.enter(ctx)
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("open member: %w", err)
	}
	for {
		n, err := openMember(ctx, cfg)
		switch place := (*founding.PlaceError)(nil); {
		case err == nil:
			return n, nil
		case errors.Is(err, ErrRemoved) && cfg.group.name != "", cfg.rejoin && kv.CodeOf(err) == kv.DataLoss:
			cfg.logger.Warn("data directory is of no use", "error", err)
			if err := setAside(cfg); err != nil {
				return nil, err
			}
		case errors.As(err, &place) && !cfg.hands.reserved:
			cfg.hands.reserved = true
			cfg.listener = nil // it is closed; the address stays
		default:
			return nil, err
		}
	}
}

func openMember(ctx context.Context, cfg config) (_ *Node, err error) {
	n := &Node{cfg: cfg, log: cfg.logger, done: make(chan struct{}), figures: new(figures), logins: logins{slots: make(chan struct{}, hashParallel())}}
	n.figures.events.listen(&n.cfg)
	n.service.begin()
	defer func() {
		if err != nil {
			if n.transport == nil && n.cfg.listener != nil {
				_ = n.cfg.listener.Close() // nobody was let in
			}
			err = errors.Join(fmt.Errorf("open member in %s: %w", cfg.dir, err), n.Close())
		}
	}()
	if err := n.lock(); err != nil {
		return nil, err
	}
	id, err := n.identify()
	if err != nil {
		return nil, err
	}
	n.tellStart(id)
	peers := newPeerHandler()
	var others []kv.Member
	if id.Cluster == 0 && cfg.hands.reserved {
		if id, others, err = n.claim(ctx, id); err != nil {
			return nil, err
		}
	}
	if cfg.together() {
		if err := n.listen(id, peers); err != nil {
			return nil, err
		}
	}
	if id.Cluster == 0 {
		if id, err = n.found(ctx, id, peers); err != nil {
			return nil, err
		}
	}
	if err := n.openStore(id); err != nil {
		return nil, err
	}
	loops := append(n.duties(), n.replica.Run, n.tendDisk, n.tendMemory, n.announce, n.tend, n.raise, n.followSettings,
		n.compare, n.heedAlarms, n.tellStatus)
	if n.transport != nil {
		watch, err := n.tellOfCluster(id, peers)
		if err != nil {
			return nil, err
		}
		n.meet(others)
		peers.serve(n)
		loops = append(loops, watch, n.tendPeers, n.introduce(id), n.endWhenRemoved)
	}
	n.start(loops...)
	if l := lab.From(ctx); l != nil {
		l.Member = labMember{n}
	}
	return n, nil
}

// tellStart says in the log what this member is about to do, and with whom.
func (n *Node) tellStart(id memberfile.File) {
	var others []string
	for name := range n.cfg.peers {
		if name != n.cfg.name {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	what, size := "member starts", n.cfg.group.size
	switch {
	case id.Cluster == 0 && size > 1:
		what = fmt.Sprintf("member starts and looks for its cluster, or %d others to found one", size-1)
	case id.Cluster == 0 && size == 1:
		what = "member starts and looks for its cluster, or founds one"
	case id.Cluster == 0 && n.cfg.rejoin:
		what = "member starts and asks the others to let it join"
	case id.Cluster == 0 && len(others) > 0:
		what = "member starts and waits for all others, to found a cluster"
	case id.Cluster == 0:
		what = "member starts as a cluster of its own"
	}
	args := []any{"name", n.cfg.name, "id", kv.MemberID(id.ID), "dir", n.cfg.dir}
	if size > 0 {
		args = append(args, "group", n.cfg.group.name)
	}
	if id.Cluster != 0 {
		args = append(args, "cluster", kv.ClusterID(id.Cluster))
	}
	if len(others) > 0 {
		args = append(args, "others", others)
	}
	n.log.Info(what, args...)
}

// lock makes the data directory and takes its lock.
func (n *Node) lock() error {
	if err := backup.CutOff(n.cfg.fs, n.cfg.dir); err != nil {
		return err
	}
	if err := n.cfg.fs.MkdirAll(n.cfg.dir); err != nil {
		return refusedDir("make the data directory", err)
	}
	lock, err := n.cfg.fs.Lock(filepath.Join(n.cfg.dir, "LOCK"))
	if errors.Is(err, vfs.ErrLocked) {
		return kv.Errorf(kv.FailedPrecondition, "the data directory is in use: %w; stop that process, or give this member a directory of its own", err)
	}
	if err != nil {
		return refusedDir("lock the data directory", err)
	}
	n.onClose("lock", lock.Close)
	return nil
}

// refusedDir adds the next step to what the file system says of a directory
// that this process may not use.
func refusedDir(what string, err error) error {
	step := ""
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		step = "; give this process the right to write there, or name another directory"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		step = "; a file is in the way: name another directory"
	case errors.Is(err, syscall.ENOSPC):
		step = "; the disk is full: free some of it, or name a directory on another"
	}
	return fmt.Errorf("%s: %w%s", what, err, step)
}

// openStore opens log, snapshots, machine and replica of a founded member.
func (n *Node) openStore(id memberfile.File) error {
	files, dir := n.cfg.fs, n.cfg.dir
	n.disk.identity.file = id
	snaps, err := snap.Open(files, filepath.Join(dir, "snap"), snap.Options{})
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	log, err := wal.Open(files, filepath.Join(dir, "wal"), wal.Options{})
	if err != nil {
		return damaged(fmt.Errorf("open log: %w", err), n.cfg.together())
	}
	n.onClose("log", log.Close)
	n.disk.log, n.disk.snaps = &diskLog{Log: log, events: &n.figures.events}, snaps
	n.machine = machine.New(machine.Options{Level: n.cfg.level()})
	n.onClose("machine", func() error { n.machine.Close(); return nil })
	n.cfg.memory = newMemory(n.cfg.limit, n.machine.MemoryBytes, n.cfg.heap)
	cfg := replica.Config{
		ID: id.ID, Cluster: id.Cluster, Log: n.disk.log, Snapshots: snapshots{snaps},
		Options: replica.Options{
			Heartbeat: n.cfg.heartbeat, Election: n.cfg.election,
			SnapshotBytes: n.cfg.snapshot, MaxCommandBytes: n.maxCommand(),
			ReadLease: id.ReadLease,
		},
		Now: n.cfg.lab.Now, Logger: n.log, Observer: n.figures.events.with(n.figures.observer()), Times: &n.figures.events.times,
	}
	if n.transport != nil {
		cfg.Transport = n.transport
	}
	cfg.Machine = n.machine
	if n.cfg.hands.stray != nil {
		cfg.Machine = n.cfg.hands.stray(n.machine)
	}
	n.id = kv.MemberID(id.ID)
	cfg.Machine = n.figures.events.begin(n, cfg.Machine, log.LastIndex())
	n.figures.steward = steward.New(steward.Config{Cluster: tended{n}, Interval: n.cfg.election, Logger: n.log})
	if n.replica, err = replica.New(cfg); err != nil {
		return damaged(fmt.Errorf("start from disk: %w", err), n.cfg.together())
	}
	n.figures.events.follow(n.replica.SetTimed)
	if got := n.machine.Cluster(); got != 0 && uint64(got) != id.Cluster {
		return kv.Errorf(kv.DataLoss, "snapshots in the data directory are of cluster %v, its member.json is of %x; one of them was copied from elsewhere", got, id.Cluster)
	}
	return nil
}

// maxCommand is the longest command that a request within the limits makes.
func (n *Node) maxCommand() int {
	const envelope = 1 << 20
	return int(n.cfg.limits.RequestBytes) + envelope
}

// damaged adds the next step to an error that says that the disk's content is
// bad.
func damaged(err error, cluster bool) error {
	var log *wal.CorruptError
	var snapshot *snap.CorruptError
	if !errors.As(err, &log) && !errors.As(err, &snapshot) {
		return err
	}
	step := "a member that is alone has nobody to ask: restore a backup with 'concord backup restore FILE --data-dir NEW-DIRECTORY', or see what 'concord cluster recover DIRECTORY' can keep; if its cluster has other members, start it with --peers and --rejoin, and it gets its data from them"
	if cluster {
		step = "start this member with --rejoin: it sets the directory aside and gets its data from the others"
	}
	return kv.Errorf(kv.DataLoss, "%w; nothing was changed; %s", err, step)
}

// newTransport makes a transport, which can make calls before it runs.
func (n *Node) newTransport(id memberfile.File, l net.Listener, h *peerHandler) *transport.Transport {
	return transport.New(transport.Config{
		ID: id.ID, Cluster: id.Cluster, Listener: l, Handler: h, Logger: n.log,
		RoundTrip: func(peer uint64, took time.Duration) {
			n.figures.roundTrips.add(peer, took)
			n.figures.events.peer(observe.RoundTrip, peer, took)
		},
		Dial: n.cfg.dialPeer, MaxMessage: n.maxCommand() + 8<<20,
	})
}

// listen starts the transport, which founding needs already.
func (n *Node) listen(id memberfile.File, h *peerHandler) error {
	l, err := n.peerListener()
	if err != nil {
		return err
	}
	n.transport = n.newTransport(id, n.cfg.peerTLS.listen(l), h)
	ctx, cancel := context.WithCancel(context.Background())
	n.stop.transport = cancel
	ended := make(chan error, 1)
	go func() { ended <- n.transport.Run(ctx) }()
	n.onClose("transport", func() error {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	if n.cfg.group.name != "" {
		if err := n.gather(id, l.Addr(), h); err != nil {
			return err
		}
	}
	n.startSecret()
	return nil
}

// peerListener listens for other members, once.
func (n *Node) peerListener() (_ net.Listener, err error) {
	if n.cfg.listener == nil {
		if n.cfg.group.name != "" {
			n.cfg.listener, err = n.cfg.group.open()
		} else {
			n.cfg.listener, err = net.Listen("tcp", n.cfg.peerAddr)
		}
	}
	if err != nil {
		n.cfg.listener = nil
		return nil, fmt.Errorf("listen for members: %w; give this member an address of this machine that no other process uses", err)
	}
	return n.cfg.listener, nil
}
