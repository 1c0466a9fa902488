package kv

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"time"
)

// TokenPrefix begins every secret of an access token, so that tools which look
// for secrets in sources and logs find it.
const TokenPrefix = "sk_concord_"

// A secret is the prefix, 43 characters that are drawn at random, which are
// 43·log2(62) > 256 bits, and a CRC-32 of what precedes it in 6 digits of base
// 62: the shape of GitHub's tokens ("Behind GitHub's new authentication token
// formats", 2021). The checksum tells a typing error from a token that is not
// known, without asking anybody; it protects nothing.
const (
	secretDigits   = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretRandom   = 43
	secretChecksum = 6
	// SecretLength is how long every secret is, in bytes.
	SecretLength = len(TokenPrefix) + secretRandom + secretChecksum
)

// NewSecretToken makes the secret of an access token of 256 random bits, in
// letters and digits. Its [TokenID], which [ParseSecretToken] gives, is all that
// may be kept of it.
func NewSecretToken() string {
	const fair = 256 / len(secretDigits) * len(secretDigits)
	secret := append(make([]byte, 0, SecretLength), TokenPrefix...)
	for random := make([]byte, 64); len(secret) < SecretLength-secretChecksum; {
		_, _ = rand.Read(random) // never fails, by its documentation
		for _, b := range random {
			if int(b) < fair && len(secret) < SecretLength-secretChecksum {
				secret = append(secret, secretDigits[int(b)%len(secretDigits)])
			}
		}
	}
	sum := checksumOf(string(secret))
	return string(append(secret, sum[:]...))
}

// checksumOf goes byte by byte, since crc32.ChecksumIEEE wants its bytes on the
// heap.
func checksumOf(secret string) (digits [secretChecksum]byte) {
	sum := ^uint32(0)
	for i := range len(secret) {
		sum = crc32.IEEETable[byte(sum)^secret[i]] ^ sum>>8
	}
	sum = ^sum
	for i := range digits {
		digits[len(digits)-1-i] = secretDigits[sum%uint32(len(secretDigits))]
		sum /= uint32(len(secretDigits))
	}
	return digits
}

// ParseSecretToken gives the id of an access token, which is the SHA-256 of its
// secret. A secret that cannot be one, because it was cut off or mistyped, gets
// an error that says so without a part of it, and is an [ErrInvalidAuthToken].
// It makes no garbage.
func ParseSecretToken(secret string) (TokenID, error) {
	switch {
	case len(secret) < len(TokenPrefix) || secret[:len(TokenPrefix)] != TokenPrefix:
		return TokenID{}, errSecretPrefix
	case len(secret) != SecretLength:
		return TokenID{}, errSecretLength
	}
	const random = SecretLength - secretChecksum
	if sum := checksumOf(secret[:random]); string(sum[:]) != secret[random:] {
		return TokenID{}, errSecretChecksum
	}
	var buf [SecretLength]byte
	copy(buf[:], secret)
	return sha256.Sum256(buf[:]), nil
}

// Errors of secrets. They are [ErrInvalidAuthToken], too.
var (
	errSecretPrefix   = &Error{Code: Unauthenticated, Message: "invalid auth token: an access token begins with " + TokenPrefix, Err: ErrInvalidAuthToken}
	errSecretLength   = &Error{Code: Unauthenticated, Message: "invalid auth token: an access token has 60 characters; this one was not copied whole", Err: ErrInvalidAuthToken}
	errSecretChecksum = &Error{Code: Unauthenticated, Message: "invalid auth token: its checksum does not fit; a character of it is wrong", Err: ErrInvalidAuthToken}
)

// String gives the beginning of the id in hexadecimal, 16 digits: what tokens
// are called in lists and logs. It is no secret.
func (id TokenID) String() string { return hex.EncodeToString(id[:8]) }

// Roles with a meaning beside [RootName]: whoever has one has the [Right] of its
// name, and by it no right to any key. A user gets them as any role, after they
// were made; an access token also if they were not.
//
// Whoever has [AuthAdminRole] but not [RootName] cannot become root by it: only root
// switches authentication off, gives the role root, and changes users and tokens
// that have it.
const (
	ClusterRole   = "concord:cluster"   // [ManageCluster]
	AuthAdminRole = "concord:auth"      // [ManageAuth]
	BackupRole    = "concord:backup"    // [TakeBackup]
	TelemetryRole = "concord:telemetry" // [ReadTelemetry]
)

// The bounds of what is kept of access tokens.
const (
	// MaxAccessTokens is how many there can be.
	MaxAccessTokens = 10_000
	// MaxTokenName is the longest name, in bytes.
	MaxTokenName = 128
	// MaxTokenRights is how many roles and permissions one token can have, and
	// MaxTokenBytes how long all of them together can be, with the name.
	MaxTokenRights = 256
	MaxTokenBytes  = 64 << 10
)

// AccessToken is a credential of its own, with rights of its own: what a program
// shows that has no user. Only the id is kept of its secret.
//
// A call that shows one has the [Caller.User] "token:" and the name, or the id
// where there is no name. It is no user: [Users] does not know it.
type AccessToken struct {
	ID TokenID
	// Name may be empty. No two tokens have the same.
	Name string
	// Roles are the names of its roles, in order.
	Roles []string
	// Permissions are its own, beside those of its roles, in the order of
	// their keys.
	Permissions []Permission
	// Created is when it was made and Expires when it stops being good, in
	// cluster time; Expires 0 is never.
	Created, Expires Time
	// LastUsed is the hour, by its own clock, in which the member that was
	// asked saw it last; zero when it has not since it started.
	LastUsed time.Time
}

