package client

import (
	"crypto/tls"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestParseEndpoint(t *testing.T) {
	for _, c := range []struct {
		address string
		tls     *tls.Config
		target  string
		secure  bool
	}{
		{"h:1", nil, "h:1", false},
		{"h:1", new(tls.Config), "h:1", true},
		{"http://h:1/", new(tls.Config), "h:1", false},
		{"https://h:1", nil, "h:1", true},
		{"[::1]:1", nil, "[::1]:1", false},
		{"unix:///a/b", nil, "unix:///a/b", false},
	} {
		target, security, err := parseEndpoint(c.address, c.tls)
		if err != nil || target != c.target || (security.Info().SecurityProtocol == "tls") != c.secure {
			t.Errorf("%s: %s, %v, %v", c.address, target, security, err)
		}
	}
	for _, bad := range []string{"", "h", "h:", "ftp://h:1", "http://h"} {
		if _, _, err := parseEndpoint(bad, nil); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzField(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add(appendVarint(nil, fieldLeft, 5), uint64(7))
	f.Add([]byte{0xca, 0x3e, 0xff}, uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, v uint64) {
		m := new(pb.ResponseHeader)
		setUnknown(m, b)
		field(m, fieldTTL)
		content(m, fieldStatus)
		// What is well formed is found behind what else is.
		if protowireValid(b) {
			setUnknown(m, appendVarint(b[:len(b):len(b)], fieldTTL, v))
			if got, ok := field(m, fieldTTL); !ok || got != v {
				t.Fatalf("got %d, %v; want %d", got, ok, v)
			}
		}
	})
}

func protowireValid(b []byte) bool {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}
