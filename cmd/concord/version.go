package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord"
)

func newVersionCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs}
	g.addOutputFlag(cmd.Flags(), "value", "value, json")
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := g.checkOutput("value", "json"); err != nil {
			return err
		}
		commit := "unknown"
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" {
					commit = s.Value
				}
			}
		}
		if g.output == "json" {
			return printJSON(g.std.out, map[string]string{
				"version": concord.Version, "commit": commit, "go": runtime.Version(),
				"platform": runtime.GOOS + "/" + runtime.GOARCH,
			})
		}
		_, err := fmt.Fprintf(g.std.out, "concord %s (commit %s, %s, %s/%s)\n",
			concord.Version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	return cmd
}
