package kv_test

import (
	"context"
	"errors"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// A context without a caller is not one with an anonymous caller: the first may
// do everything, the second nothing.
func TestCallerOf(t *testing.T) {
	ctx := t.Context()
	if c := kv.CallerOf(ctx); c != nil {
		t.Errorf("a plain context has the caller %v", *c)
	}
	anonymous := kv.WithCaller(ctx, kv.Caller{})
	if c := kv.CallerOf(anonymous); c == nil || *c != (kv.Caller{}) {
		t.Errorf("an anonymous caller is %v", c)
	}
	if c := kv.CallerOf(kv.WithoutCaller(anonymous)); c != nil {
		t.Errorf("a context without a caller has the caller %v", *c)
	}
	alice := kv.Caller{User: "alice", AuthRevision: 7}
	if c := kv.CallerOf(context.WithoutCancel(kv.WithCaller(anonymous, alice))); c == nil || *c != alice {
		t.Errorf("the caller is %v, want %v", c, alice)
	}
}

func TestAccessNames(t *testing.T) {
	for access, want := range map[kv.Access]string{
		kv.ReadAccess: "read", kv.WriteAccess: "write", kv.ReadWriteAccess: "readwrite", 3: "unknown",
	} {
		if got := access.String(); got != want {
			t.Errorf("access %d is called %q, want %q", uint8(access), got, want)
		}
	}
}

// Whoever asks for the wrong password must not have to know of users without.
func TestNoPasswordUserHasFailed(t *testing.T) {
	if !errors.Is(kv.ErrNoPasswordUser, kv.ErrAuthFailed) {
		t.Errorf("%v is not %v", kv.ErrNoPasswordUser, kv.ErrAuthFailed)
	}
}
