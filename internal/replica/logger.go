package replica

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// raftLogger gives raft's messages to slog at debug level. raft panics through
// its logger.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) print(level slog.Level, args []any) {
	if l.log != nil {
		l.log.Log(context.Background(), level, "raft", "says", fmt.Sprint(args...))
	}
}

// perEntry begins what raft says again and again, for entries that were durable
// before raft heard of it, while all is well.
const perEntry = "entry at "

func (l raftLogger) printf(level slog.Level, format string, args []any) {
	if strings.HasPrefix(format, perEntry) {
		return // a log writes nothing per request
	}
	if l.log != nil && l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "raft", "says", fmt.Sprintf(format, args...))
	}
}

// Debug implements raft.Logger, as do the rest.
func (l raftLogger) Debug(v ...any)                   { l.print(slog.LevelDebug, v) }
func (l raftLogger) Debugf(format string, v ...any)   { l.printf(slog.LevelDebug, format, v) }
func (l raftLogger) Info(v ...any)                    { l.print(slog.LevelDebug, v) }
func (l raftLogger) Infof(format string, v ...any)    { l.printf(slog.LevelDebug, format, v) }
func (l raftLogger) Warning(v ...any)                 { l.print(slog.LevelDebug, v) }
func (l raftLogger) Warningf(format string, v ...any) { l.printf(slog.LevelDebug, format, v) }
func (l raftLogger) Error(v ...any)                   { l.print(slog.LevelWarn, v) }
func (l raftLogger) Errorf(format string, v ...any)   { l.printf(slog.LevelWarn, format, v) }
func (l raftLogger) Fatal(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
