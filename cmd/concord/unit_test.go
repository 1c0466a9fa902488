package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/concord-kv/concord/kv"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
		hint string
	}{
		{errors.New("x"), exitError, ""},
		{&silentError{9}, 9, ""},
		{usagef("x"), exitUsage, "--help"},
		{&usageError{errors.New("x"), "do this"}, exitUsage, "do this"},
		{fmt.Errorf("put: %w", errConflict), exitConflict, "concord get KEY"},
		{kv.ErrKeyNotFound, exitNotFound, ""},
		{kv.ErrLeaseExists, exitConflict, "--id"},
		{fmt.Errorf("save: %w", fs.ErrExist), exitConflict, ""},
		{&net.OpError{Op: "listen", Err: syscall.EADDRINUSE}, exitConflict, "another address"},
		{&net.OpError{Op: "listen", Err: syscall.EADDRNOTAVAIL}, exitError, "not one of this machine"},
		{&net.OpError{Op: "listen", Err: syscall.EACCES}, exitDenied, "below 1024"},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, exitDenied, "give this user the right"},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENOTDIR}, exitError, "name a directory"},
		{fmt.Errorf("x; do this: %w", fs.ErrNotExist), exitError, ""},
		{kv.ErrUserNotFound, exitNotFound, "concord user ls"},
		{kv.Errorf(kv.Unavailable, "x: error reading server preface: y"), exitUnavailable, "no client port"},
		{kv.ErrNotLeader, exitConflict, ""},
		{kv.ErrNoLeader, exitUnavailable, "concord dev"},
		{kv.ErrOverloaded, exitUnavailable, ""},
		{context.DeadlineExceeded, exitUnavailable, "concord dev"},
		{context.Canceled, exitError, ""},
		{kv.Errorf(kv.PermissionDenied, "x"), exitDenied, "--token"},
		{kv.Errorf(kv.Unauthenticated, "x"), exitDenied, "--token"},
		{kv.ErrEmptyKey, exitUsage, ""},
		{kv.ErrKeyTooLarge, exitUsage, "--max-key-bytes"},
		{kv.ErrCorrupt, exitError, ""},
		{&kv.CompactedError{Compacted: 3}, exitError, "later revision"},
		{fmt.Errorf("open: %w", fs.ErrNotExist), exitError, "path"},
		{&hintedError{errors.New("x"), "do that"}, exitError, "do that"},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
		hint := hintFor(c.err)
		if c.hint == "" && hint != "" || !strings.Contains(hint, c.hint) {
			t.Errorf("%v: hint %q, want %q", c.err, hint, c.hint)
		}
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, "1KiB": 1024, "1 KiB": 1024, "64MiB": 64 << 20, "1GiB": 1 << 30, "2TiB": 2 << 40,
		"1kB": 1000, "1KB": 1000, "3MB": 3e6, "4GB": 4e9, "5TB": 5e12, "9223372036854775807": math.MaxInt64,
	} {
		var s byteSize
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
		var again byteSize
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%d is written as %q, which is %d, %v", s, s.String(), again, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5GiB", "MiB", "1Mi", "1M", "1gib", "9223372036854775808", "8388608TiB", "1 ", "0x10"} {
		s := byteSize(7)
		if err := s.Set(text); err == nil || s != 7 {
			t.Errorf("%q is accepted as %d", text, s)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", "über €": "über €", "two\nlines": `"two\nlines"`, "\xff": `"\xff"`,
		strings.Repeat("a", 80): strings.Repeat("a", 80),
		strings.Repeat("a", 81): strings.Repeat("a", 80) + "… (81 bytes)",
		// A character that the limit would cut in two is left out whole.
		strings.Repeat("a", 79) + "€uro": strings.Repeat("a", 79) + "… (85 bytes)",
	} {
		if got := printable([]byte(in)); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

func TestTTLLeft(t *testing.T) {
	if got := ttlLeft(0, 5); got != "-" {
		t.Errorf("no TTL is shown as %q", got)
	}
	if got := ttlLeft(1500, 500); got != "1s" {
		t.Errorf("a second is shown as %q", got)
	}
	if got := ttlLeft(500, 1500); got != "0s" {
		t.Errorf("an expiry that is due is shown as %q", got)
	}
}

// Each kind of field is a flag, and keeps its default.
func TestSettingFlags(t *testing.T) {
	s := struct {
		Text   string        `set:"text" usage:"u"`
		On     bool          `set:"on"`
		Number int           `set:"number"`
		Size   byteSize      `set:"size"`
		Wait   time.Duration `set:"wait"`
		List   []string      `set:"list"`
		Other  int
	}{Text: "t", Number: 3, Size: 1 << 20, Wait: time.Second}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addSettingFlags(flags, &s)
	if f := flags.Lookup("size"); f == nil || f.DefValue != "1MiB" {
		t.Errorf("flag of a size: %+v", f)
	}
	t.Setenv("CONCORD_LIST", "a,b")
	t.Setenv("CONCORD_SIZE", "2KiB")
	t.Setenv("CONCORD_WAIT", "")
	if err := flags.Parse([]string{"--on", "--number", "4"}); err != nil {
		t.Fatal(err)
	}
	if err := loadSettings(flags, &s, ""); err != nil {
		t.Fatal(err)
	}
	if s.Text != "t" || !s.On || s.Number != 4 || s.Size != 2048 || s.Wait != time.Second || strings.Join(s.List, "|") != "a|b" {
		t.Errorf("settings %+v", s)
	}
}

func TestProgressIsSilentWithoutATerminal(t *testing.T) {
	var out strings.Builder
	bar := newProgress(&out, 10, "work")
	if n, err := bar.Write(make([]byte, 10)); n != 10 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if err := bar.Close(); err != nil || out.Len() > 0 {
		t.Errorf("close: %v; shown: %q", err, out.String())
	}
}

func TestMessage(t *testing.T) {
	for want, err := range map[string]error{
		"key of 9 bytes; the limit is 8": kv.Errorf(kv.InvalidArgument, "key of 9 bytes; the limit is 8: %w", kv.ErrKeyTooLarge),
		"lease 7: lease not found":       fmt.Errorf("lease 7: %w", kv.ErrLeaseNotFound),
		"key is too large":               kv.ErrKeyTooLarge,
		"yaml: line 1: x":                errors.New("yaml:\n  line 1: x"),
	} {
		if got := message(err); got != want {
			t.Errorf("%q is told as %q, want %q", err, got, want)
		}
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "", 3}, {"", "ab", 2}, {"prefix", "prefix", 0}, {"prefix", "prefx", 1},
		{"limit", "limti", 2}, {"kitten", "sitting", 3}, {"rev", "xrev", 1},
	} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("%d edits from %q to %q, want %d", got, c.a, c.b, c.want)
		}
	}
}

