package kv_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/concord-kv/concord/kv"
)

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want kv.Code
	}{
		{nil, kv.Internal},
		{io.EOF, kv.Internal},
		{kv.ErrEmptyKey, kv.InvalidArgument},
		{fmt.Errorf("put a: %w", kv.ErrLeaseNotFound), kv.NotFound},
		{&kv.CompactedError{Compacted: 7}, kv.OutOfRange},
		{fmt.Errorf("range: %w", &kv.CompactedError{Compacted: 7}), kv.OutOfRange},
		{context.Canceled, kv.Canceled},
		{fmt.Errorf("range: %w", context.DeadlineExceeded), kv.Unavailable},
		{kv.Errorf(kv.ResourceExhausted, "read: %w", context.Canceled), kv.ResourceExhausted},
	} {
		if got := kv.CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

// After these, and no others, a change may have happened.
func TestUnknownOutcome(t *testing.T) {
	unknown := map[*kv.Error]bool{
		kv.ErrUnavailable: true, kv.ErrLeaderChanged: true, kv.ErrTimeout: true, kv.ErrRequestTooOld: true,
		kv.ErrNoLeader: false, kv.ErrClosed: false, kv.ErrOverloaded: false, kv.ErrNoSpace: false,
		kv.ErrUnhealthyCluster: false, kv.ErrTooManyClients: false, kv.ErrTooManyUploads: false,
		kv.ErrNotLeader: false, kv.ErrDivergent: false,
	}
	for err, want := range unknown {
		if got := errors.Is(err, kv.ErrUnavailable); got != want {
			t.Errorf("%v: may have happened: %v", err, got)
		}
	}
}

func TestErrorfWraps(t *testing.T) {
	err := kv.Errorf(kv.InvalidArgument, "key %q: %w", "a", kv.ErrEmptyKey)
	if !errors.Is(err, kv.ErrEmptyKey) || err.Code != kv.InvalidArgument {
		t.Errorf("%v does not wrap its cause", err)
	}
	if want := `key "a": ` + kv.ErrEmptyKey.Message; err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
	if err := kv.Errorf(kv.NotFound, "nothing"); err.Unwrap() != nil {
		t.Errorf("%v wraps %v", err, err.Unwrap())
	}
}

func TestCompactedError(t *testing.T) {
	err := fmt.Errorf("watch: %w", &kv.CompactedError{Compacted: 42})
	var compacted *kv.CompactedError
	if !errors.Is(err, kv.ErrCompacted) || !errors.As(err, &compacted) || compacted.Compacted != 42 {
		t.Errorf("%v is not ErrCompacted with its revision", err)
	}
	if errors.Is(err, kv.ErrFutureRevision) {
		t.Errorf("%v is ErrFutureRevision", err)
	}
}
