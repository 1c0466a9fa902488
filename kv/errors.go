package kv

import (
	"errors"
	"fmt"
)

// Code classifies an error: what a program can do about it.
type Code uint8

// The codes. The zero code is Internal: an error that nobody classified.
const (
	// Internal is a fault of Concord or of its disk.
	Internal Code = iota
	// InvalidArgument: the request is wrong whatever the state of the store.
	InvalidArgument
	// NotFound: what the request names is not there.
	NotFound
	// Exists: what the request would make is there already.
	Exists
	// FailedPrecondition: not in this state of the store or cluster.
	FailedPrecondition
	// OutOfRange: a revision or TTL beyond what is kept or allowed.
	OutOfRange
	// ResourceExhausted: a limit was hit; less, later or elsewhere may work.
	ResourceExhausted
	// Unavailable: no leader, no majority, a connection lost; try again.
	Unavailable
	// PermissionDenied: the caller is known and may not do this.
	PermissionDenied
	// Unauthenticated: the caller is not known.
	Unauthenticated
	// DataLoss: stored bytes are damaged or members disagree.
	DataLoss
	// Canceled: the caller gave up, or the member is closing.
	Canceled
	// Unsupported: this member or cluster version cannot do it.
	Unsupported
)

var codeNames = [...]string{
	"internal", "invalid argument", "not found", "exists", "failed precondition",
	"out of range", "resource exhausted", "unavailable", "permission denied",
	"unauthenticated", "data loss", "canceled", "unsupported",
}

// String gives the code's name in words.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("Code(%d)", uint8(c))
}

// Error is an error with a code. The Err… variables are compared with
// [errors.Is]; Err carries a cause for that.
type Error struct {
	Code    Code
	Message string
	// Err is what this error wraps, or nil.
	Err error
}

// Error gives the message and, behind a colon, the cause's when it adds one.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause, for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an error of the given code. With %w it wraps as fmt.Errorf does.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// CodeOf returns the code of the outermost *Error in err's chain, or Internal.
// A context's error is Canceled, or Unavailable when its deadline passed.
func CodeOf(err error) Code {
	var e *Error
	var compacted *CompactedError
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.As(err, &compacted):
		return OutOfRange
	case isTimeout(err):
		return Unavailable
	case isCanceled(err):
		return Canceled
	}
	return Internal
}

// Errors about outcome and availability.
var (
	// ErrUnavailable is wrapped by every error after which the change may or
	// may not have happened.
	ErrUnavailable = &Error{Code: Unavailable, Message: "the outcome is unknown: the change may or may not have happened"}
	// ErrLeaderChanged: leadership moved while the request was under way.
	ErrLeaderChanged = &Error{Code: Unavailable, Message: "the leader changed while the request was under way; it may or may not have happened", Err: ErrUnavailable}
	// ErrTimeout: no answer in time; the change may or may not have happened.
	ErrTimeout = &Error{Code: Unavailable, Message: "no answer in time; the change may or may not have happened", Err: ErrUnavailable}
	// ErrNoLeader: the cluster has no leader now and nothing was done.
	ErrNoLeader = &Error{Code: Unavailable, Message: "no leader: a majority of the members must be up and connected; nothing was done, try again"}
	// ErrClosed: this member was closed or has failed; nothing was done.
	ErrClosed = &Error{Code: Unavailable, Message: "this member is closed; nothing was done"}
	// ErrNotMoved: leadership was not handed over in time; nothing was done.
	ErrNotMoved = &Error{Code: Unavailable, Message: "leadership did not move in time; the leader stays, try again"}
	// ErrOverloaded: a queue is full; nothing was done.
	ErrOverloaded = &Error{Code: ResourceExhausted, Message: "too many requests are waiting; nothing was done, try again later"}
	// ErrNoSpace: the memory or disk limit is reached; nothing was done.
	ErrNoSpace = &Error{Code: ResourceExhausted, Message: "no space left for writes; delete keys, compact or raise the limit; nothing was done"}
	// ErrNoMemory: a member's memory limit is reached. Deletes, compactions,
	// the end of leases and reads go on, and writes are taken again by
	// themselves when there is room; nothing was done.
	ErrNoMemory = &Error{Code: ResourceExhausted, Message: "no memory left for what makes the state larger; delete keys or raise the memory limit; nothing was done", Err: ErrNoSpace}
	// ErrCorrupt: this member's state or disk is damaged.
	ErrCorrupt = &Error{Code: DataLoss, Message: "stored data is corrupt"}
	// ErrSetAside: this member's state differs from that of a majority, and it
	// does not serve; nothing was done. Another member serves.
	ErrSetAside = &Error{Code: Unavailable, Message: "this member's state differs from the others' and it does not serve; nothing was done, ask another member"}
	// ErrDivergent: members disagree about the state.
	ErrDivergent = &Error{Code: DataLoss, Message: "members disagree about the state; writes are refused"}
)

