package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcdStore is etcd's embed with its in-process client.
type etcdStore struct {
	members []*embed.Etcd
	client  *clientv3.Client
}

func openEtcd(dir string, members int) (store, error) {
	var cfgs []*embed.Config
	cluster := ""
	for i := range members {
		cfg := embed.NewConfig()
		cfg.Name = fmt.Sprintf("m%d", i)
		cfg.Dir = fmt.Sprintf("%s/%d", dir, i)
		cfg.LogLevel = "fatal"
		cfg.QuotaBackendBytes = 8 << 30
		client, peer := loopbackURL(23790+i*10), loopbackURL(23791+i*10)
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		cluster += fmt.Sprintf(",%s=%s", cfg.Name, peer.String())
		cfgs = append(cfgs, cfg)
	}
	s := &etcdStore{}
	for _, cfg := range cfgs {
		cfg.InitialCluster = cluster[1:]
		e, err := embed.StartEtcd(cfg)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.members = append(s.members, e)
	}
	for _, e := range s.members {
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(20 * time.Second):
			return nil, errors.Join(errors.New("etcd did not get ready"), s.Close())
		}
	}
	leader := s.members[0]
	for _, e := range s.members {
		if e.Server.Leader() == e.Server.MemberID() {
			leader = e
		}
	}
	s.client = v3client.New(leader.Server)
	return s, nil
}

func loopbackURL(port int) url.URL {
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
}

func (s *etcdStore) Put(ctx context.Context, key, value []byte) error {
	for {
		_, err := s.client.Put(ctx, string(key), string(value))
		if err == nil || err.Error() != "etcdserver: too many requests" {
			return err
		}
	}
}

func (s *etcdStore) Get(ctx context.Context, key []byte) ([]byte, error) {
	res, err := s.client.Get(ctx, string(key), clientv3.WithSerializable())
	if err != nil || len(res.Kvs) == 0 {
		return nil, err
	}
	return res.Kvs[0].Value, nil
}

func (s *etcdStore) Close() error {
	for _, e := range s.members {
		e.Close()
	}
	return nil
}
