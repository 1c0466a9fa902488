package etcdapi

import (
	"context"
	"errors"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/kv"
)

// Errors that only this package makes.
var (
	errExtension  = status.Error(codes.InvalidArgument, "etcdserver: a field of Concord's is malformed")
	errNoSort     = status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	errNoFilters  = status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	errNoLeader   = rpctypes.ErrGRPCNoLeader
	errDuplicate  = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
	errEmptyRange = errors.New("mvcc: watcher range is empty")
)

// errorDomain marks the details of Concord's errors.
const errorDomain = "concord"

// errorRow says how an error of kv goes out: as etcd's status for the same
// situation. The reason goes along, in the details, where several errors of kv
// share one status, or where etcd has none.
type errorRow struct {
	err    error
	status error
	reason string
}

// errorTable is searched from the top with errors.Is, so what wraps another
// error stands before it.
var errorTable = []errorRow{
	{kv.ErrLeaderChanged, rpctypes.ErrGRPCLeaderChanged, ""},
	{kv.ErrTimeout, rpctypes.ErrGRPCTimeout, ""},
	{kv.ErrRequestTooOld, status.Error(codes.FailedPrecondition, "etcdserver: "+kv.ErrRequestTooOld.Message), "REQUEST_TOO_OLD"},
	{kv.ErrUnavailable, rpctypes.ErrGRPCTimeoutDueToConnectionLost, ""},
	{kv.ErrNoLeader, rpctypes.ErrGRPCNoLeader, ""},
	{kv.ErrClosed, rpctypes.ErrGRPCStopped, ""},
	{kv.ErrNotMoved, rpctypes.ErrGRPCTimeout, "NOT_MOVED"},
	{kv.ErrTooManyClients, rpctypes.ErrGRPCRequestTooManyRequests, "TOO_MANY_CLIENTS"},
	{kv.ErrTooManyUploads, rpctypes.ErrGRPCRequestTooManyRequests, "TOO_MANY_UPLOADS"},
	{kv.ErrOverloaded, rpctypes.ErrGRPCRequestTooManyRequests, ""},
	{kv.ErrNoMemory, rpctypes.ErrGRPCNoSpace, "NO_MEMORY"},
	{kv.ErrNoSpace, rpctypes.ErrGRPCNoSpace, ""},
	{kv.ErrRateLimited, rpctypes.ErrGRPCRequestTooManyRequests, "RATE_LIMITED"},
	{kv.ErrTooManyStreams, rpctypes.ErrGRPCRequestTooManyRequests, "TOO_MANY_STREAMS"},
	{kv.ErrTooManyWatches, rpctypes.ErrGRPCRequestTooManyRequests, "TOO_MANY_WATCHES"},
	{kv.ErrTooManyLogins, rpctypes.ErrGRPCRequestTooManyRequests, "TOO_MANY_LOGINS"},
	{kv.ErrSlowReader, status.Error(codes.Unavailable, "etcdserver: "+kv.ErrSlowReader.Message), "SLOW_READER"},
	{kv.ErrDivergent, rpctypes.ErrGRPCCorrupt, "DIVERGENT"},
	{kv.ErrCorrupt, rpctypes.ErrGRPCCorrupt, ""},
	{kv.ErrEmptyKey, rpctypes.ErrGRPCEmptyKey, ""},
	{kv.ErrKeyTooLarge, rpctypes.ErrGRPCRequestTooLarge, "KEY_TOO_LARGE"},
	{kv.ErrRequestTooLarge, rpctypes.ErrGRPCRequestTooLarge, ""},
	{kv.ErrTooManyOps, rpctypes.ErrGRPCTooManyOps, ""},
	{kv.ErrDuplicateKey, rpctypes.ErrGRPCDuplicateKey, ""},
	{kv.ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound, ""},
	{kv.ErrValueProvided, rpctypes.ErrGRPCValueProvided, ""},
	{kv.ErrLeaseProvided, rpctypes.ErrGRPCLeaseProvided, ""},
	{kv.ErrInvalidSort, rpctypes.ErrGRPCInvalidSortOption, ""},
	{kv.ErrInvalidTTL, status.Error(codes.InvalidArgument, "etcdserver: "+kv.ErrInvalidTTL.Message), "INVALID_TTL"},
	{kv.ErrTTLTooLarge, rpctypes.ErrGRPCLeaseTTLTooLarge, ""},
	{kv.ErrCompacted, rpctypes.ErrGRPCCompacted, ""},
	{kv.ErrFutureRevision, rpctypes.ErrGRPCFutureRev, ""},
	{kv.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound, ""},
	{kv.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist, ""},
	{kv.ErrMemberNotFound, rpctypes.ErrGRPCMemberNotFound, ""},
	{kv.ErrMemberExists, rpctypes.ErrGRPCMemberExist, ""},
	{kv.ErrNotLeader, rpctypes.ErrGRPCNotLeader, ""},
	{kv.ErrNotLearner, rpctypes.ErrGRPCMemberNotLearner, ""},
	{kv.ErrLearnerNotReady, rpctypes.ErrGRPCLearnerNotReady, ""},
	{kv.ErrUnhealthyCluster, rpctypes.ErrGRPCUnhealthy, ""},
	{kv.ErrUnsupported, rpctypes.ErrGRPCNotCapable, ""},
	{kv.ErrPermissionDenied, rpctypes.ErrGRPCPermissionDenied, ""},
	{kv.ErrUserEmpty, rpctypes.ErrGRPCUserEmpty, ""},
	{kv.ErrInvalidAuthToken, rpctypes.ErrGRPCInvalidAuthToken, ""},
	{kv.ErrAuthOldRevision, rpctypes.ErrGRPCAuthOldRevision, ""},
	{kv.ErrAuthFailed, rpctypes.ErrGRPCAuthFailed, ""},
	{kv.ErrAuthNotEnabled, rpctypes.ErrGRPCAuthNotEnabled, ""},
	{kv.ErrRootUserNotFound, rpctypes.ErrGRPCRootUserNotExist, ""},
	{kv.ErrRootRoleNotGranted, rpctypes.ErrGRPCRootRoleNotExist, ""},
	{kv.ErrUserExists, rpctypes.ErrGRPCUserAlreadyExist, ""},
	{kv.ErrUserNotFound, rpctypes.ErrGRPCUserNotFound, ""},
	{kv.ErrRoleEmpty, rpctypes.ErrGRPCRoleEmpty, ""},
	{kv.ErrRoleExists, rpctypes.ErrGRPCRoleAlreadyExist, ""},
	{kv.ErrRoleNotFound, rpctypes.ErrGRPCRoleNotFound, ""},
	{kv.ErrRoleNotGranted, rpctypes.ErrGRPCRoleNotGranted, ""},
	{kv.ErrPermissionNotGiven, rpctypes.ErrGRPCPermissionNotGiven, ""},
	{kv.ErrPermissionNotGranted, rpctypes.ErrGRPCPermissionNotGranted, ""},
	{kv.ErrInvalidAuthManagement, rpctypes.ErrGRPCInvalidAuthMgmt, ""},
}

