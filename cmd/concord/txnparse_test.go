package main

import (
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

func TestParseTxn(t *testing.T) {
	got, err := parseTxn(`# a comment
mod("k") = "17"
value('a b') != ""
c(k) > 0
ver("x\n)") < 5
lease("k") = "a1"

put k "v \"1\"" --ttl 30s
put 'a b' '' --lease a1
del k l
del "" --prefix
get --prefix p

get k
`)
	if err != nil {
		t.Fatal(err)
	}
	want := kv.Txn{
		Compare: []kv.Compare{
			{Key: []byte("k"), Target: kv.CompareMod, Relation: kv.Equal, Number: 17},
			{Key: []byte("a b"), Target: kv.CompareValue, Relation: kv.NotEqual, Value: []byte{}},
			{Key: []byte("k"), Target: kv.CompareCreate, Relation: kv.Greater},
			{Key: []byte("x\n)"), Target: kv.CompareVersion, Relation: kv.Less, Number: 5},
			{Key: []byte("k"), Target: kv.CompareLease, Relation: kv.Equal, Number: 0xa1},
		},
		Success: []kv.Op{
			{Kind: kv.OpPut, Key: []byte("k"), Value: []byte(`v "1"`), TTL: 30 * time.Second},
			{Kind: kv.OpPut, Key: []byte("a b"), Value: []byte{}, Lease: 0xa1},
			{Kind: kv.OpDelete, Key: []byte("k"), End: []byte("l")},
			{Kind: kv.OpDelete, Key: []byte{0}, End: []byte{0}},
			{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("p"), End: []byte("q")}},
		},
		Failure: []kv.Op{{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("k")}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Each mistake is refused with its line and what would be right.
func TestParseTxnMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "is empty",
		"\n\n\n":                "is empty",
		"mod k = 1":             `write one as mod("key") = "17"`,
		`mod("k" = 1`:           "no comparison",
		`mod("k) = 1`:           "no comparison",
		`mod("k") 1`:            "no comparison",
		`mod("k") =`:            "takes one value",
		`mod("k") = 1 2`:        "takes one value",
		`mod("k") = "1`:         "not closed",
		`mod("k") = x`:          "no number",
		`size("k") = 1`:         "use value, version, create, mod or lease",
		"\nput k":               "line 2: put takes KEY VALUE",
		"\nput k v w":           "quote a value with spaces",
		"\nput k 'v":            "not closed",
		"\nput k \"v":           "not closed",
		"\nput k \"a\"\"b\"":    "a space is missing",
		"\nput k v --ttl soon":  "ttl",
		"\nput k v --lease zz":  "hexadecimal",
		"\nget":                 "get takes KEY [END]",
		"\nget a b --prefix":    "exclude each other",
		"\nget a --limit 3":     "unknown flag",
		"\ndo k":                "use put, get or del",
		"\nget a\n\nget b\n\nx": "line 6:",
	} {
		_, err := parseTxn(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

func FuzzParseTxn(f *testing.F) {
	for _, seed := range []string{
		"", "mod(\"k\") = \"17\"\n\nput k v\n\nget k", "value('a)') != ''\n", "\nput \"\\xff\" 'a b' --ttl 1s --lease 7",
		"\ndel --prefix -- -k\n", "c(k)>0\n\nget a b", "lease(\"\\\"\") < \"zz\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		txn, err := parseTxn(text)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error says nothing")
			}
			return
		}
		if len(txn.Compare)+len(txn.Success)+len(txn.Failure) == 0 {
			t.Error("an empty transaction is accepted")
		}
		for _, c := range txn.Compare {
			if c.Target != kv.CompareValue && c.Value != nil {
				t.Errorf("comparison of a number with %q", c.Value)
			}
		}
		for _, op := range append(txn.Success, txn.Failure...) {
			if op.Kind == kv.OpRange && op.Range == nil || len(op.Key) == 0 && len(op.End) > 0 {
				t.Errorf("operation %+v", op)
			}
		}
	})
}

// What quoting writes, splitting reads.
func FuzzSplitWords(f *testing.F) {
	f.Add("a", "b c")
	f.Add("\"", "\n\x00\xff'")
	f.Fuzz(func(t *testing.T, a, b string) {
		got, err := splitWords(strconv.Quote(a) + " " + strconv.Quote(b))
		if err != nil || len(got) != 2 || got[0] != a || got[1] != b {
			t.Errorf("%q, %q: %q, %v", a, b, got, err)
		}
		if words, err := splitWords(a); err == nil && len(words) == 0 && strings.TrimSpace(a) != "" {
			t.Errorf("%q has no words", a)
		}
	})
}
