package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/restapi"
)

// memberLevel is a level as it is printed of one of several members.
type memberLevel struct {
	Endpoint string `json:"endpoint"`
	restapi.LogLevel
}

func newLogLevelCommand(g *globals) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use: "log-level [LEVEL]", Short: "Show, or set, from which level on a member logs",
		Long: "Show, or set while it runs, from which level on a member logs: debug, info, warn\n" +
			"or error. The member is the first of --endpoints that answers, or with --all each\n" +
			"of them. What is set lasts until the member ends.",
		Example: "  concord log-level\n  concord log-level debug --endpoints n2:2379\n  concord log-level info --all --endpoints n1:2379,n2:2379,n3:2379",
		Args:    cobra.MaximumNArgs(1),
	}
	g.withAnswer(cmd, func(ctx context.Context, args []string) error {
		method, request := http.MethodGet, restapi.LogLevel{}
		if len(args) > 0 {
			method, request.Level = http.MethodPut, args[0]
			if new(slog.LevelVar).UnmarshalText([]byte(args[0])) != nil {
				return usagef("log level %q is unknown; use debug, info, warn or error", args[0])
			}
		}
		if all {
			return g.allLogLevels(ctx, method, request)
		}
		level, err := answerOf[restapi.LogLevel](ctx, g, method, "/v1/log-level", request)
		if err != nil {
			return err
		}
		if g.output == "json" {
			return printJSON(g.std.out, level)
		}
		_, err = fmt.Fprintln(g.std.out, level.Level)
		return err
	})
	cmd.Flags().BoolVar(&all, "all", false, "ask each of --endpoints, not the first that answers")
	return cmd
}

// allLogLevels asks every endpoint, also after one that has not answered.
func (g *globals) allLogLevels(ctx context.Context, method string, request restapi.LogLevel) error {
	levels, errs := []memberLevel{}, []error(nil)
	for endpoint := range strings.SplitSeq(g.endpoints, ",") {
		one := *g
		one.endpoints = strings.TrimSpace(endpoint)
		level, err := answerOf[restapi.LogLevel](ctx, &one, method, "/v1/log-level", request)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", one.endpoints, err))
			continue
		}
		levels = append(levels, memberLevel{one.endpoints, level})
	}
	if g.output == "json" {
		errs = append(errs, printJSON(g.std.out, levels))
		return errors.Join(errs...)
	}
	for _, l := range levels {
		fmt.Fprintf(g.std.out, "%s %s\n", l.Endpoint, l.Level)
	}
	return errors.Join(errs...)
}
