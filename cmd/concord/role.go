package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

func newRoleCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "role", Short: "Add, list and delete roles, grant them keys", Args: cobra.NoArgs,
		Long: "Roles say which keys may be read and written. Users have roles; what the\n" +
			"roles of one user allow adds up. The role root may do everything.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRoleAddCommand(g), newRoleGetCommand(g), newRoleListCommand(g), newRoleDelCommand(g),
		newRoleGrantCommand(g), newRoleRevokeCommand(g))
	return cmd
}

func newRoleAddCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "add NAME", Short: "Add a role, which allows nothing yet", Args: cobra.ExactArgs(1)}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[0] == "" {
			return usagef("NAME is empty; a role needs one")
		}
		return g.authChange(cmd.Context(), "role "+args[0]+" added", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.AddRole(ctx, args[0])
		})
	}
	return cmd
}

// jsonPermission is a permission as JSON output shows it.
type jsonPermission struct {
	Access    string  `json:"access"`
	Key       *string `json:"key,omitempty"`
	KeyBase64 string  `json:"key_base64,omitempty"`
	End       *string `json:"end,omitempty"`
	EndBase64 string  `json:"end_base64,omitempty"`
}

func newRoleGetCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "get NAME", Short: "Print what a role allows", Args: cobra.ExactArgs(1)}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			role, h, err := c.AuthRole(ctx, args[0])
			if err != nil {
				return err
			}
			return g.printRole(role, h)
		})
	}
	return cmd
}

func (g *globals) printRole(role kv.AuthRole, h kv.Header) error {
	if g.output == "json" {
		permissions := make([]jsonPermission, len(role.Permissions))
		for i, p := range role.Permissions {
			out := jsonPermission{Access: p.Access.String()}
			out.Key, out.KeyBase64 = jsonText(p.Key)
			if len(p.End) > 0 {
				out.End, out.EndBase64 = jsonText(p.End)
			}
			permissions[i] = out
		}
		return printJSON(g.std.out, map[string]any{"permissions": permissions, "revision": int64(h.Revision)})
	}
	for _, p := range role.Permissions {
		if _, err := fmt.Fprintf(g.std.out, "%s %s\n", p.Access, keysText(p.Key, p.End)); err != nil {
			return err
		}
	}
	return nil
}

// keysText shows which keys key and end select.
func keysText(key, end []byte) string {
	switch {
	case kv.FromKey(end) && len(key) == 0, kv.FromKey(end) && kv.FromKey(key):
		return "all keys"
	case kv.FromKey(end):
		return printable(key) + " and all keys behind it"
	case len(end) == 0:
		return printable(key)
	case string(kv.Prefix(key)) == string(end):
		return printable(key) + "*"
	}
	return printable(key) + " up to " + printable(end)
}

func newRoleListCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the roles", Args: cobra.NoArgs, Aliases: []string{"list"}}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.authNames(cmd.Context(), "roles", func(ctx context.Context, c *client.Client) ([]string, kv.Header, error) {
			return c.AuthRoles(ctx)
		})
	}
	return cmd
}

func newRoleDelCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "del NAME", Short: "Delete a role, and take it from all users",
		Args: cobra.ExactArgs(1), Aliases: []string{"delete"},
	}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.authChange(cmd.Context(), "role "+args[0]+" deleted", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.DeleteRole(ctx, args[0])
		})
	}
	return cmd
}

// keysFlags select the keys of a permission.
type keysFlags struct{ prefix, from bool }

func (f *keysFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.prefix, "prefix", false, "all keys that begin with KEY")
	cmd.Flags().BoolVar(&f.from, "from-key", false, "KEY and all keys behind it")
}

// keys reads KEY [END].
func (f *keysFlags) keys(args []string) (key, end []byte, err error) {
	key = []byte(args[0])
	switch given := len(args) == 2; {
	case f.prefix && f.from, given && (f.prefix || f.from):
		return nil, nil, usagef("END, --prefix and --from-key exclude each other")
	case given && args[1] <= args[0] && args[1] != "" && args[1] != "\x00":
		return nil, nil, usagef("END %q does not come after KEY %q, so there are no keys between; give the smaller first", args[1], args[0])
	case given:
		return key, []byte(args[1]), nil
	case len(key) == 0 && (f.prefix || f.from):
		return []byte{0}, []byte{0}, nil // all keys
	case f.prefix:
		return key, kv.Prefix(key), nil
	case f.from:
		return key, []byte{0}, nil
	}
	return key, nil, nil
}

func newRoleGrantCommand(g *globals) *cobra.Command {
	var flags keysFlags
	cmd := &cobra.Command{
		Use: "grant ROLE read|write|readwrite KEY [END]", Short: "Let those with a role read or write a key, or the keys from KEY up to END",
		Example: "  concord role grant web read --prefix config/\n  concord role grant web readwrite sessions/ sessions0",
		Args:    cobra.RangeArgs(3, 4),
	}
	flags.add(cmd)
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p := kv.Permission{}
		for p.Access.String() != args[1] {
			if p.Access++; p.Access > kv.ReadWriteAccess {
				return usagef("access %q is unknown; use read, write or readwrite", args[1])
			}
		}
		var err error
		if p.Key, p.End, err = flags.keys(args[2:]); err != nil {
			return err
		}
		return g.authChange(cmd.Context(), "role "+args[0]+" updated", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.GrantPermission(ctx, args[0], p)
		})
	}
	return cmd
}

func newRoleRevokeCommand(g *globals) *cobra.Command {
	var flags keysFlags
	cmd := &cobra.Command{
		Use: "revoke ROLE KEY [END]", Short: "Take back what was granted with exactly these keys",
		Args: cobra.RangeArgs(2, 3),
	}
	flags.add(cmd)
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, end, err := flags.keys(args[1:])
		if err != nil {
			return err
		}
		return g.authChange(cmd.Context(), "role "+args[0]+" updated", func(ctx context.Context, c *client.Client) (kv.Header, error) {
			return c.RevokePermission(ctx, args[0], key, end)
		})
	}
	return cmd
}
