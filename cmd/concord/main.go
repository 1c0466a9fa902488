// Command concord is Concord's server and command line: it runs members, and
// reads, changes and watches what they hold.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc/grpclog"
)

// The exit codes, as the help states them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnavailable = 5
	exitDenied      = 6
)

func main() {
	args := asEtcd(os.Args)
	if len(args) > 0 && (args[0] == "serve" || args[0] == "etcd") {
		coarsenTimers()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	silenceLibraries()
	code := run(ctx, args, stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}

// silenceLibraries keeps what gRPC writes to standard error by itself out of it:
// a client could fill the log with bad requests. gRPC's own variable asks for it.
func silenceLibraries() {
	if os.Getenv("GRPC_GO_LOG_SEVERITY_LEVEL") == "" {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
}

// stdio is what a command reads from and writes to.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// run is the whole program but for the process around it, so that tests can
// call it.
func run(ctx context.Context, args []string, std stdio) int {
	root := newRootCommand(std)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var silent *silentError
	if !errors.As(err, &silent) {
		fmt.Fprintf(std.err, "concord: %s\n", message(err))
		if hint := hintFor(err); hint != "" {
			fmt.Fprintf(std.err, "  %s\n", hint)
		}
	}
	return exitCode(err)
}

// usageError is a wrong flag or argument. An empty hint means the usual one.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// silentError ends the program with a code after the command has said all.
type silentError struct{ code int }

func (e *silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// hintedError adds the next step to an error.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// errConflict is a condition of a write that did not hold.
var errConflict = errors.New("the condition does not hold; nothing was written")