// codeTable is for errors that are not in errorTable.
var codeTable = map[kv.Code]codes.Code{
	kv.Internal:           codes.Unknown, // as etcd sends what it does not know
	kv.InvalidArgument:    codes.InvalidArgument,
	kv.NotFound:           codes.NotFound,
	kv.Exists:             codes.FailedPrecondition, // as etcd does, not AlreadyExists
	kv.FailedPrecondition: codes.FailedPrecondition,
	kv.OutOfRange:         codes.OutOfRange,
	kv.ResourceExhausted:  codes.ResourceExhausted,
	kv.Unavailable:        codes.Unavailable,
	kv.PermissionDenied:   codes.PermissionDenied,
	kv.Unauthenticated:    codes.Unauthenticated,
	kv.DataLoss:           codes.DataLoss,
	kv.Canceled:           codes.Canceled,
	kv.Unsupported:        codes.Unimplemented,
}

// toStatus turns an error of a store or cluster into the one that etcd sends.
func toStatus(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err // gRPC turns a context's error into its status itself
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for i := range errorTable {
		if row := &errorTable[i]; errors.Is(err, row.err) {
			return row.detail(err)
		}
	}
	var e *kv.Error
	if !errors.As(err, &e) {
		return status.Error(codes.Unknown, err.Error())
	}
	return withDetail(status.New(codeTable[e.Code], "etcdserver: "+err.Error()), &errdetails.ErrorInfo{
		Reason: "OTHER", Metadata: map[string]string{"message": err.Error()},
	})
}

// detail adds to the row's status what it alone would lose.
func (r *errorRow) detail(err error) error {
	info := &errdetails.ErrorInfo{Reason: r.reason}
	var compacted *kv.CompactedError
	if errors.As(err, &compacted) {
		info.Metadata = map[string]string{"compacted": strconv.FormatInt(int64(compacted.Compacted), 10)}
	} else if msg := err.Error(); msg != r.err.Error() {
		info.Metadata = map[string]string{"message": msg}
	}
	if info.Reason == "" && info.Metadata == nil {
		return r.status
	}
	st, _ := status.FromError(r.status)
	return withDetail(st, info)
}

func withDetail(st *status.Status, info *errdetails.ErrorInfo) error {
	info.Domain = errorDomain
	detailed, err := st.WithDetails(info)
	if err != nil { // only for a status of code OK, which no row has
		return st.Err()
	}
	return detailed.Err()
}

// appendStatus appends what toStatus makes of err as the field fieldStatus.
func appendStatus(b []byte, err error) []byte {
	text, merr := proto.Marshal(status.Convert(toStatus(err)).Proto())
	if merr != nil { // a message that is no UTF-8
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, fieldStatus, protowire.BytesType), text)
}
