package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

func newUserCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "user", Short: "Add, list and delete users, set passwords, grant roles", Args: cobra.NoArgs,
		Long: "Users log in with a password and may do what their roles allow, once\n" +
			"authentication is on; see 'concord auth enable'.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUserAddCommand(g), newUserGetCommand(g), newUserListCommand(g), newUserDelCommand(g),
		newUserPasswdCommand(g), newUserGrantCommand(g), newUserRevokeCommand(g))
	return cmd
}

func newUserAddCommand(g *globals) *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Add a user; the password is asked for, or read from standard input",
		Example: "  concord user add alice\n  concord user add alice < password-file\n  concord user add backup --no-password",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&none, "no-password", false, "the user cannot log in with a password, only with a certificate or token")
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[0] == "" {
			return usagef("NAME is empty; a user needs one")
		}
		user := kv.NewUser{Name: args[0], NoPassword: none}
		if !none {
			var err error
			if user.Password, err = g.newPassword("Password of " + args[0]); err != nil {
				return err
			}
		}
		return g.authChange(cmd.Context(), "user "+args[0]+" added", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.AddUser(ctx, user)
		})
	}
	return cmd
}

func newUserGetCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "get NAME", Short: "Print the roles of a user", Args: cobra.ExactArgs(1)}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.authNames(cmd.Context(), "roles", func(ctx context.Context, c *client.Client) ([]string, kv.Header, error) {
			user, h, err := c.User(ctx, args[0])
			return user.Roles, h, err
		})
	}
	return cmd
}

func newUserListCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the users", Args: cobra.NoArgs, Aliases: []string{"list"}}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.authNames(cmd.Context(), "users", func(ctx context.Context, c *client.Client) ([]string, kv.Header, error) {
			return c.Users(ctx)
		})
	}
	return cmd
}

func newUserDelCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "del NAME", Short: "Delete a user; the tokens of the user are worthless at once",
		Args: cobra.ExactArgs(1), Aliases: []string{"delete"},
	}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.authChange(cmd.Context(), "user "+args[0]+" deleted", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.DeleteUser(ctx, args[0])
		})
	}
	return cmd
}

func newUserPasswdCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "passwd NAME", Short: "Set the password of a user; it is asked for, or read from standard input",
		Args: cobra.ExactArgs(1),
	}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		password, err := g.newPassword("New password of " + args[0])
		if err != nil {
			return err
		}
		return g.authChange(cmd.Context(), "password of "+args[0]+" set", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.SetPassword(ctx, args[0], password)
		})
	}
	return cmd
}

func newUserGrantCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "grant USER ROLE", Short: "Give a user a role"}
	return g.onUserRole(cmd, "role %[2]s granted to user %[1]s", (*client.Client).GrantRole)
}

func newUserRevokeCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "revoke USER ROLE", Short: "Take a role from a user"}
	return g.onUserRole(cmd, "role %[2]s taken from user %[1]s", (*client.Client).RevokeRole)
}

// onUserRole makes cmd one that changes whether a user has a role.
func (g *globals) onUserRole(cmd *cobra.Command, done string, change func(c *client.Client, ctx context.Context, user, role string) (kv.Header, error)) *cobra.Command {
	cmd.Args = cobra.ExactArgs(2)
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.authChange(cmd.Context(), fmt.Sprintf(done, args[0], args[1]), func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return change(c, ctx, args[0], args[1])
		})
	}
	return cmd
}
