package concord

import (
	"context"
	"errors"
	"fmt"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/kv"
)

// replicaErrors says what the replica's errors are to users. The first match
// counts.
var replicaErrors = []struct {
	is   error
	says *kv.Error
}{
	{replica.ErrNoLeader, kv.ErrNoLeader},
	{replica.ErrNotLeader, kv.ErrNotLeader},
	{replica.ErrOverloaded, kv.ErrOverloaded},
	{replica.ErrTooLarge, kv.ErrRequestTooLarge},
	{replica.ErrClosed, kv.ErrClosed},
	{replica.ErrChangePending, kv.ErrUnhealthyCluster},
	{replica.ErrNotReady, kv.ErrLearnerNotReady},
	{replica.ErrNotMoved, kv.ErrNotMoved},
	{replica.ErrInvalidChange, kv.ErrUnhealthyCluster},
	{replica.ErrLeaderChanged, kv.ErrLeaderChanged},
	{replica.ErrTimeout, kv.ErrTimeout},
	{replica.ErrStopped, kv.ErrUnavailable},
	{replica.ErrUnknown, kv.ErrUnavailable},
}

// mapError turns what the replica returned into an error of package kv. A
// context's error stays visible to errors.Is.
func mapError(err error) error {
	if err == nil {
		return nil
	}
	var own *kv.Error
	if errors.As(err, &own) {
		return err
	}
	for _, e := range replicaErrors {
		if !errors.Is(err, e.is) {
			continue
		}
		switch {
		case errors.Is(err, context.Canceled):
			return &kv.Error{Code: kv.Canceled, Message: "canceled: " + e.says.Message, Err: errors.Join(e.says, context.Canceled)}
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("%w: %w", e.says, context.DeadlineExceeded)
		}
		return e.says
	}
	return err
}
