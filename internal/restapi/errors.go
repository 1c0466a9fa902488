package restapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/concord-kv/concord/kv"
)

// Error is the body of every answer that is none.
type Error struct {
	// Code is a [kv.Code] in snake_case.
	Code    string `json:"code"`
	Message string `json:"message"`
	// Next is the next step; empty where the message says it, or none is known.
	Next string `json:"next"`
}

// statuses has every code of kv.
var statuses = map[kv.Code]int{
	kv.Internal:           http.StatusInternalServerError,
	kv.InvalidArgument:    http.StatusBadRequest,
	kv.NotFound:           http.StatusNotFound,
	kv.Exists:             http.StatusConflict,
	kv.FailedPrecondition: http.StatusConflict,
	kv.OutOfRange:         http.StatusBadRequest,
	kv.ResourceExhausted:  http.StatusTooManyRequests,
	kv.Unavailable:        http.StatusServiceUnavailable,
	kv.PermissionDenied:   http.StatusForbidden,
	kv.Unauthenticated:    http.StatusUnauthorized,
	kv.DataLoss:           http.StatusInternalServerError,
	kv.Canceled:           http.StatusServiceUnavailable,
	kv.Unsupported:        http.StatusNotImplemented,
}

// nexts are next steps for errors that do not bring their own. The first match
// counts.
var nexts = []struct {
	is   error
	next string
}{
	{kv.ErrMemberNotFound, "'concord cluster members' lists the members"},
	{kv.ErrMemberExists, "'concord cluster members' shows who has that address"},
	{kv.ErrLearnerNotReady, "ask again when 'concord cluster status' shows that it is not behind any more"},
	{kv.ErrNotLearner, "'concord cluster members' shows who votes"},
	{kv.ErrUnhealthyCluster, "'concord cluster status' shows how the members are; a change that is under way ends by itself"},
	{kv.ErrNotMoved, "'concord cluster status' shows how the members are"},
	{kv.ErrNoLeader, "'concord cluster status' shows who is missing"},
	{kv.ErrPermissionDenied, "ask as a user, or with an access token, that has the right or the role root"},
	{kv.ErrUserEmpty, "send an access token in the header Authorization, or log in and send what that gives"},
	{kv.ErrInvalidAuthToken, "log in anew, or send another access token: this one is unknown, revoked or has expired"},
	{errSecretShown, "give its id, its name or the SHA-256 of the secret; and revoke it, if others can read along"},
	{kv.ErrTokenNotFound, "'concord token ls' lists the access tokens"},
	{kv.ErrTokenExists, "choose another name; 'concord token ls' lists those that are taken"},
	{kv.ErrRoleNotFound, "'concord role ls' lists the roles"},
}

// codeName writes a code as in JSON.
func codeName(c kv.Code) string { return strings.ReplaceAll(c.String(), " ", "_") }

// ErrorOf describes err, and tells the HTTP status.
func ErrorOf(err error) (e Error, status int) {
	code := kv.CodeOf(err)
	e = Error{Code: codeName(code), Message: err.Error(), Next: kv.NextStep(err)}
	for _, n := range nexts {
		if e.Next == "" && errors.Is(err, n.is) {
			e.Next = n.next
		}
	}
	return e, statuses[code]
}

// Err is the error that e describes, with its code and next step.
func (e *Error) Err() error {
	code := kv.Internal
	for c := range statuses {
		if codeName(c) == e.Code {
			code = c
		}
	}
	return kv.WithNext(&kv.Error{Code: code, Message: e.Message}, e.Next)
}

// Refuse answers with err.
func Refuse(w http.ResponseWriter, err error) {
	e, status := ErrorOf(err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	write(w, status, e)
}
