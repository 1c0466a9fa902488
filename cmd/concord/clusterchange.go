package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/restapi"
)

// changeMember asks for a change and says what it has done, with the member's
// name in place of %s.
func (g *globals) changeMember(ctx context.Context, path string, request any, done string) error {
	c, err := answerOf[restapi.Changed](ctx, g, http.MethodPost, "/v1/cluster/"+path, request)
	if err != nil {
		return err
	}
	if g.output == "json" {
		return printJSON(g.std.out, c)
	}
	name := c.Member.ID
	if c.Member.Name != "" {
		name = c.Member.Name + " (" + c.Member.ID + ")"
	}
	_, err = fmt.Fprintf(g.std.out, done+"\n", name)
	return err
}

func newClusterAddCommand(g *globals) *cobra.Command {
	var name string
	cmd := g.withAnswer(&cobra.Command{
		Use: "add PEER-ADDRESS...", Short: "Reserve a place for a member that is started later",
		Long: "Reserve a place for a member, by the addresses at which others will reach it. It\n" +
			"does not vote until it runs and has caught up; then the autopilot, or 'concord\n" +
			"cluster promote', gives it a vote.\n\n" +
			"A member that is started with --cluster, or with --peers and --rejoin, joins\n" +
			"without this command.",
		Example: "  concord cluster add 10.0.0.4:2380 --name n4",
		Args:    cobra.MinimumNArgs(1),
	}, func(ctx context.Context, args []string) error {
		return g.changeMember(ctx, "add", restapi.Place{Name: name, PeerAddrs: args}, "%s added; start it at "+strings.ReplaceAll(strings.Join(args, ", "), "%", "%%"))
	})
	cmd.Flags().StringVar(&name, "name", "", "the member's name, if it is known already")
	return cmd
}

func newClusterPromoteCommand(g *globals) *cobra.Command {
	return g.withAnswer(&cobra.Command{
		Use: "promote MEMBER", Short: "Give a learner that has caught up a vote",
		Long: "Give a learner a vote; MEMBER is its name or id. It is refused until it has\n" +
			"caught up with the leader.",
		Example: "  concord cluster promote n4",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, args []string) error {
		return g.changeMember(ctx, "promote", restapi.Which{Member: args[0]}, "%s votes now")
	})
}

func newClusterRemoveCommand(g *globals) *cobra.Command {
	return g.withAnswer(&cobra.Command{
		Use: "remove MEMBER", Short: "Remove a member for good",
		Long: "Remove a member for good; MEMBER is its name or id, and the id is never used\n" +
			"again. It is refused where the others would have no majority, with the reason:\n" +
			"no flag removes the last vote that counts. When a majority is lost already, see\n" +
			"'concord cluster recover'.\n\n" +
			"The leader hands leadership over first.",
		Example: "  concord cluster remove n3\n  concord cluster remove 8e9e05c52164694d",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, args []string) error {
		return g.changeMember(ctx, "remove", restapi.Which{Member: args[0]}, "%s removed")
	})
}

func newClusterMoveLeaderCommand(g *globals) *cobra.Command {
	return g.withAnswer(&cobra.Command{
		Use: "move-leader [MEMBER]", Short: "Hand leadership to a voter, or to the one that has caught up most",
		Example: "  concord cluster move-leader\n  concord cluster move-leader n2",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, args []string) error {
		return g.changeMember(ctx, "move-leader", restapi.Which{Member: strings.Join(args, "")}, "%s leads")
	})
}

func newClusterLeaveCommand(g *globals) *cobra.Command {
	return g.withAnswer(&cobra.Command{
		Use: "leave [MEMBER]", Short: "Take the member at --endpoints out of its cluster and end it",
		Long: "Take a member out of its cluster: leadership moves away from it, it is removed,\n" +
			"and its process ends with exit code 0. Its data directory says that it left; it\n" +
			"can come back as a new member only. It is refused where the others would have no\n" +
			"majority.\n\n" +
			"It is the one member at --endpoints that leaves; MEMBER, its name or id, makes\n" +
			"sure that it is the right one.",
		Example: "  concord cluster leave n3 --endpoints 10.0.0.3:2379",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, args []string) error {
		if strings.Contains(g.endpoints, ",") {
			return usagef("--endpoints %s are several; name the one member that should leave", g.endpoints)
		}
		return g.changeMember(ctx, "leave", restapi.Which{Member: strings.Join(args, "")}, "%s has left the cluster")
	})
}