// Errors about limits on who calls.
var (
	// ErrRateLimited: the caller makes more requests than it may; nothing was
	// done.
	ErrRateLimited = &Error{Code: ResourceExhausted, Message: "more requests than this caller may make; nothing was done, try again more slowly"}
	// ErrTooManyStreams: the caller has as many streams open as it may.
	ErrTooManyStreams = &Error{Code: ResourceExhausted, Message: "this caller has too many streams open; end some first"}
	// ErrTooManyWatches: the caller has as many watches as it may.
	ErrTooManyWatches = &Error{Code: ResourceExhausted, Message: "this caller has too many watches; end some first"}
	// ErrTooManyLogins: passwords that were wrong came from the caller's
	// address; this one was not looked at.
	ErrTooManyLogins = &Error{Code: ResourceExhausted, Message: "too many wrong passwords came from this address; this one was not looked at, try again later"}
	// ErrSlowReader: the client did not read what a stream sent it. The stream
	// has ended; a watch goes on at the revision after the last one received.
	ErrSlowReader = &Error{Code: Unavailable, Message: "the client does not read; the stream was ended, go on with another one"}
)

// Errors about requests.
var (
	ErrEmptyKey         = &Error{Code: InvalidArgument, Message: "key is empty; give at least one byte"}
	ErrKeyTooLarge      = &Error{Code: InvalidArgument, Message: "key is too large"}
	ErrRequestTooLarge  = &Error{Code: InvalidArgument, Message: "request is too large"}
	ErrTooManyOps       = &Error{Code: InvalidArgument, Message: "too many operations in the transaction"}
	ErrDuplicateKey     = &Error{Code: InvalidArgument, Message: "the transaction changes a key twice"}
	ErrKeyNotFound      = &Error{Code: NotFound, Message: "key not found"}
	ErrValueProvided    = &Error{Code: InvalidArgument, Message: "a value is given together with IgnoreValue"}
	ErrLeaseProvided    = &Error{Code: InvalidArgument, Message: "a lease is given together with IgnoreLease"}
	ErrInvalidSort      = &Error{Code: InvalidArgument, Message: "sort option is unknown"}
	ErrInvalidTTL       = &Error{Code: InvalidArgument, Message: "TTL is not positive"}
	ErrTTLTooLarge      = &Error{Code: OutOfRange, Message: "TTL is too large"}
	ErrCompacted        = &Error{Code: OutOfRange, Message: "the revision has been compacted"}
	ErrFutureRevision   = &Error{Code: OutOfRange, Message: "the revision is in the future"}
	ErrLeaseNotFound    = &Error{Code: NotFound, Message: "lease not found"}
	ErrLeaseExists      = &Error{Code: Exists, Message: "lease already exists"}
	ErrRequestTooOld    = &Error{Code: FailedPrecondition, Message: "the request id is older than the results kept for this client; whether it ran is not known here", Err: ErrUnavailable}
	ErrTooManyClients   = &Error{Code: ResourceExhausted, Message: "too many clients use request ids; nothing was done"}
	ErrTooManyUploads   = &Error{Code: ResourceExhausted, Message: "too many large values are being written; nothing was done, try again later"}
	ErrMemberNotFound   = &Error{Code: NotFound, Message: "member not found"}
	ErrMemberExists     = &Error{Code: Exists, Message: "member already exists"}
	ErrNotLeader        = &Error{Code: FailedPrecondition, Message: "this member is not the leader"}
	ErrNotLearner       = &Error{Code: FailedPrecondition, Message: "only a learner can be promoted"}
	ErrLearnerNotReady  = &Error{Code: FailedPrecondition, Message: "the learner has not caught up with the leader"}
	ErrUnhealthyCluster = &Error{Code: Unavailable, Message: "the change would endanger the majority; nothing was done"}
	ErrUnsupported      = &Error{Code: Unsupported, Message: "not supported here"}
)

// CompactedError ends a watch or a read below the compacted revision. It
// matches [ErrCompacted].
type CompactedError struct {
	// Compacted is the oldest revision that can still be read.
	Compacted Revision
}

// Error names the oldest revision kept.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("the revision has been compacted; the oldest kept is %d", e.Compacted)
}

// Is makes a CompactedError match ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == error(ErrCompacted) }
