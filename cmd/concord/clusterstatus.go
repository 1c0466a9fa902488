package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
)

// withTable makes cmd one that asks a member and prints its answer in any format.
func (g *globals) withTable(cmd *cobra.Command, run func(ctx context.Context, args []string) error) *cobra.Command {
	formats := []string{"table", "json", "jsonl", "value"}
	g.addClientFlags(cmd.Flags())
	g.addOutputFlag(cmd.Flags(), formats[0], formats...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.checkOutput(formats...); err != nil {
			return err
		}
		return run(cmd.Context(), args)
	}
	return cmd
}

func newClusterStatusCommand(g *globals) *cobra.Command {
	return g.withTable(&cobra.Command{
		Use: "status", Short: "Say how the cluster is, and show its members", Args: cobra.NoArgs,
		Long: "Ask one member how the cluster is; it asks all others, and waits a second for\n" +
			"them. The first line says it: how many voters take part, and how many more may\n" +
			"fail. Without a majority the answer is what the members that are left know, and\n" +
			"the exit code is 5.\n\n" +
			"  LAG       entries behind the leader, and for how long\n" +
			"  RTT       a message from the leader and its answer\n" +
			"  LOG P99   99 of 100 writes of the log were durable in that time, in the last\n" +
			"            minute\n" +
			"  MEMORY    of the member's process\n" +
			"  FREE      space for its data directory\n\n" +
			"-o value prints the first line alone, -o jsonl a line for each member.",
	}, func(ctx context.Context, _ []string) error {
		s, err := answerOf[restapi.Status](ctx, g, http.MethodGet, "/v1/cluster/status", nil)
		if err != nil {
			return err
		}
		if err := g.printStatus(&s); err != nil {
			return err
		}
		if !s.Health.Serving {
			return &silentError{exitUnavailable}
		}
		return nil
	})
}

func (g *globals) printStatus(s *restapi.Status) error {
	switch g.output {
	case "json":
		return printJSON(g.std.out, s)
	case "jsonl":
		return printLines(g.std.out, s.Members)
	case "value":
		_, err := fmt.Fprintln(g.std.out, s.Health.Summary)
		return err
	}
	fmt.Fprintln(g.std.out, s.Health.Summary)
	for _, note := range s.Health.Notes {
		fmt.Fprintf(g.std.out, "  %s\n", note)
	}
	if s.Health.Next != "" {
		fmt.Fprintf(g.std.out, "  next: %s\n", s.Health.Next)
	}
	fmt.Fprintln(g.std.out)
	rows := make([][]string, len(s.Members))
	for i := range s.Members {
		rows[i] = statusRow(s, &s.Members[i])
	}
	return printTable(g.std.out, []string{"NAME", "ROLE", "LAG", "RTT", "LOG P99", "MEMORY", "FREE", "VERSION", "UP"}, rows)
}

// statusRow is one member in the table.
func statusRow(s *restapi.Status, m *restapi.Figure) []string {
	name := m.Name
	if name == "" {
		name = m.ID
	}
	row := []string{name, "voter", "-", "-", "-", "-", "-", "-", "no answer"}
	if m.Learner {
		row[1] = "learner"
	}
	if m.RoundTripMicros > 0 && m.Connected {
		row[3] = shortTime(m.RoundTripMicros)
	}
	if !m.Answered {
		if silent := time.Duration(m.SilentMillis) * time.Millisecond; silent >= time.Second {
			row[8] = "silent " + kv.About(silent)
		}
		return row
	}
	row[1] = m.Role
	if s.Leader != "" && m.ID != s.Leader {
		row[2] = fmt.Sprint(m.LagEntries)
		if m.LagMillis > 0 {
			row[2] += " (" + kv.About(time.Duration(m.LagMillis)*time.Millisecond) + ")"
		}
	}
	if m.Disk.WriteP99Micros > 0 {
		row[4] = shortTime(m.Disk.WriteP99Micros)
	}
	row[5], row[6], row[7] = shortBytes(m.Memory.ResidentBytes), shortBytes(m.Disk.FreeBytes), m.Version
	if m.Disk.Full {
		row[6] = "full"
	}
	row[8] = kv.About(time.Duration(m.Up) * time.Millisecond)
	return row
}

// shortTime writes microseconds in three digits or so.
func shortTime(micros int64) string {
	d := time.Duration(micros) * time.Microsecond
	for unit := time.Microsecond; unit <= time.Second; unit *= 1000 {
		if d < 10*unit {
			return d.Round(unit / 100).String()
		}
		if d < 100*unit {
			return d.Round(unit / 10).String()
		}
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
	return d.Round(time.Second).String()
}

// shortBytes writes a number of bytes in two or three digits; less than none is
// not known.
func shortBytes(n int64) string {
	if n < 0 {
		return "-"
	}
	size, units := float64(n), []string{"B", "K", "M", "G", "T", "P"}
	for size >= 1000 && len(units) > 1 {
		size, units = size/1024, units[1:]
	}
	if size < 10 && units[0] != "B" {
		return fmt.Sprintf("%.1f%s", size, units[0])
	}
	return fmt.Sprintf("%.0f%s", size, units[0])
}

// printLines writes each item as JSON in a line.
func printLines[T any](w io.Writer, items []T) error {
	for _, item := range items {
		if err := printJSONLine(w, item); err != nil {
			return err
		}
	}
	return nil
}

func newClusterMembersCommand(g *globals) *cobra.Command {
	return g.withTable(&cobra.Command{
		Use: "members", Short: "List the members with their addresses", Args: cobra.NoArgs,
		Long: "List the members as a majority knows them. -o value prints their ids.",
	}, func(ctx context.Context, _ []string) error {
		all, err := answerOf[restapi.Members](ctx, g, http.MethodGet, "/v1/cluster/members", nil)
		if err != nil {
			return err
		}
		switch g.output {
		case "json":
			return printJSON(g.std.out, all)
		case "jsonl":
			return printLines(g.std.out, all.Members)
		}
		rows := make([][]string, len(all.Members))
		for i, m := range all.Members {
			if g.output == "value" {
				fmt.Fprintln(g.std.out, m.ID)
			}
			rows[i] = []string{m.ID, dash(m.Name), "yes", dash(strings.Join(m.PeerAddrs, ",")), dash(strings.Join(m.ClientAddrs, ","))}
			if m.Learner {
				rows[i][2] = "no"
			}
		}
		if g.output == "value" {
			return nil
		}
		return printTable(g.std.out, []string{"ID", "NAME", "VOTES", "PEERS", "CLIENTS"}, rows)
	})
}

// dash stands for nothing.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
