package replica

import (
	"errors"
	"fmt"
)

// Errors that say for certain that nothing was done.
var (
	// ErrNoLeader: no leader is known, and has not been for
	// Options.NoLeaderTimeout.
	ErrNoLeader = errors.New("replica: no leader")
	// ErrNotLeader: the call needs the leader, or the leader of the given
	// term, and this member is not it.
	ErrNotLeader = errors.New("replica: not the leader")
	// ErrOverloaded: too many calls or bytes wait.
	ErrOverloaded = errors.New("replica: too many requests are waiting")
	// ErrTooLarge: the command is larger than Options.MaxCommandBytes.
	ErrTooLarge = errors.New("replica: command is too large")
	// ErrNotMoved: leadership was not taken over.
	ErrNotMoved = errors.New("replica: leadership did not move")
	// ErrClosed: the replica has ended, or never ran.
	ErrClosed = errors.New("replica: closed")
	// ErrChangePending: another membership change is under way.
	ErrChangePending = errors.New("replica: a membership change is under way")
	// ErrNotReady: the learner has not caught up with the leader.
	ErrNotReady = errors.New("replica: the learner has not caught up")
	// ErrInvalidChange: the configuration does not allow the change.
	ErrInvalidChange = errors.New("replica: the configuration does not allow the change")
)

// Errors after which the command may or may not have run. They wrap ErrUnknown.
var (
	// ErrUnknown is wrapped by every error after which a command may or may
	// not have run, or may still run.
	ErrUnknown = errors.New("the outcome is unknown")
	// ErrLeaderChanged: leadership moved while the call was under way.
	ErrLeaderChanged = fmt.Errorf("replica: the leader changed: %w", ErrUnknown)
	// ErrTimeout: the context ended while the call was under way. The
	// context's error is wrapped too.
	ErrTimeout = fmt.Errorf("replica: no answer in time: %w", ErrUnknown)
	// ErrStopped: the replica ended while the call was under way.
	ErrStopped = fmt.Errorf("replica: ended while the call was under way: %w", ErrUnknown)
)
