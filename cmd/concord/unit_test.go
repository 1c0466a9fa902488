package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"testing"
	"time"

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
		{fmt.Errorf("put: %w", errConflict), exitConflict, ""},
		{kv.ErrKeyNotFound, exitNotFound, ""},
		{kv.ErrLeaseExists, exitConflict, ""},
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
