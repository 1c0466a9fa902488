package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

func newAuthCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "auth", Short: "Switch authentication on and off", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuthEnableCommand(g), newAuthDisableCommand(g), newAuthStatusCommand(g))
	return cmd
}

func newAuthEnableCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "enable", Short: "Switch authentication on: from then on every call needs a user",
		Long: "Switch authentication on: from then on every call needs a user or a token.\n" +
			"The user root must exist and have the role root.",
		Example: "  concord user add root\n  concord user grant root root\n  concord auth enable",
		Args:    cobra.NoArgs,
	}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.authChange(cmd.Context(), "authentication is on", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.EnableAuth(ctx)
		})
	}
	return cmd
}

func newAuthDisableCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "disable", Short: "Switch authentication off: everybody may do everything; users and roles stay",
		Args: cobra.NoArgs,
	}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.authChange(cmd.Context(), "authentication is off", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.DisableAuth(ctx)
		})
	}
	return cmd
}

func newAuthStatusCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Print whether authentication is on", Args: cobra.NoArgs}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			st, err := c.AuthStatus(ctx)
			if err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(g.std.out, map[string]any{"enabled": st.Enabled, "auth_revision": st.Revision})
			}
			state := "off"
			if st.Enabled {
				state = "on"
			}
			_, err = fmt.Fprintf(g.std.out, "authentication is %s, at revision %d\n", state, st.Revision)
			return err
		})
	}
	return cmd
}

// addAnswerFlags adds the flags of a command that asks a member and prints its
// answer in short or as JSON.
func (g *globals) addAnswerFlags(cmd *cobra.Command) {
	g.addClientFlags(cmd.Flags())
	g.addOutputFlag(cmd.Flags(), "value", "value, json")
}

// withClient checks the format and runs do with a client.
func (g *globals) withClient(ctx context.Context, do func(context.Context, *client.Client) error) error {
	if err := g.checkOutput("value", "json"); err != nil {
		return err
	}
	c, err := g.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}

// authChange makes a change and says what it has done.
func (g *globals) authChange(ctx context.Context, done string, change func(context.Context, *client.Client) (kv.Header, error)) error {
	return g.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		h, err := change(ctx, c)
		if err != nil {
			return err
		}
		if g.output == "json" {
			return printJSON(g.std.out, map[string]any{"revision": int64(h.Revision)})
		}
		_, err = fmt.Fprintln(g.std.out, done)
		return err
	})
}

// authNames prints a list of names.
func (g *globals) authNames(ctx context.Context, what string, list func(context.Context, *client.Client) ([]string, kv.Header, error)) error {
	return g.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		names, h, err := list(ctx, c)
		if err != nil {
			return err
		}
		if g.output == "json" {
			return printJSON(g.std.out, map[string]any{what: append([]string{}, names...), "revision": int64(h.Revision)})
		}
		for _, name := range names {
			if _, err := fmt.Fprintln(g.std.out, name); err != nil {
				return err
			}
		}
		return nil
	})
}
