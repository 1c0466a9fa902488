package restapi

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/concord-kv/concord/kv"
)

// LogLevel is from which level on the asked member logs: debug, info, warn or
// error, or one beside these, as in info+2.
type LogLevel struct {
	Level string `json:"level"`
}

// logLevel answers for a member's log.
type logLevel struct {
	level *slog.LevelVar
	log   *slog.Logger
}

// LogRoutes are the requests about a member's log, which says when its level is
// changed. Where level is nil, they answer with an error of the code
// [kv.Unsupported].
func LogRoutes(level *slog.LevelVar, log *slog.Logger) []Route {
	l := &logLevel{level, log}
	return []Route{
		{http.MethodGet, "/v1/log-level", kv.ReadTelemetry, serve(l.get)},
		{http.MethodPut, "/v1/log-level", kv.ManageCluster, serve(l.set)},
	}
}

func (l *logLevel) get(context.Context, *nothing) (out LogLevel, err error) {
	if l.level == nil {
		_, err = offers[*slog.LevelVar](nil)
		return out, err
	}
	return LogLevel{strings.ToLower(l.level.Level().String())}, nil
}

func (l *logLevel) set(ctx context.Context, to *LogLevel) (out LogLevel, err error) {
	before, err := l.get(ctx, nil)
	if err != nil {
		return out, err
	}
	var level slog.Level
	if level.UnmarshalText([]byte(to.Level)) != nil {
		return out, kv.Errorf(kv.InvalidArgument, "log level %q is unknown; use debug, info, warn or error", to.Level)
	}
	tell := func() {
		l.log.Warn("the log's level is changed", "from", before.Level, "to", strings.ToLower(level.String()))
	}
	if level > l.level.Level() { // while it can be heard
		tell()
		l.level.Set(level)
	} else {
		l.level.Set(level)
		tell()
	}
	return l.get(ctx, nil)
}
