package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/concord-kv/concord/kv"
)

// codes has the exit code of each kind of error.
var codes = map[kv.Code]int{
	kv.NotFound: exitNotFound, kv.Exists: exitConflict, kv.FailedPrecondition: exitConflict,
	kv.Unavailable: exitUnavailable, kv.ResourceExhausted: exitUnavailable,
	kv.PermissionDenied: exitDenied, kv.Unauthenticated: exitDenied, kv.InvalidArgument: exitUsage,
}

func exitCode(err error) int {
	var silent *silentError
	var usage *usageError
	switch {
	case errors.As(err, &silent):
		return silent.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errConflict):
		return exitConflict
	}
	if code := codes[kv.CodeOf(err)]; code != 0 {
		return code
	}
	switch { // of this machine, not of a store
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.EADDRINUSE):
		return exitConflict
	case errors.Is(err, fs.ErrPermission):
		return exitDenied
	}
	return exitError
}

// hints are for errors that are known by name.
var hints = []struct {
	is   error
	hint string
}{
	{errConflict, "'concord get KEY -o json' shows what is there, with its mod_revision."},
	{kv.ErrKeyTooLarge, "Take a shorter key, or start the members with a larger --max-key-bytes."},
	{kv.ErrRequestTooLarge, "Split the request, or start the members with a larger --max-request-bytes."},
	{kv.ErrTooManyOps, "Split the transaction, or start the members with a larger --max-txn-ops."},
	{kv.ErrInvalidTTL, "Give a time to live of at least 1ms, as in 30s or 5m."},
	{kv.ErrTTLTooLarge, "Give a time to live of at most 9223372036s."},
	{kv.ErrCompacted, "Read at a later revision; history is kept for some minutes only."},
	{kv.ErrFutureRevision, "The latest revision is in every answer of -o json."},
	{kv.ErrLeaseNotFound, "It has run out or was revoked; 'concord lease ls' lists those that live."},
	{kv.ErrLeaseExists, "Leave --id away, or choose another."},
	{kv.ErrDuplicateKey, "A transaction may change each key once."},
	{fs.ErrNotExist, "Check the path."},
	{syscall.ENOTDIR, "That is a file; name a directory."},
	{syscall.EISDIR, "That is a directory; name a file."},
	{kv.ErrUserNotFound, "'concord user ls' lists the users."},
	{kv.ErrUserExists, "'concord user passwd NAME' gives it another password, 'concord user grant NAME ROLE' a role."},
	{kv.ErrRoleNotFound, "'concord role ls' lists the roles."},
	{kv.ErrRoleExists, "'concord role grant NAME' gives it permissions."},
	{kv.ErrRoleNotGranted, "'concord user get NAME' lists the roles of a user."},
	{kv.ErrPermissionNotGranted, "'concord role get NAME' lists what a role permits."},
	{kv.ErrInvalidAuthManagement, "The user root keeps the role root while authentication is on; 'concord auth disable' comes first. A permission needs a key."},
	{kv.ErrRootUserNotFound, "Add it with 'concord user add root', and 'concord user grant root root'."},
	{kv.ErrRootRoleNotGranted, "'concord user grant root root' does that."},
	{kv.ErrInvalidAuthToken, "It is unknown, was revoked or has expired. 'concord token ls' lists the access tokens; 'concord token create' makes one."},
	{syscall.EADDRINUSE, "Another process listens there, maybe another member; choose another address."},
	{syscall.EADDRNOTAVAIL, "The address is not one of this machine; choose one that is, or 0.0.0.0 for all."},
}

// strangers are what gRPC says of a server that is none, or is with TLS where
// the endpoint is without, or the other way round.
var strangers = []string{"server preface", "TLS handshake", "handshake failed", "frame too large", "malformed HTTP"}

