package kv

import (
	"context"
	"encoding/binary"
	"time"
)

// Caller is who makes a call, as whoever let the call in has found out. The
// store decides what a caller may do, when it does it.
//
// A context without a caller is the embedding program's own: it may do
// everything. A server attaches a caller to every call that comes in from
// outside, also where it knows nothing of it: the zero Caller is anonymous, and
// may do nothing once authentication is on. While it is off, everybody may do
// everything.
type Caller struct {
	// User is the user's name; empty for an anonymous caller.
	User string
	// AuthRevision is the [AuthStatus.Revision] at which the caller proved to
	// be that user: what a token says, or the current one where the proof came
	// with the call, as a certificate does. 0 means that there is no proof.
	// Operations on keys are refused with [ErrAuthOldRevision] once users,
	// roles or permissions have changed since, as in etcd; clients then
	// authenticate again.
	AuthRevision uint64
	// Token is the [TokenID.Mark] of the kept token that is the proof; 0 where
	// there is another one. With it AuthRevision does not matter: the caller is
	// whom the token stands for, for as long as the token is good where and
	// when the call is decided, and afterwards is refused with
	// [ErrInvalidAuthToken]. A watch goes on when a [Token] is over, and ends
	// with an [AccessToken].
	Token uint64
}

type (
	callerKey struct{}
	tokenKey  struct{}
)

// callerContext is a context with a caller, in one allocation: every call that a
// server lets in has one.
type callerContext struct {
	context.Context
	caller Caller
	token  *TokenID // see WithTokenID
}

// Value implements [context.Context].
func (c *callerContext) Value(key any) any {
	switch key {
	case callerKey{}:
		return &c.caller
	case tokenKey{}:
		return c.token
	}
	return c.Context.Value(key)
}

// WithCaller returns a context whose calls are made in the name of c.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return &callerContext{ctx, c, nil}
}

