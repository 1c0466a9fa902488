package main

import (
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdUntil runs a command again and again, for a minute, until what it writes to
// standard output matches: until PATTERN COMMAND...
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND...")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(time.Minute); ; {
		_ = ts.Exec(args[1], args[2:]...) // it may fail for a while
		out := ts.ReadFile("stdout")
		if want.MatchString(out) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("not in a minute: %s; last it said\n%s%s", args[0], out, ts.ReadFile("stderr"))
		}
		<-time.After(20 * time.Millisecond)
	}
}
