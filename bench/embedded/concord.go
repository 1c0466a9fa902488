package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/kv"
)

// concordStore is Concord with its full multi-version machine; writes go to the
// leader.
type concordStore struct {
	nodes  []*concord.Node
	leader *concord.Node
}

func openConcord(dir string, members int) (store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	peers := map[string]string{}
	var listeners []net.Listener
	for i := range members {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
		peers[fmt.Sprintf("n%d", i)] = l.Addr().String()
	}
	s := &concordStore{}
	opened := make(chan error, members)
	s.nodes = make([]*concord.Node, members)
	for i := range members {
		go func() {
			name := fmt.Sprintf("n%d", i)
			opts := []concord.Option{concord.Name(name)}
			if members > 1 {
				opts = append(opts, concord.Peers(peers[name], peers), concord.PeerListener(listeners[i]))
			}
			var err error
			s.nodes[i], err = concord.Open(ctx, fmt.Sprintf("%s/%d", dir, i), opts...)
			opened <- err
		}()
	}
	for range members {
		if err := <-opened; err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	for _, n := range s.nodes {
		if err := n.Ready(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		if st := n.Status(); st.Leader == st.Member {
			s.leader = n
		}
	}
	if s.leader == nil {
		return nil, errors.Join(errors.New("no leader"), s.Close())
	}
	return s, nil
}

func (s *concordStore) Put(ctx context.Context, key, value []byte) error {
	for {
		_, err := kv.Put(ctx, s.leader, key, value)
		if !errors.Is(err, kv.ErrOverloaded) {
			return err
		}
	}
}

func (s *concordStore) Get(ctx context.Context, key []byte) ([]byte, error) {
	k, err := kv.Get(ctx, s.leader, key, kv.Eventual)
	return k.Value, err
}

func (s *concordStore) Close() error {
	var errs []error
	for _, n := range s.nodes {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}
