package client

import (
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/kv"
)

// byReason has the errors that etcd's messages do not tell apart, by the reason
// in the details of a Concord server's status.
var byReason = map[string]*kv.Error{
	"REQUEST_TOO_OLD":  kv.ErrRequestTooOld,
	"TOO_MANY_CLIENTS": kv.ErrTooManyClients,
	"TOO_MANY_UPLOADS": kv.ErrTooManyUploads,
	"DIVERGENT":        kv.ErrDivergent,
	"KEY_TOO_LARGE":    kv.ErrKeyTooLarge,
	"INVALID_TTL":      kv.ErrInvalidTTL,
	"NOT_MOVED":        kv.ErrNotMoved,
	"NO_MEMORY":        kv.ErrNoMemory,
	"RATE_LIMITED":     kv.ErrRateLimited,
	"TOO_MANY_STREAMS": kv.ErrTooManyStreams,
	"TOO_MANY_WATCHES": kv.ErrTooManyWatches,
	"TOO_MANY_LOGINS":  kv.ErrTooManyLogins,
	"SLOW_READER":      kv.ErrSlowReader,
}

// byMessage has etcd's messages, as its own clients tell errors apart.
var byMessage = map[string]*kv.Error{
	rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaderChanged):              kv.ErrLeaderChanged,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeout):                    kv.ErrTimeout,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeoutDueToLeaderFail):     kv.ErrTimeout,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeoutDueToConnectionLost): kv.ErrUnavailable,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeoutWaitAppliedIndex):    kv.ErrTimeout,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader):                   kv.ErrNoLeader,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCStopped):                    kv.ErrClosed,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooManyRequests):     kv.ErrOverloaded,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCNoSpace):                    kv.ErrNoSpace,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCCorrupt):                    kv.ErrCorrupt,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCEmptyKey):                   kv.ErrEmptyKey,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooLarge):            kv.ErrRequestTooLarge,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCTooManyOps):                 kv.ErrTooManyOps,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCDuplicateKey):               kv.ErrDuplicateKey,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCKeyNotFound):                kv.ErrKeyNotFound,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCValueProvided):              kv.ErrValueProvided,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseProvided):              kv.ErrLeaseProvided,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCInvalidSortOption):          kv.ErrInvalidSort,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseTTLTooLarge):           kv.ErrTTLTooLarge,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCCompacted):                  kv.ErrCompacted,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCFutureRev):                  kv.ErrFutureRevision,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseNotFound):              kv.ErrLeaseNotFound,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseExist):                 kv.ErrLeaseExists,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotFound):             kv.ErrMemberNotFound,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberExist):                kv.ErrMemberExists,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCPeerURLExist):               kv.ErrMemberExists,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCBadLeaderTransferee):        kv.ErrMemberNotFound,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCNotLeader):                  kv.ErrNotLeader,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotLearner):           kv.ErrNotLearner,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCLearnerNotReady):            kv.ErrLearnerNotReady,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCUnhealthy):                  kv.ErrUnhealthyCluster,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotEnoughStarted):     kv.ErrUnhealthyCluster,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCNotCapable):                 kv.ErrUnsupported,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCPermissionDenied):           kv.ErrPermissionDenied,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCUserEmpty):                  kv.ErrUserEmpty,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCInvalidAuthToken):           kv.ErrInvalidAuthToken,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCAuthOldRevision):            kv.ErrAuthOldRevision,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCAuthFailed):                 kv.ErrAuthFailed,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCAuthNotEnabled):             kv.ErrAuthNotEnabled,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCRootUserNotExist):           kv.ErrRootUserNotFound,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCRootRoleNotExist):           kv.ErrRootRoleNotGranted,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCUserAlreadyExist):           kv.ErrUserExists,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCUserNotFound):               kv.ErrUserNotFound,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCRoleEmpty):                  kv.ErrRoleEmpty,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCRoleAlreadyExist):           kv.ErrRoleExists,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCRoleNotFound):               kv.ErrRoleNotFound,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCRoleNotGranted):             kv.ErrRoleNotGranted,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCPermissionNotGiven):         kv.ErrPermissionNotGiven,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCPermissionNotGranted):       kv.ErrPermissionNotGranted,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCInvalidAuthMgmt):            kv.ErrInvalidAuthManagement,
}

