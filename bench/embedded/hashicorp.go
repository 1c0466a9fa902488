package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// hashicorpStore is hashicorp/raft with raft-wal and a bare map: no versions, no
// history, no snapshots taken during the run.
type hashicorpStore struct {
	nodes  []*raft.Raft
	logs   []*wal.WAL
	leader *raft.Raft
	fsm    *mapFSM
}

func openHashicorp(dir string, members int) (store, error) {
	s := &hashicorpStore{}
	var servers []raft.Server
	var transports []raft.Transport
	for i := range members {
		t, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			return nil, err
		}
		transports = append(transports, t)
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: t.LocalAddr()})
	}
	machines := make([]*mapFSM, members)
	for i := range members {
		machines[i] = &mapFSM{m: map[string][]byte{}}
		if err := s.start(filepath.Join(dir, fmt.Sprint(i)), i, transports[i], machines[i]); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for i, n := range s.nodes {
			if n.State() == raft.Leader {
				s.leader, s.fsm = n, machines[i]
				return s, nil
			}
		}
	}
	return nil, errors.Join(errors.New("no leader"), s.Close())
}

func (s *hashicorpStore) start(dir string, id int, t raft.Transport, fsm raft.FSM) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := wal.Open(dir)
	if err != nil {
		return err
	}
	s.logs = append(s.logs, log)
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(fmt.Sprint(id))
	cfg.Logger = hclog.NewNullLogger()
	cfg.SnapshotThreshold = 1 << 40
	cfg.MaxAppendEntries = 1024
	cfg.BatchApplyCh = true
	node, err := raft.NewRaft(cfg, fsm, log, log, raft.NewInmemSnapshotStore(), t)
	if err != nil {
		return err
	}
	s.nodes = append(s.nodes, node)
	return nil
}

func (s *hashicorpStore) Put(_ context.Context, key, value []byte) error {
	data := make([]byte, 0, 2+len(key)+len(value))
	data = binary.LittleEndian.AppendUint16(data, uint16(len(key)))
	data = append(append(data, key...), value...)
	return s.leader.Apply(data, 10*time.Second).Error()
}

func (s *hashicorpStore) Get(_ context.Context, key []byte) ([]byte, error) {
	s.fsm.mu.RLock()
	defer s.fsm.mu.RUnlock()
	return s.fsm.m[string(key)], nil
}

func (s *hashicorpStore) Close() error {
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.Shutdown().Error())
	}
	for _, l := range s.logs {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// mapFSM is the bare map.
type mapFSM struct {
	mu sync.RWMutex
	m  map[string][]byte
}

func (f *mapFSM) put(l *raft.Log) {
	n := binary.LittleEndian.Uint16(l.Data)
	f.m[string(l.Data[2:2+n])] = l.Data[2+n:]
}

// Apply implements raft.FSM.
func (f *mapFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(l)
	return nil
}

// ApplyBatch implements raft.BatchingFSM.
func (f *mapFSM) ApplyBatch(logs []*raft.Log) []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			f.put(l)
		}
	}
	return make([]any, len(logs))
}

// Snapshot implements raft.FSM; none is taken during a run.
func (f *mapFSM) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("no snapshots in this measurement")
}

// Restore implements raft.FSM.
func (f *mapFSM) Restore(r io.ReadCloser) error { return r.Close() }
