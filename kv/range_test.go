package kv_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/concord-kv/concord/kv"
)

func TestPrefix(t *testing.T) {
	for _, c := range []struct{ prefix, end string }{
		{"a", "b"},
		{"az", "a{"},
		{"a\xff", "b"},
		{"a\xff\xff", "b"},
		{"\xff", "\x00"},
		{"\xff\xff", "\x00"},
		{"", "\x00"},
		{"\x00", "\x01"},
	} {
		prefix := []byte(c.prefix)
		if got := kv.Prefix(prefix); string(got) != c.end {
			t.Errorf("Prefix(%q) = %q, want %q", c.prefix, got, c.end)
		}
		if string(prefix) != c.prefix {
			t.Errorf("Prefix(%q) changed its argument", c.prefix)
		}
	}
}

// A key lies in a prefix's range exactly when it starts with the prefix.
func FuzzPrefix(f *testing.F) {
	f.Add([]byte("a"), []byte("ab"))
	f.Add([]byte("\xff"), []byte("\xff\xff"))
	f.Add([]byte("a\xff"), []byte("b"))
	f.Fuzz(func(t *testing.T, prefix, key []byte) {
		if len(prefix) == 0 || len(key) == 0 {
			return // keys are not empty
		}
		got := kv.InRange(key, prefix, kv.Prefix(prefix))
		if want := bytes.HasPrefix(key, prefix); got != want {
			t.Errorf("%q in the range of prefix %q: %v", key, prefix, got)
		}
	})
}

func TestInRange(t *testing.T) {
	for _, c := range []struct {
		k, key, end string
		want        bool
	}{
		{"a", "a", "", true},
		{"b", "a", "", false},
		{"a", "a", "b", true},
		{"b", "a", "b", false},
		{"a\x00", "a", "b", true},
		{"A", "a", "b", false},
		{"a", "a", "a", false},
		{"a", "b", "a", false},
		{"z", "a", "\x00", true},
		{"A", "a", "\x00", false},
		{"a", "a", "\x00\x00", false},
	} {
		if got := kv.InRange([]byte(c.k), []byte(c.key), []byte(c.end)); got != c.want {
			t.Errorf("InRange(%q, %q, %q) = %v", c.k, c.key, c.end, got)
		}
	}
}

func FuzzInRange(f *testing.F) {
	f.Add("b", "a", "c")
	f.Add("b", "a", "\x00")
	f.Add("b", "b", "")
	f.Fuzz(func(t *testing.T, k, key, end string) {
		var want bool
		switch {
		case end == "":
			want = k == key
		case end == "\x00":
			want = strings.Compare(k, key) >= 0
		default:
			want = strings.Compare(k, key) >= 0 && strings.Compare(k, end) < 0
		}
		if got := kv.InRange([]byte(k), []byte(key), []byte(end)); got != want {
			t.Errorf("InRange(%q, %q, %q) = %v", k, key, end, got)
		}
	})
}
