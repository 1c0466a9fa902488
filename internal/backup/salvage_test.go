package backup

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concord-kv/concord/internal/memberfile"
)

// flip changes a bit of a file.
func flip(t testing.TB, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 4
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// only returns the one file of a data directory that matches, or the first.
func only(t testing.TB, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names[0]
}

// TestSalvage damages a directory in several ways. What can be read comes back,
// with what came before the damage whole, and the member goes on.
func TestSalvage(t *testing.T) {
	logEnd := func(t testing.TB, dir string) int { // the middle of what is written
		r, err := Check(dir)
		if err != nil {
			t.Fatal(err)
		}
		return int(r.Log.Segments[0].Used / 2)
	}
	for name, c := range map[string]struct {
		harm   func(t testing.TB, dir string)
		damage int
		// key19 was put last by the log, and by the snapshot.
		want []string
	}{
		"nothing":     {func(testing.TB, string) {}, 0, []string{"later 49"}},
		"log":         {func(t testing.TB, dir string) { flip(t, only(t, dir, "wal/*.wal"), logEnd(t, dir)) }, 1, []string{"later 19", strings.Repeat("v", 390), strings.Repeat("v", 190)}},
		"log's start": {func(t testing.TB, dir string) { flip(t, only(t, dir, "wal/*.wal"), 3) }, 1, []string{strings.Repeat("v", 390)}},
		"no log":      {func(t testing.TB, dir string) { _ = os.RemoveAll(filepath.Join(dir, "wal")) }, 1, []string{strings.Repeat("v", 390)}},
		"identity":    {func(t testing.TB, dir string) { flip(t, filepath.Join(dir, memberfile.Name), 30) }, 1, []string{"later 49"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := busy(t)
			c.harm(t, dir)
			before := tree(t, dir)
			found, err := Survey(dir)
			if err != nil || len(found.Damage) != c.damage || found.Aside != "" {
				t.Fatalf("%+v, %v", found, err)
			}
			if after := tree(t, dir); !maps.Equal(before, after) {
				t.Fatal("the survey changed something")
			}
			s, err := Salvage(dir)
			if err != nil || s.Status.Revision != found.Status.Revision+DefaultBump || s.Aside != dir+".aside-1" || s.Last != found.Last {
				t.Fatalf("%+v, %v; surveyed %+v", s, err, found)
			}
			if after := tree(t, s.Aside); len(after) != len(before) {
				t.Errorf("%d files set aside, there were %d", len(after), len(before))
			}
			if _, err := Check(dir); err != nil {
				t.Error(err)
			}
			n := start(t, dir)
			if got := string(n.get(t, "key19").Value); !slices.Contains(c.want, got) {
				t.Errorf("key19 is %q", got)
			}
			n.put(t, "after", "it", 0)
			n.stop()
		})
	}
}

// TestSalvageInVain: without a snapshot there is nothing to begin with, and
// nothing changes.
func TestSalvageInVain(t *testing.T) {
	dir, _ := busy(t)
	names, _ := filepath.Glob(filepath.Join(dir, "snap", "*"))
	for _, name := range names {
		flip(t, name, 100)
	}
	before := tree(t, dir)
	if _, err := Salvage(dir); err == nil || !strings.Contains(err.Error(), "backup restore") {
		t.Error(err)
	}
	if after := tree(t, dir); !maps.Equal(before, after) {
		t.Error("something changed")
	}
	if _, err := Salvage(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