// NewAccessToken asks for an access token.
type NewAccessToken struct {
	// ID is that of the secret, which does not leave whoever made it.
	ID TokenID
	// Name may be empty; it has no control characters.
	Name string
	// Roles and Permissions are what it may do. Both may be empty: then it
	// may do what any user may, which is nothing with keys.
	Roles       []string
	Permissions []Permission
	// TTL is how long it is good, in cluster time, at most [MaxTTL]; 0 is for
	// ever.
	TTL time.Duration
}

// AccessTokens makes and ends access tokens, which are good at once on every
// member that has applied it. A store may have it beside [Authority].
//
// No change of access tokens counts for [AuthStatus.Revision].
type AccessTokens interface {
	// CreateToken makes a token good. It needs [ManageAuth], and the role root
	// for a token with that role. It returns [ErrTokenExists],
	// [ErrRoleNotFound], [ErrInvalidAuthManagement] for a permission without
	// keys, and [ErrTooManyTokens].
	CreateToken(ctx context.Context, t NewAccessToken) (AccessToken, Header, error)
	// AccessTokens lists the tokens by name, those without one last, by id.
	// It needs [ManageAuth]; a token without that right gets itself. It is a
	// linearizable read.
	AccessTokens(ctx context.Context) ([]AccessToken, Header, error)
	// RevokeAccessToken ends a token: no member decides for it any more that
	// has applied that, and its watches end. It needs [ManageAuth], and the
	// role root for a token with that role. It returns [ErrTokenNotFound], and
	// [ErrLastRoot] for the only way to be root.
	RevokeAccessToken(ctx context.Context, id TokenID) (Header, error)
	// Can tells what somebody may do, and by which rule. It needs
	// [ManageAuth], or to be about the caller. It is a linearizable read.
	Can(ctx context.Context, q Question) (Verdict, error)
}

// Question asks whether somebody may read or write keys.
type Question struct {
	// User is whom it is about; where it is empty, the access token Token.
	User  string
	Token TokenID
	// Access is reading, writing, or both.
	Access Access
	// Key and End select the keys, as in [Range].
	Key, End []byte
}

// Verdict answers a [Question].
type Verdict struct {
	Header
	Allowed bool
	// Because says why, in a word.
	Because Because
	// Rules are what together allow it, in the order of their keys, where
	// Because is [BecauseOfRules].
	Rules []Rule
	// Missing is the first of the keys that nothing allows, where Because is
	// [BecauseNoRule], and MissingAccess whether it is reading or writing.
	Missing       []byte
	MissingAccess Access
}

// Rule is a permission and where it comes from.
type Rule struct {
	// Role is whose permission it is; empty for one that the token has itself.
	Role string
	Permission
}

// Because is why something is allowed or not.
type Because uint8

// The reasons.
const (
	// BecauseOff: authentication is off, everybody may do everything.
	BecauseOff Because = iota
	// BecauseRoot: the role root may do everything.
	BecauseRoot
	// BecauseOfRules: permissions allow it.
	BecauseOfRules
	// BecauseNoRule: permissions do not allow all of it.
	BecauseNoRule
	// BecauseUnknown: there is no such user or token; it may have expired or
	// been revoked.
	BecauseUnknown
)

var becauseNames = [...]string{"authentication is off", "role root", "permissions", "no permission", "unknown user or token"}

// String gives the reason in words.
func (b Because) String() string {
	if int(b) < len(becauseNames) {
		return becauseNames[b]
	}
	return "unknown reason"
}

// Errors about access tokens.
var (
	ErrTokenExists   = &Error{Code: Exists, Message: "an access token of that name or secret exists already"}
	ErrTokenNotFound = &Error{Code: NotFound, Message: "access token not found"}
	ErrTooManyTokens = &Error{Code: ResourceExhausted, Message: "there are 10000 access tokens already; revoke some that are not used"}
	ErrLastRoot      = &Error{Code: FailedPrecondition, Message: "nobody else has the role root for good; make another access token with it first, or a user root"}
	ErrAuthSetUp     = &Error{Code: FailedPrecondition, Message: "authentication has been set up already"}
)

// WithTokenID returns a context whose calls are made by whoever shows the access
// or session token of that id. The store looks it up at each call; calls get
// [ErrInvalidAuthToken] where it is not good.
//
// It is for embedding programs, and for stores over the network, which have the
// secret. A server uses [Tokens.TokenCaller] and [WithCaller].
func WithTokenID(ctx context.Context, id TokenID) context.Context {
	return &callerContext{ctx, Caller{User: tokenUser, Token: NoTokenMark}, &id}
}

// TokenIDOf returns the id that [WithTokenID] gave to ctx, or nil where the
// caller is known otherwise, or there is none.
func TokenIDOf(ctx context.Context) *TokenID {
	id, _ := ctx.Value(tokenKey{}).(*TokenID)
	if CallerOf(ctx) == nil {
		return nil
	}
	return id
}

// NoTokenMark is the mark of no token: what a caller has whose token was not
// looked up. No store keeps a token with it.
const NoTokenMark = 1<<64 - 1

// tokenUser begins the names of callers with access tokens.
const tokenUser = "token:"

// TokenUser is the [Caller.User] of an access token.
func TokenUser(id TokenID, name string) string {
	if name == "" {
		return tokenUser + id.String()
	}
	return tokenUser + name
}