// hintFor names the next step after an error, where the error does not.
func hintFor(err error) string {
	var hinted *hintedError
	if errors.As(err, &hinted) {
		return hinted.hint
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return cmp.Or(usage.hint, "Run the command with --help to see what it takes.")
	}
	if code := kv.CodeOf(err); code != kv.PermissionDenied && code != kv.Unauthenticated {
		if next := kv.NextStep(err); next != "" {
			return sentence(next)
		}
	}
	for _, h := range hints {
		if !errors.Is(err, h.is) {
			continue
		}
		if path := h.is == fs.ErrNotExist || h.is == syscall.ENOTDIR; path && strings.Contains(err.Error(), "; ") {
			return "" // it says the next step
		}
		return h.hint
	}
	switch kv.CodeOf(err) {
	case kv.Unavailable:
		for _, sign := range strangers {
			if strings.Contains(err.Error(), sign) {
				return "What answers there is no client port of Concord or etcd, or has TLS where the endpoint has none; check --endpoints."
			}
		}
		return "Is a member running there? Start one with 'concord dev', or name another with --endpoints."
	case kv.PermissionDenied, kv.Unauthenticated:
		return "Give a user who may do this with --user or CONCORD_USER, or a token with --token or CONCORD_TOKEN."
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && errors.Is(err, fs.ErrPermission) {
		return "Ports below 1024 need a right that this user does not have; choose a higher one."
	}
	if errors.Is(err, fs.ErrPermission) && !strings.Contains(err.Error(), "right") {
		return "Run this as the user to whom it belongs, or give this user the right."
	}
	return ""
}

// sentence makes one of a next step, which is written without.
func sentence(text string) string {
	if text == "" || strings.HasPrefix(text, "'") {
		return strings.TrimSuffix(text, ".") + "."
	}
	return strings.ToUpper(text[:1]) + strings.TrimSuffix(text[1:], ".") + "."
}

// message is the error in words. Where it already says what the named error in
// it says, that is not said again, and a text of several lines becomes one.
func message(err error) string {
	text := err.Error()
	for _, h := range hints {
		rest, ok := strings.CutSuffix(text, ": "+h.is.Error())
		if ok && errors.Is(err, h.is) && strings.Contains(rest, "; ") {
			text = rest
		}
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n", " ")), " ")
}

// kinds says how a flag's value of a type is written.
var kinds = map[string]string{
	"duration": "write a duration as 500ms, 30s or 5m", "int": "write a whole number", "int64": "write a whole number", "bool": "write true or false",
}

// flagError is a flag that does not exist or has a value that it cannot have.
func flagError(cmd *cobra.Command, err error) error {
	hint := "See '" + cmd.CommandPath() + " --help' for its flags."
	var invalid *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		err = badValue("--"+invalid.GetFlag().Name, invalid.GetFlag(), invalid.GetValue(), invalid.Unwrap())
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		if near := nearFlags(cmd, unknown.GetSpecifiedName()); len(near) > 0 {
			hint = "Is " + strings.Join(near, " or ") + " meant? " + hint
		}
	case errors.As(err, &unknown) && unicode.IsDigit(rune(unknown.GetSpecifiedName()[0])):
		// A number below zero, which no flag's name is.
		return negative(cmd, "-"+unknown.GetSpecifiedShortnames())
	}
	return &usageError{err, hint}
}

// negative is an argument that is a number below zero.
func negative(cmd *cobra.Command, arg string) error {
	if strings.Contains(cmd.UseLine(), " TTL") {
		return usagef("%q is %w", arg, errTTL)
	}
	return &usageError{
		fmt.Errorf("%q is no flag of '%s'", arg, cmd.CommandPath()),
		"Write -- before the arguments, if it is one: '" + cmd.CommandPath() + " -- " + arg + "'.",
	}
}

// nearFlags are the flags of a command that a name nobody knows may stand for: a
// letter or two are wrong, or a part is missing.
func nearFlags(cmd *cobra.Command, name string) (near []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		part := len(name) >= 3 && (strings.Contains(f.Name, name) || strings.HasPrefix(name, f.Name))
		if !f.Hidden && (part || edits(f.Name, name) <= min(2, len(name)/3)) {
			near = append(near, "--"+f.Name)
		}
	})
	return near[:min(len(near), 3)]
}

// edits is how many letters have to be put in, left out or changed to make b of
// a: Wagner and Fischer, "The String-to-String Correction Problem", JACM 21(1),
// 1974.
func edits(a, b string) int {
	row := make([]int, len(b)+1) // of the distances from a prefix of a
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// badValue says that what was given for a flag, or as a setting, cannot be.
func badValue(where string, flag *pflag.Flag, value string, cause error) error {
	if how := kinds[flag.Value.Type()]; how != "" && cause != errTTL {
		return fmt.Errorf("%s %q is wrong; %s", where, value, how)
	}
	return fmt.Errorf("%s %q is %w", where, value, cause)
}
