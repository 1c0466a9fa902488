package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

func newLeaseCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "lease", Short: "Grant, renew, revoke and list leases", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newLeaseGrantCommand(g), newLeaseKeepAliveCommand(g), newLeaseRevokeCommand(g),
		newLeaseTTLCommand(g), newLeaseListCommand(g))
	return cmd
}

func newLeaseGrantCommand(g *globals) *cobra.Command {
	var id leaseID
	cmd := &cobra.Command{
		Use: "grant TTL", Short: "Make a lease that lives for TTL unless it is kept alive; print its id",
		Example: "  concord lease grant 30s", Args: cobra.ExactArgs(1),
	}
	cmd.Flags().Var(&id, "id", "the wanted id, in hexadecimal")
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		life, err := parseTTL(args[0])
		if err != nil {
			return usagef("%q is %w", args[0], err)
		}
		grant := kv.Grant{TTL: life, ID: kv.LeaseID(id)}
		return g.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			res, err := c.Grant(ctx, grant)
			if err != nil {
				return err
			}
			return g.printLease(res, res.ID.String())
		})
	}
	return cmd
}

// onLease makes cmd one that takes the id of a lease.
func (g *globals) onLease(cmd *cobra.Command, run func(context.Context, kv.LeaseID) error) *cobra.Command {
	cmd.Args = cobra.ExactArgs(1)
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := parseLease(args[0])
		if err != nil {
			return err
		}
		if err := run(cmd.Context(), id); err != nil {
			return fmt.Errorf("lease %s: %w", id, err)
		}
		return nil
	}
	return cmd
}

func (g *globals) printLease(res kv.LeaseResult, text string) error {
	if g.output == "json" {
		out := map[string]any{"id": res.ID.String()}
		if res.TTL > 0 {
			out["ttl_ms"] = res.TTL.Milliseconds()
		}
		if res.Left > 0 {
			out["left_ms"] = res.Left.Milliseconds()
		}
		if res.Keys != nil {
			keys := make([]jsonKV, len(res.Keys))
			for i, k := range res.Keys {
				keys[i].Key, keys[i].KeyBase64 = jsonText(k)
			}
			out["keys"] = keys
		}
		return printJSON(g.std.out, out)
	}
	_, err := fmt.Fprintln(g.std.out, text)
	return err
}

func newLeaseKeepAliveCommand(g *globals) *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use: "keep-alive ID", Short: "Renew a lease until interrupted", Aliases: []string{"keepalive"},
	}
	cmd.Flags().BoolVar(&once, "once", false, "renew it one time only")
	return g.onLease(cmd, func(ctx context.Context, id kv.LeaseID) error {
		return g.withClient(ctx, func(ctx context.Context, c *client.Client) error {
			if !once {
				return g.keepAlive(ctx, c, id)
			}
			_, err := g.renew(ctx, c, id)
			return err
		})
	})
}

func (g *globals) renew(ctx context.Context, c *client.Client, id kv.LeaseID) (time.Duration, error) {
	res, err := c.KeepAlive(ctx, id)
	if err != nil {
		return 0, err
	}
	return res.TTL, g.printLease(res, fmt.Sprintf("lease %s renewed for %v", res.ID, res.TTL))
}

// keepAlive renews the lease each third of its TTL until ctx ends. A renewal
// that fails for want of a leader is tried again until the lease is gone.
func (g *globals) keepAlive(ctx context.Context, c *client.Client, id kv.LeaseID) error {
	pause := time.Second
	for {
		ttl, err := g.renew(ctx, c, id)
		switch {
		case ctx.Err() != nil:
			return nil // interrupted: that is how keeping alive ends
		case err == nil:
			pause = max(ttl/3, 10*time.Millisecond)
		case kv.CodeOf(err) == kv.Unavailable:
			fmt.Fprintf(g.std.err, "concord: %v\n", err)
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func newLeaseRevokeCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "revoke ID", Short: "End a lease now and delete its keys"}
	return g.onLease(cmd, func(ctx context.Context, id kv.LeaseID) error {
		return g.withClient(ctx, func(ctx context.Context, c *client.Client) error {
			if _, err := c.Revoke(ctx, id); err != nil {
				return err
			}
			return g.printLease(kv.LeaseResult{ID: id}, fmt.Sprintf("lease %s revoked", id))
		})
	})
}

func newLeaseTTLCommand(g *globals) *cobra.Command {
	var keys bool
	cmd := &cobra.Command{Use: "ttl ID", Short: "Print what is left of a lease", Aliases: []string{"timetolive"}}
	cmd.Flags().BoolVar(&keys, "keys", false, "print the attached keys too")
	return g.onLease(cmd, func(ctx context.Context, id kv.LeaseID) error {
		return g.withClient(ctx, func(ctx context.Context, c *client.Client) error {
			res, err := c.TimeToLive(ctx, id, keys)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("lease %s of %v, %v left", res.ID, res.TTL, res.Left)
			for _, k := range res.Keys {
				text += "\n" + printable(k)
			}
			return g.printLease(res, text)
		})
	})
}

func newLeaseListCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the leases", Args: cobra.NoArgs, Aliases: []string{"list"}}
	g.addAnswerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			res, err := c.Leases(ctx)
			if err != nil {
				return err
			}
			ids := make([]string, len(res.IDs))
			for i, id := range res.IDs {
				ids[i] = id.String()
			}
			if g.output == "json" {
				return printJSON(g.std.out, map[string]any{"leases": ids, "revision": int64(res.Revision)})
			}
			for _, id := range ids {
				if _, err := fmt.Fprintln(g.std.out, id); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}
