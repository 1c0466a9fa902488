package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

const rootHelp = `Concord is a strongly consistent key-value store for coordination,
configuration and service discovery. It speaks the etcd v3 API.

  concord dev                     a throw-away cluster on this machine
  concord serve                   one member
  concord put greeting hello      write a key
  concord get greeting            read it
  concord watch --prefix svc/     follow changes

Exit codes: 0 ok, 1 error, 2 wrong usage, 3 not found, 4 conflict,
5 unavailable, 6 denied.`

// globals are the flags of every command that talks to a running member.
type globals struct {
	std       stdio
	endpoints []string
	output    string
	timeout   time.Duration
}

func newRootCommand(std stdio) *cobra.Command {
	g := &globals{std: std}
	root := &cobra.Command{
		Use: "concord", Short: "A strongly consistent key-value store", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		Args:              usageArgs(cobra.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddGroup(
		&cobra.Group{ID: "data", Title: "Keys and leases:"},
		&cobra.Group{ID: "server", Title: "Members:"},
		&cobra.Group{ID: "care", Title: "Care of data:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("data", newGetCommand(g), newPutCommand(g), newDelCommand(g), newListCommand(g),
		newTxnCommand(g), newWatchCommand(g), newLeaseCommand(g))
	add("server", newServeCommand(g), newDevCommand(g))
	add("care", newBackupCommand(g), newCheckCommand(g))
	root.AddCommand(newVersionCommand(g))
	wrapArgs(root)
	return root
}

// wrapArgs makes wrong arguments usage errors in all commands.
func wrapArgs(cmd *cobra.Command) {
	if cmd.Args != nil {
		cmd.Args = usageArgs(cmd.Args)
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var usage *usageError
		if err := check(cmd, args); err != nil && !errors.As(err, &usage) {
			return &usageError{err}
		} else if err != nil {
			return err
		}
		return nil
	}
}

// addClientFlags adds what a command needs to reach a member.
func (g *globals) addClientFlags(flags *pflag.FlagSet) {
	endpoints := []string{"127.0.0.1:2379"}
	if env := os.Getenv("CONCORD_ENDPOINTS"); env != "" {
		endpoints = strings.Split(env, ",")
	}
	flags.StringSliceVar(&g.endpoints, "endpoints", endpoints, "client addresses of members, tried in turn (CONCORD_ENDPOINTS)")
	flags.DurationVar(&g.timeout, "timeout", 10*time.Second, "how long a request may take; 0 means for ever")
}

// addOutputFlag adds -o with the formats that the command has.
func (g *globals) addOutputFlag(flags *pflag.FlagSet, standard string, formats ...string) {
	flags.StringVarP(&g.output, "output", "o", standard, "output format: "+strings.Join(formats, ", "))
}

// checkOutput refuses a format that the command does not have.
func (g *globals) checkOutput(formats ...string) error {
	for _, f := range formats {
		if g.output == f {
			return nil
		}
	}
	return usagef("output format %q is unknown; use %s", g.output, strings.Join(formats, ", "))
}

// connect opens a client; the caller closes it.
func (g *globals) connect() (*client.Client, error) {
	return client.New(client.Config{Endpoints: g.endpoints})
}

// withStore runs do with a client and the request's time limit.
func (g *globals) withStore(ctx context.Context, do func(context.Context, kv.Store) error) error {
	c, err := g.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if g.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.timeout)
		defer cancel()
	}
	return do(ctx, c)
}
