package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/internal/loopback"
	"github.com/concord-kv/concord/kv"
)

func TestMalformedEndpointsAreRefused(t *testing.T) {
	for _, endpoint := range []string{
		"", "nonsense", "a:", ":", "a:b", "a:0", "a:70000", "ftp://a:1", "http://", "http://a", "http://a:1/path",
		"user@a:1", "a:1\n", "a:1\nb:2", "a b:1", "\x00a:1", "\xffa:1", "unix://", "[::1:1", "::1:1",
	} {
		c, err := client.New(client.Config{Endpoints: []string{endpoint}})
		if err == nil {
			t.Errorf("%q is accepted", endpoint)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if kv.CodeOf(err) != kv.InvalidArgument || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "write it as") && !strings.Contains(err.Error(), "use ") {
			t.Errorf("%q: code %v, %v", endpoint, kv.CodeOf(err), err)
		}
	}
	for _, endpoint := range []string{"a:1", ":1", "[::1]:1", "[fe80::1%eth0]:1", "http://a:1/", "https://a:1", "unix:///s"} {
		c, err := client.New(client.Config{Endpoints: []string{endpoint}})
		if err != nil {
			t.Errorf("%q: %v", endpoint, err)
			continue
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Where nobody listens, the error names each endpoint and why, and says that
// nothing was done, whoever set the time limit.
func TestNobodyListensIsSaidByName(t *testing.T) {
	var endpoints []string
	for range 2 {
		addr, release, err := loopback.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		endpoints = append(endpoints, addr)
	}
	check := func(err error) error {
		if kv.CodeOf(err) != kv.Unavailable || errors.Is(err, kv.ErrUnavailable) {
			return fmt.Errorf("code %v: %w", kv.CodeOf(err), err)
		}
		for _, want := range append(endpoints, "refused", "nothing was done") {
			if !strings.Contains(err.Error(), want) {
				return fmt.Errorf("the error does not name %q: %w", want, err)
			}
		}
		return nil
	}
	patiently(t, func(timeout time.Duration) error {
		c := open(t, client.Config{Endpoints: endpoints, Timeout: timeout})
		_, err := kv.Get(t.Context(), c, "a", kv.Strong)
		if err := check(err); err != nil {
			return err
		}
		_, err = kv.Put(t.Context(), c, "a", "b")
		if err := check(err); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		_, err = kv.Put(ctx, c, "a", "b")
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the caller's time limit is not visible: %w", err)
		}
		return check(err)
	})
	c := open(t, client.Config{Endpoints: endpoints})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kv.Put(canceled, c, "a", "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller's end is not visible: %v", err)
	}
}