// byCode is for what is in neither table.
var byCode = map[codes.Code]kv.Code{
	codes.InvalidArgument:    kv.InvalidArgument,
	codes.NotFound:           kv.NotFound,
	codes.AlreadyExists:      kv.Exists,
	codes.FailedPrecondition: kv.FailedPrecondition,
	codes.OutOfRange:         kv.OutOfRange,
	codes.ResourceExhausted:  kv.ResourceExhausted,
	codes.PermissionDenied:   kv.PermissionDenied,
	codes.Unauthenticated:    kv.Unauthenticated,
	codes.DataLoss:           kv.DataLoss,
	codes.Unimplemented:      kv.Unsupported,
}

// grpcTooLarge begins what gRPC itself says of a message over the receiver's
// limit; the two sizes follow in brackets.
const grpcTooLarge = "grpc: received message larger than max"

// tooLarge says what gRPC says in our words, with the sizes if they are there.
func tooLarge(message string) string {
	var size, limit int64
	if _, err := fmt.Sscanf(strings.TrimPrefix(message, grpcTooLarge), " (%d vs. %d)", &size, &limit); err != nil {
		return kv.ErrRequestTooLarge.Message
	}
	return fmt.Sprintf("request of %d bytes is too large; the server takes messages of at most %d", size, limit)
}

// fromStatus turns what a call returned into the error that an embedded store
// would have returned. What no member said, but the connection or gRPC, wraps
// [kv.ErrUnavailable].
func fromStatus(err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err // a context's
	}
	info := detailOf(st)
	switch known := byMessage[st.Message()]; {
	case info != nil && byReason[info.Reason] != nil:
		return withMessage(byReason[info.Reason], info)
	case known == kv.ErrCompacted && info.GetMetadata()["compacted"] != "":
		rev, err := strconv.ParseInt(info.Metadata["compacted"], 10, 64)
		if err == nil {
			return &kv.CompactedError{Compacted: kv.Revision(rev)}
		}
		return known
	case known != nil:
		return withMessage(known, info)
	case st.Code() == codes.DeadlineExceeded:
		return kv.ErrTimeout
	case st.Code() == codes.ResourceExhausted && strings.HasPrefix(st.Message(), grpcTooLarge):
		return &kv.Error{Code: kv.InvalidArgument, Message: tooLarge(st.Message()), Err: kv.ErrRequestTooLarge}
	}
	message := strings.TrimPrefix(st.Message(), "etcdserver: ")
	if code, ok := byCode[st.Code()]; ok {
		return &kv.Error{Code: code, Message: message}
	}
	switch {
	case info == nil: // said by gRPC, not by a member
	case st.Code() == codes.Unavailable:
		return &kv.Error{Code: kv.Unavailable, Message: message}
	case st.Code() == codes.Canceled:
		return &kv.Error{Code: kv.Canceled, Message: message}
	default:
		return &kv.Error{Code: kv.Internal, Message: message}
	}
	return &kv.Error{Code: kv.Unavailable, Message: "connection lost: " + message, Err: kv.ErrUnavailable}
}

func detailOf(st *status.Status) *errdetails.ErrorInfo {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == "concord" {
			return info
		}
	}
	return nil
}

// withMessage gives e the words that the member used, when they say more.
func withMessage(e *kv.Error, info *errdetails.ErrorInfo) error {
	if msg := info.GetMetadata()["message"]; msg != "" {
		return &kv.Error{Code: e.Code, Message: msg, Err: e}
	}
	return e
}
