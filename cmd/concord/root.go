package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/concord-kv/concord"
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
	endpoints string // parted by commas
	output    string
	timeout   time.Duration
	credentials
	clientTLS
}

func newRootCommand(std stdio) *cobra.Command {
	g := &globals{std: std}
	root := &cobra.Command{
		Use: "concord", Short: "A strongly consistent key-value store", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true,
		Version: concord.Version, SuggestionsMinimumDistance: 2,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.SetFlagErrorFunc(flagError)
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		// The commands share g, so each has to take its own default.
		if f := cmd.Flags().Lookup("output"); f != nil && !f.Changed {
			g.output = f.DefValue
		}
	}
	root.AddGroup(
		&cobra.Group{ID: "data", Title: "Keys and leases:"},
		&cobra.Group{ID: "server", Title: "Members:"},
		&cobra.Group{ID: "care", Title: "Care of data:"},
		&cobra.Group{ID: "auth", Title: "Who may do what:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("data", newGetCommand(g), newPutCommand(g), newDelCommand(g), newListCommand(g),
		newTxnCommand(g), newWatchCommand(g), newLeaseCommand(g))
	add("server", newServeCommand(g), newInitCommand(g), newSecretCommand(g), newTLSCommand(g), newDevCommand(g), newEtcdCommand(g), newClusterCommand(g), newTopCommand(g), newLogLevelCommand(g))
	add("care", newBackupCommand(g), newCheckCommand(g), newImportCommand(g))
	add("auth", newAuthCommand(g), newUserCommand(g), newRoleCommand(g), newTokenCommand(g), newCanCommand(g))
	root.AddCommand(newVersionCommand(g))
	refuseUnknownTopics(root)
	wrapArgs(root)
	return root
}

// refuseUnknownTopics makes 'help' and 'completion' refuse what there is no help
// for, and no shell.
func refuseUnknownTopics(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				topic, rest, err := root.Find(args)
				if err == nil && len(rest) > 0 {
					hint := "See '" + topic.CommandPath() + " --help' for what there is."
					err = &usageError{fmt.Errorf("unknown command %q for %q", rest[0], topic.CommandPath()), hint}
				}
				return err
			}
		case "completion":
			cmd.Args = cobra.NoArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
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
		err := check(cmd, args)
		var usage *usageError
		if err == nil || errors.As(err, &usage) {
			return err
		}
		hint := "Usage: " + cmd.UseLine()
		if !cmd.HasAvailableSubCommands() && cmd.Use == cmd.Name() {
			err = fmt.Errorf("'%s' takes no arguments, and %q is one", cmd.CommandPath(), args[0])
		}
		if cmd.HasAvailableSubCommands() {
			hint = "See '" + cmd.CommandPath() + " --help' for its commands."
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "Is '" + cmd.CommandPath() + " " + strings.Join(near, "' or '"+cmd.CommandPath()+" ") + "' meant?"
			}
		}
		return &usageError{err, hint}
	}
}

// addClientFlags adds what a command needs to reach a member.
func (g *globals) addClientFlags(flags *pflag.FlagSet) {
	endpoints := os.Getenv("CONCORD_ENDPOINTS")
	if endpoints == "" {
		endpoints = "127.0.0.1:2379"
	}
	flags.StringVar(&g.endpoints, "endpoints", endpoints, "client addresses of members, tried in turn (CONCORD_ENDPOINTS)")
	flags.DurationVar(&g.timeout, "timeout", 5*time.Second, "how long a request may take, with all its tries; 0 means for ever")
	g.addCredentialFlags(flags)
	g.clientTLS.addFlags(flags)
}

// addOutputFlag adds -o with the formats that the command has.
func (g *globals) addOutputFlag(flags *pflag.FlagSet, standard string, formats ...string) {
	flags.StringVarP(&g.output, "output", "o", standard, "output format: "+strings.Join(formats, ", "))
}

// withAnswer makes cmd one that asks a member and prints its answer in short or
// as JSON.
func (g *globals) withAnswer(cmd *cobra.Command, run func(ctx context.Context, args []string) error) *cobra.Command {
	g.addClientFlags(cmd.Flags())
	g.addOutputFlag(cmd.Flags(), "value", "value, json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.checkOutput("value", "json"); err != nil {
			return err
		}
		return run(cmd.Context(), args)
	}
	return cmd
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

// connect opens a client, whose calls --timeout bounds; the caller closes it.
func (g *globals) connect() (*client.Client, error) {
	var endpoints []string
	for _, endpoint := range strings.Split(g.endpoints, ",") {
		endpoints = append(endpoints, strings.Trim(endpoint, " "))
	}
	if g.timeout < 0 {
		return nil, usagef("--timeout %v is negative; 0 means for ever", g.timeout)
	}
	timeout := g.timeout
	if timeout == 0 {
		timeout = math.MaxInt64
	}
	cfg := client.Config{Endpoints: endpoints, Timeout: timeout}
	if err := g.show(&cfg); err != nil {
		return nil, err
	}
	if err := g.clientTLS.set(&cfg); err != nil {
		return nil, err
	}
	return client.New(cfg)
}

// withStore runs do with a client.
func (g *globals) withStore(ctx context.Context, do func(context.Context, kv.Store) error) error {
	c, err := g.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}