// CallerOf returns in whose name calls with ctx are made, or nil when they are
// the embedding program's own. The result must not be changed.
func CallerOf(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// WithoutCaller returns a context whose calls are the program's own, as those of
// a context that never had a caller.
func WithoutCaller(ctx context.Context) context.Context {
	if CallerOf(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, (*Caller)(nil))
}

// RootName names the role that may do everything, and the user that must have
// it before authentication can be switched on.
const RootName = "root"

// The bounds of what is kept of users and roles.
const (
	// MaxAuthName is the longest name of a user or role, in bytes.
	MaxAuthName = 1 << 10
	// MaxPassword is the longest password, in bytes.
	MaxPassword = 512
)

// Access is what a permission allows to do with keys. The numbers are etcd's.
type Access uint8

// The kinds of access.
const (
	ReadAccess Access = iota
	WriteAccess
	ReadWriteAccess
)

var accessNames = [...]string{"read", "write", "readwrite"}

// String gives the name as etcdctl takes it: read, write or readwrite.
func (a Access) String() string {
	if int(a) < len(accessNames) {
		return accessNames[a]
	}
	return "unknown"
}

// Permission gives access to the keys that Key and End select, as in [Range].
// Permissions of one user add up: a range is allowed when together they cover
// it.
type Permission struct {
	Access   Access
	Key, End []byte
}

// User is somebody who can be given roles.
type User struct {
	Name string
	// NoPassword users cannot log in with a password.
	NoPassword bool
	// Roles are the names of the user's roles, in order.
	Roles []string
}

// NewUser asks for a user.
type NewUser struct {
	Name string
	// Password may be empty. It is hashed before it leaves the member.
	Password string
	// Hash is used in place of Password when it is not empty: a hash of
	// argon2id or bcrypt in its usual text form ("$argon2id$…", "$2a$…"), as
	// an import from another store has it.
	Hash string
	// NoPassword makes a user who cannot log in with a password.
	NoPassword bool
}

// AuthRole is a set of permissions that users can be given. (A [Role] is a
// member's in Raft.)
type AuthRole struct {
	Name string
	// Permissions are in the order of their keys. [RootName] has one: read and
	// write of everything, with an empty key.
	Permissions []Permission
}

// AuthStatus tells how authentication stands.
type AuthStatus struct {
	Header
	// Enabled says that it is on.
	Enabled bool
	// Revision counts the changes of users, roles and permissions, from 1 as
	// in etcd.
	Revision uint64
}

// Right is what a caller needs for a call that is not about keys.
type Right uint8

// The rights. The role [RootName] has all of them.
const (
	// AnyUser is the right of everybody who is not anonymous.
	AnyUser Right = iota
	// ManageCluster: members, leadership, settings, compaction, alarms.
	ManageCluster
	// ManageAuth: users, roles and permissions.
	ManageAuth
	// TakeBackup: snapshots and hashes of the whole state.
	TakeBackup
	// ReadTelemetry: metrics and debug pages.
	ReadTelemetry
)

// Authority keeps users, roles and tokens, and says who may do what. A store
// that has it refuses what the [Caller] of a context may not do, with
// [ErrPermissionDenied], [ErrUserEmpty] for an anonymous caller,
// [ErrAuthOldRevision] or [ErrInvalidAuthToken].
//
// Changes need [ManageAuth] while authentication is on. They are made by a
// majority, as writes are, and count for every later operation; no change moves
// the store's revision.
type Authority interface {
	Guard
	Users
	Roles
	Tokens
}

// Guard is the door: whether it is shut, and who may pass.
type Guard interface {
	// EnableAuth switches authentication on. It returns
	// [ErrRootUserNotFound] or [ErrRootRoleNotGranted] unless the user
	// [RootName] has the role of that name. When it is on already, nothing
	// happens.
	EnableAuth(ctx context.Context) (Header, error)
	// DisableAuth switches authentication off.
	DisableAuth(ctx context.Context) (Header, error)
	// AuthStatus is a linearizable read that everybody may make.
	AuthStatus(ctx context.Context) (AuthStatus, error)
	// Auth is the status as this member has applied it, at the cost of a few
	// loads. Its header is zero.
	Auth() AuthStatus
	// CheckPassword finds out whether that is the user's password, and returns
	// the auth revision at which it was. It returns [ErrAuthNotEnabled],
	// [ErrAuthFailed] and, for a user without password, an error that wraps
	// it. It takes tens of milliseconds of processor time, also for users that
	// do not exist; few checks run at once and the others wait, or get
	// [ErrOverloaded] where a thousand do. The context's caller has no effect.
	CheckPassword(ctx context.Context, user, password string) (authRevision uint64, err error)
	// Authorize returns nil when the context's caller has the right. Calls of
	// a store or cluster check for themselves; this is for what a server does
	// without them, such as sending a snapshot, and before work that a refusal
	// would waste.
	Authorize(ctx context.Context, r Right) error
}

// Users changes and lists users.
type Users interface {
	// AddUser returns [ErrUserEmpty] and [ErrUserExists].
	AddUser(ctx context.Context, u NewUser) (Header, error)
	// User returns a user, or [ErrUserNotFound]. Everybody may ask about
	// themselves. It is a linearizable read.
	User(ctx context.Context, name string) (User, Header, error)
	// Users lists the names in order. It is a linearizable read.
	Users(ctx context.Context) ([]string, Header, error)
	// DeleteUser returns [ErrUserNotFound], and [ErrInvalidAuthManagement]
	// for [RootName] while authentication is on.
	DeleteUser(ctx context.Context, name string) (Header, error)
	// SetPassword returns [ErrUserNotFound]. With an empty password the user
	// cannot log in with one any more; users without password stay so.
	SetPassword(ctx context.Context, name, password string) (Header, error)
	// GrantRole returns [ErrUserNotFound] and [ErrRoleNotFound]. A role that
	// the user has already changes nothing.
	GrantRole(ctx context.Context, user, role string) (Header, error)
	// RevokeRole returns [ErrUserNotFound], [ErrRoleNotGranted], and
	// [ErrInvalidAuthManagement] for root's role root while authentication is
	// on.
	RevokeRole(ctx context.Context, user, role string) (Header, error)
}

// Roles changes and lists roles.
type Roles interface {
	// AddRole returns [ErrRoleEmpty] and [ErrRoleExists].
	AddRole(ctx context.Context, name string) (Header, error)
	// AuthRole returns a role, or [ErrRoleNotFound]. Everybody may ask about
	// the roles that they have. It is a linearizable read.
	AuthRole(ctx context.Context, name string) (AuthRole, Header, error)
	// AuthRoles lists the names in order. It is a linearizable read.
	AuthRoles(ctx context.Context) ([]string, Header, error)
	// DeleteRole also takes the role from all users. It returns
	// [ErrRoleNotFound], and [ErrInvalidAuthManagement] for [RootName] while
	// authentication is on.
	DeleteRole(ctx context.Context, name string) (Header, error)
	// GrantPermission adds a permission, or changes the access of one with the
	// same key and end. It returns [ErrRoleNotFound], and
	// [ErrInvalidAuthManagement] for an empty key or range.
	GrantPermission(ctx context.Context, role string, p Permission) (Header, error)
	// RevokePermission takes away what was granted with exactly that key and
	// end. It returns [ErrRoleNotFound] and [ErrPermissionNotGranted].
	RevokePermission(ctx context.Context, role string, key, end []byte) (Header, error)
}

// TokenID is the SHA-256 of a bearer token: all that is kept of it. The token
// itself must be random, of at least 128 bits.
type TokenID [32]byte

// Mark is the beginning of the id: enough to tell tokens apart that nobody
// could choose.
func (id TokenID) Mark() uint64 { return binary.BigEndian.Uint64(id[:]) }

// Token stands for a caller that has proved who it is.
type Token struct {
	ID TokenID
	// Caller is whom it stands for.
	Caller Caller
	// TTL is how long it is good after it was made or last renewed, in cluster
	// time; it must be positive.
	TTL time.Duration
}

// Tokens keeps bearer tokens in the replicated state, so that they are good on
// every member, and after a restart.
type Tokens interface {
	// AddToken makes a token good. It returns [ErrAuthOldRevision] when users,
	// roles or permissions have changed since t.Caller.AuthRevision: check
	// again who it is. Only who has checked that may call it; the context's
	// caller has no effect. There is room for some ten thousand tokens a user,
	// and for eight times as many in all: where that is not enough, the token
	// goes that would be over first, of that user or else of the user who has
	// most.
	AddToken(ctx context.Context, t Token) (Header, error)
	// TokenCaller returns for whom a token stands, or who an [AccessToken] is,
	// or [ErrInvalidAuthToken]. Use renews a token, now and then. It costs a look-up; only for a token
	// that this member does not know it asks whether others do. What this
	// member has applied decides here; the caller has the token's mark, by
	// which calls are decided once more.
	TokenCaller(ctx context.Context, id TokenID) (Caller, error)
	// RevokeToken makes a token worthless, on every member as soon as it has
	// applied that. One that is not there is no error. It needs [ManageAuth].
	RevokeToken(ctx context.Context, id TokenID) (Header, error)
}

// Errors about who may do what. Their messages are etcd's.
var (
	ErrPermissionDenied      = &Error{Code: PermissionDenied, Message: "permission denied"}
	ErrUserEmpty             = &Error{Code: Unauthenticated, Message: "user name is empty"}
	ErrInvalidAuthToken      = &Error{Code: Unauthenticated, Message: "invalid auth token"}
	ErrAuthOldRevision       = &Error{Code: Unauthenticated, Message: "revision of auth store is old"}
	ErrAuthFailed            = &Error{Code: Unauthenticated, Message: "authentication failed, invalid user ID or password"}
	ErrNoPasswordUser        = &Error{Code: Unauthenticated, Message: "authentication failed, password was given for no password user", Err: ErrAuthFailed}
	ErrAuthNotEnabled        = &Error{Code: FailedPrecondition, Message: "authentication is not enabled"}
	ErrRootUserNotFound      = &Error{Code: FailedPrecondition, Message: "root user does not exist"}
	ErrRootRoleNotGranted    = &Error{Code: FailedPrecondition, Message: "root user does not have root role"}
	ErrUserExists            = &Error{Code: Exists, Message: "user name already exists"}
	ErrUserNotFound          = &Error{Code: NotFound, Message: "user name not found"}
	ErrRoleEmpty             = &Error{Code: InvalidArgument, Message: "role name is empty"}
	ErrRoleExists            = &Error{Code: Exists, Message: "role name already exists"}
	ErrRoleNotFound          = &Error{Code: NotFound, Message: "role name not found"}
	ErrRoleNotGranted        = &Error{Code: FailedPrecondition, Message: "role is not granted to the user"}
	ErrPermissionNotGiven    = &Error{Code: InvalidArgument, Message: "permission not given"}
	ErrPermissionNotGranted  = &Error{Code: FailedPrecondition, Message: "permission is not granted to the role"}
	ErrInvalidAuthManagement = &Error{Code: InvalidArgument, Message: "invalid auth management"}
	ErrPasswordTooLong       = &Error{Code: InvalidArgument, Message: "password is too long; at most 512 bytes are allowed"}
	ErrAuthNameTooLong       = &Error{Code: InvalidArgument, Message: "name of a user or role is too long; at most 1024 bytes are allowed"}
)
