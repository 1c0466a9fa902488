package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/concord-kv/concord/kv"
)

// parseTxn reads the text form of a transaction; see txnHelp.
func parseTxn(text string) (kv.Txn, error) {
	var t kv.Txn
	block := 0 // every blank line ends a block, which may be empty
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case line == "":
			block++
		default:
			if err := parseTxnLine(&t, block, line); err != nil {
				return t, fmt.Errorf("line %d: %w", n+1, err)
			}
		}
	}
	if len(t.Compare)+len(t.Success)+len(t.Failure) == 0 {
		return t, fmt.Errorf("the transaction is empty")
	}
	return t, nil
}

func parseTxnLine(t *kv.Txn, block int, line string) error {
	switch block {
	case 0:
		c, err := parseCompare(line)
		if err != nil {
			return err
		}
		t.Compare = append(t.Compare, c)
		return nil
	case 1, 2:
		op, err := parseOp(line)
		if err != nil {
			return err
		}
		if block == 1 {
			t.Success = append(t.Success, op)
		} else {
			t.Failure = append(t.Failure, op)
		}
		return nil
	}
	return fmt.Errorf("%q stands after the third block; blank lines part comparisons, success and failure operations", line)
}

var compareTargets = map[string]kv.CompareTarget{
	"val": kv.CompareValue, "value": kv.CompareValue,
	"ver": kv.CompareVersion, "version": kv.CompareVersion,
	"c": kv.CompareCreate, "create": kv.CompareCreate,
	"m": kv.CompareMod, "mod": kv.CompareMod,
	"lease": kv.CompareLease,
}

// relations are tried in this order: the longer one first.
var relations = []struct {
	text string
	rel  kv.Relation
}{{"!=", kv.NotEqual}, {"=", kv.Equal}, {"<", kv.Less}, {">", kv.Greater}}

// parseCompare reads target("key") relation "value".
func parseCompare(line string) (kv.Compare, error) {
	form := fmt.Errorf(`%q is no comparison; write one as mod("key") = "17"`, line)
	name, rest, ok := strings.Cut(line, "(")
	if !ok {
		return kv.Compare{}, form
	}
	name = strings.TrimSpace(name)
	target, ok := compareTargets[name]
	if !ok {
		return kv.Compare{}, fmt.Errorf("%q is no compare target; use value, version, create, mod or lease", name)
	}
	key, rest, ok := compareKey(strings.TrimSpace(rest))
	if !ok {
		return kv.Compare{}, form
	}
	c := kv.Compare{Target: target, Key: []byte(key)}
	for _, r := range relations {
		if operand, ok := strings.CutPrefix(rest, r.text); ok {
			c.Relation = r.rel
			return compareOperand(c, strings.TrimSpace(operand))
		}
	}
	return kv.Compare{}, form
}

// compareKey reads a key, in quotes or not, and the parenthesis behind it.
func compareKey(text string) (key, rest string, ok bool) {
	if strings.HasPrefix(text, `"`) || strings.HasPrefix(text, "'") {
		word, rest, err := quotedWord(text)
		rest, closed := strings.CutPrefix(strings.TrimSpace(rest), ")")
		return word, strings.TrimSpace(rest), err == nil && closed
	}
	key, rest, ok = strings.Cut(text, ")")
	return strings.TrimSpace(key), strings.TrimSpace(rest), ok
}

// compareOperand sets what c compares to: one word.
func compareOperand(c kv.Compare, text string) (kv.Compare, error) {
	words, err := splitWords(text)
	if err != nil {
		return c, err
	}
	if len(words) != 1 {
		return c, fmt.Errorf("a comparison takes one value, not %d; quote one that is empty or has spaces", len(words))
	}
	text = words[0]
	if c.Target == kv.CompareValue {
		c.Value = []byte(text)
		return c, nil
	}
	base := 10
	if c.Target == kv.CompareLease {
		base = 16
	}
	number, err := strconv.ParseInt(text, base, 64)
	if err != nil {
		return c, fmt.Errorf("%q is no number", text)
	}
	c.Number = number
	return c, nil
}

// parseOp reads one operation line.
func parseOp(line string) (kv.Op, error) {
	words, err := splitWords(line)
	if err != nil {
		return kv.Op{}, err
	}
	var prefix bool
	var lease string
	var life ttl
	flags := pflag.NewFlagSet(words[0], pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	switch words[0] {
	case "put":
		flags.StringVar(&lease, "lease", "", "")
		flags.Var(&life, "ttl", "")
	case "get", "del":
		flags.BoolVar(&prefix, "prefix", false, "")
	default:
		return kv.Op{}, fmt.Errorf("operation %q is unknown; use put, get or del", words[0])
	}
	if err := flags.Parse(words[1:]); err != nil {
		var invalid *pflag.InvalidValueError
		if errors.As(err, &invalid) {
			err = badValue("--"+invalid.GetFlag().Name, invalid.GetFlag(), invalid.GetValue(), invalid.Unwrap())
		}
		return kv.Op{}, fmt.Errorf("%s: %w", words[0], err)
	}
	args := flags.Args()
	if words[0] == "put" {
		return putOp(args, lease, time.Duration(life))
	}
	if len(args) < 1 || len(args) > 2 {
		return kv.Op{}, fmt.Errorf("%s takes KEY [END], not %d words", words[0], len(args))
	}
	key, end := []byte(args[0]), []byte(nil)
	if len(args) == 2 {
		end = []byte(args[1])
	}
	if key, end, err = keyRange(key, end, prefix, false); err != nil {
		return kv.Op{}, err
	}
	if words[0] == "del" {
		return kv.Op{Kind: kv.OpDelete, Key: key, End: end}, nil
	}
	return kv.Op{Kind: kv.OpRange, Range: &kv.Range{Key: key, End: end}}, nil
}

func putOp(args []string, lease string, ttl time.Duration) (kv.Op, error) {
	if len(args) != 2 {
		return kv.Op{}, fmt.Errorf("put takes KEY VALUE, not %d words; quote a value with spaces", len(args))
	}
	op := kv.Op{Kind: kv.OpPut, Key: []byte(args[0]), Value: []byte(args[1]), TTL: ttl}
	if lease != "" {
		id, err := parseLease(lease)
		if err != nil {
			return op, err
		}
		op.Lease = id
	}
	return op, nil
}

// splitWords parts a line at white space outside quotes.
func splitWords(line string) ([]string, error) {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		word, rest, err := quotedWord(line)
		if err != nil {
			return nil, err
		}
		if rest != "" && !strings.ContainsRune(" \t", rune(rest[0])) {
			return nil, fmt.Errorf("a space is missing between %s and %s", line[:len(line)-len(rest)], rest)
		}
		words, line = append(words, word), rest
	}
	return words, nil
}

// quotedWord takes one word off line: in double quotes with Go's escapes, in
// single quotes as it stands, or up to the next white space.
func quotedWord(line string) (word, rest string, err error) {
	switch {
	case strings.HasPrefix(line, `"`):
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return "", "", fmt.Errorf("a double quote is not closed, or an escape is unknown, in %s", line)
		}
		word, err = strconv.Unquote(quoted)
		return word, line[len(quoted):], err
	case strings.HasPrefix(line, "'"):
		word, rest, ok := strings.Cut(line[1:], "'")
		if !ok {
			return "", "", fmt.Errorf("a single quote is not closed in %s", line)
		}
		return word, rest, nil
	}
	end := strings.IndexAny(line, " \t")
	if end < 0 {
		end = len(line)
	}
	return line[:end], line[end:], nil
}
