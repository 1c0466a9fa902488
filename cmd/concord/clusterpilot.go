package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
)

// autopilotRules is what the leader does by itself, for people.
const autopilotRules = `The leader looks after the members of its cluster:

  - nothing lowers the number of failures that the cluster survives, and without
    a majority in contact nothing is done
  - learners that have caught up get votes, so that the number of voters is odd,
    up to --voters; more stay learners, which serve reads
  - a new member with the name and address of an old one takes its vote at once:
    that one has lost its disk
  - a voter that was silent for --dead-after loses its vote to a learner that has
    caught up; without one it keeps it
  - a learner that was silent for --dead-after is removed`

func newClusterAutopilotCommand(g *globals) *cobra.Command {
	var enabled bool
	var voters int
	var deadAfter time.Duration
	cmd := &cobra.Command{
		Use: "autopilot", Short: "Show, or set, how the cluster looks after its members",
		Long: autopilotRules + "\n\n" +
			"Without a flag the command shows the settings, and what the leader is about to\n" +
			"do or what keeps it from it. -o value prints on or off, -o jsonl is json in a\n" +
			"line.",
		Example: "  concord cluster autopilot\n  concord cluster autopilot --voters 5 --dead-after 10m\n  concord cluster autopilot --enabled=false",
		Args:    cobra.NoArgs,
	}
	g.withTable(cmd, func(ctx context.Context, _ []string) error {
		var change restapi.AutopilotChange
		if cmd.Flags().Changed("enabled") {
			change.Enabled = &enabled
		}
		if cmd.Flags().Changed("voters") {
			change.Voters = &voters
		}
		if cmd.Flags().Changed("dead-after") {
			change.DeadAfterMillis = new(deadAfter.Milliseconds())
		}
		method := http.MethodGet
		if change != (restapi.AutopilotChange{}) {
			method = http.MethodPut
		}
		a, err := answerOf[restapi.Autopilot](ctx, g, method, "/v1/cluster/autopilot", change)
		if err != nil {
			return err
		}
		return g.printAutopilot(&a)
	})
	cmd.Flags().BoolVar(&enabled, "enabled", true, "whether it does anything")
	cmd.Flags().IntVar(&voters, "voters", 0, "how many members should vote, an odd number; 0 means 3, or 5 where 5 or more have founded the cluster")
	cmd.Flags().DurationVar(&deadAfter, "dead-after", 0, "how long a member may be silent before another takes its place")
	return cmd
}

func (g *globals) printAutopilot(a *restapi.Autopilot) error {
	state := "off"
	if a.Enabled {
		state = "on"
	}
	switch g.output {
	case "json":
		return printJSON(g.std.out, a)
	case "jsonl":
		return printJSONLine(g.std.out, a)
	case "value":
		_, err := fmt.Fprintln(g.std.out, state)
		return err
	}
	fmt.Fprintf(g.std.out, "The autopilot is %s. It wants %d voters, and takes a member for dead after %s.\n",
		state, a.Voters, kv.About(time.Duration(a.DeadAfterMillis)*time.Millisecond))
	for _, line := range a.Judgement {
		fmt.Fprintf(g.std.out, "  %s\n", line)
	}
	switch {
	case a.Leader == "":
		fmt.Fprintln(g.std.out, "  No leader says how it sees the cluster now.")
	case len(a.Judgement) == 0:
		fmt.Fprintln(g.std.out, "  There is nothing to do.")
	}
	return nil
}
