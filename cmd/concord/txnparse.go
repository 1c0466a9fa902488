package main

import (
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
		return t, fmt.Errorf("the transaction is empty; see 'concord txn --help' for its form")
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

// parseCompare reads target("key") relation "value".
func parseCompare(line string) (kv.Compare, error) {
	form := fmt.Errorf(`%q is no comparison; write one as mod("key") = "17"`, line)
	open := strings.IndexByte(line, '(')
	closing := strings.IndexByte(line, ')')
	if open < 0 || closing < open {
		return kv.Compare{}, form
	}
	// The key may hold a parenthesis inside its quotes.
	if rest := line[open+1:]; strings.HasPrefix(rest, `"`) {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil || !strings.HasPrefix(rest[len(quoted):], ")") {
			return kv.Compare{}, form
		}
		closing = open + 1 + len(quoted)
	}
	target, ok := compareTargets[strings.TrimSpace(line[:open])]
	if !ok {
		return kv.Compare{}, fmt.Errorf("%q is no compare target; use value, version, create, mod or lease", strings.TrimSpace(line[:open]))
	}
	c := kv.Compare{Target: target, Key: []byte(unquote(line[open+1 : closing]))}
	rest := strings.TrimSpace(line[closing+1:])
	var found bool
	for _, rel := range [...]struct {
		text string
		rel  kv.Relation
	}{{"!=", kv.NotEqual}, {"=", kv.Equal}, {"<", kv.Less}, {">", kv.Greater}} {
		if strings.HasPrefix(rest, rel.text) {
			c.Relation, rest, found = rel.rel, strings.TrimSpace(rest[len(rel.text):]), true
			break
		}
	}
	if !found {
		return kv.Compare{}, form
	}
	return compareOperand(c, unquote(rest))
}

// compareOperand sets what c compares to.
func compareOperand(c kv.Compare, text string) (kv.Compare, error) {
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
	var ttl time.Duration
	flags := pflag.NewFlagSet(words[0], pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	switch words[0] {
	case "put":
		flags.StringVar(&lease, "lease", "", "")
		flags.DurationVar(&ttl, "ttl", 0, "")
	case "get", "del":
		flags.BoolVar(&prefix, "prefix", false, "")
	default:
		return kv.Op{}, fmt.Errorf("operation %q is unknown; use put, get or del", words[0])
	}
	if err := flags.Parse(words[1:]); err != nil {
		return kv.Op{}, fmt.Errorf("%s: %w", words[0], err)
	}
	args := flags.Args()
	if words[0] == "put" {
		return putOp(args, lease, ttl)
	}
	if len(args) < 1 || len(args) > 2 {
		return kv.Op{}, fmt.Errorf("%s takes KEY [END], not %d words", words[0], len(args))
	}
	key, end := []byte(args[0]), []byte(nil)
	if len(args) == 2 {
		end = []byte(args[1])
	}
	if end, err = rangeEnd(key, end, prefix, false); err != nil {
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
		switch line[0] {
		case '"':
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("a double quote is not closed in %s", line)
			}
			words, line = append(words, unquote(quoted)), line[len(quoted):]
		case '\'':
			end := strings.IndexByte(line[1:], '\'')
			if end < 0 {
				return nil, fmt.Errorf("a single quote is not closed in %s", line)
			}
			words, line = append(words, line[1:1+end]), line[end+2:]
		default:
			end := strings.IndexAny(line, " \t")
			if end < 0 {
				end = len(line)
			}
			words, line = append(words, line[:end]), line[end:]
		}
	}
	return words, nil
}

// unquote takes one layer of quotes off, if there is one.
func unquote(s string) string {
	if text, err := strconv.Unquote(s); err == nil {
		return text
	}
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return s[1 : len(s)-1]
	}
	return s
}