func TestTTLFlag(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "30": 30 * time.Second, "1.5": 1500 * time.Millisecond, "5m": 5 * time.Minute, "1ms": time.Millisecond,
		"9223372036s": kv.MaxTTL, "9223372036": kv.MaxTTL,
	} {
		var got ttl
		if err := got.Set(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q is %v, %v; want %v", text, time.Duration(got), err, want)
		}
	}
	for _, text := range []string{"", "s", "-1s", "-3", "+3s", "1us", "0s", "9223372037s", "300000000h", "99999999999999"} {
		var got ttl
		if err := got.Set(text); !errors.Is(err, errTTL) {
			t.Errorf("%q is accepted as %v: %v", text, time.Duration(got), err)
		}
	}
}

// Each value that cannot be is refused; none is taken for a flag left away.
func TestNumberFlags(t *testing.T) {
	for _, text := range []string{"", "-1", "x", "1.5", "9223372036854775808", "0x1"} {
		var n natural
		var c condition
		if n.Set(text) == nil || c.Set(text) == nil || c.given {
			t.Errorf("%q is accepted as %v and %v", text, n, c)
		}
	}
	var c condition
	if err := c.Set("0"); err != nil || !c.given || c.revision != 0 || c.String() != "0" {
		t.Errorf("0 is %+v, %v", c, err)
	}
	if got := (condition{}).String(); got != "" {
		t.Errorf("no condition is shown as %q", got)
	}
}

func TestCheckEnv(t *testing.T) {
	known := map[string]bool{"data-dir": true}
	for _, variable := range []string{
		"PATH=x", "CONCORD_DATA_DIR=x", "CONCORD_ENDPOINTS=x", "CONCORD_CONFIG=x", "CONCORD_EMPTY=",
		// Of services named concord and concord-client, as Kubernetes sets them.
		"CONCORD_SERVICE_HOST=x", "CONCORD_SERVICE_PORT=x", "CONCORD_SERVICE_PORT_GRPC=x", "CONCORD_PORT=x",
		"CONCORD_PORT_2379_TCP=x", "CONCORD_PORT_2379_TCP_PROTO=x", "CONCORD_CLIENT_SERVICE_HOST=x", "CONCORD_CLIENT_PORT_2379_TCP_ADDR=x",
	} {
		if err := checkEnv([]string{variable}, known); err != nil {
			t.Errorf("%s: %v", variable, err)
		}
	}
	for variable, hint := range map[string]string{
		"CONCORD_DATADIR=x": "CONCORD_DATA_DIR", "CONCORD_X=x": "--help", "CONCORD_data_dir=x": "CONCORD_DATA_DIR",
	} {
		err := checkEnv([]string{"A=b", variable}, known)
		if err == nil || exitCode(err) != exitUsage || !strings.Contains(hintFor(err), hint) {
			t.Errorf("%s: %v with hint %q, want %q", variable, err, hintFor(err), hint)
		}
	}
}

// What other commands read from the environment is no wrong setting of serve.
func TestCheckEnvKnowsOtherCommands(t *testing.T) {
	named := regexp.MustCompile(`CONCORD_[A-Z_]+`)
	found := map[string]bool{}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			for _, name := range named.FindAllString(f.Usage, -1) {
				found[name] = true
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRootCommand(stdio{}))
	if len(found) < 4 {
		t.Fatalf("only %v are named in the help", found)
	}
	settings := map[string]bool{}
	defaults := defaultServeSettings()
	eachSetting(&defaults, func(name, _ string, _ reflect.Value) { settings[name] = true })
	for name := range found {
		if err := checkEnv([]string{name + "=x"}, settings); err != nil {
			t.Error(err)
		}
	}
}

func TestQuoted(t *testing.T) {
	for word, want := range map[string]string{
		"": "''", "n1.example.com:2379": "n1.example.com:2379", "/etc/a b": "'/etc/a b'", "it's": `'it'\''s'`,
		"[::]:2379": "'[::]:2379'", "$HOME": "'$HOME'", "~": "'~'", "*": "'*'",
	} {
		if got := quoted(word); got != want {
			t.Errorf("%q became %s, want %s", word, got, want)
		}
	}
}
