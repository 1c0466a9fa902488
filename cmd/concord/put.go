package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/kv"
)

// putOptions are put's conditions and attachments.
type putOptions struct {
	ttl      ttl
	lease    leaseID
	prev     bool
	ifAbsent bool
	ifRev    condition
}

func newPutCommand(g *globals) *cobra.Command {
	var opts putOptions
	cmd := &cobra.Command{
		Use: "put KEY [VALUE]", Short: "Write a key; without VALUE, or with -, from standard input",
		Example: "  concord put greeting hello\n  concord put cert < cert.pem\n" +
			"  concord put lock me --if-absent --ttl 30s\n  concord put config v2 --if-rev 17",
		Args: cobra.RangeArgs(1, 2),
	}
	flags := cmd.Flags()
	flags.Var(&opts.ttl, "ttl", "delete the key after this time unless it is put again; 0 means never")
	flags.Var(&opts.lease, "lease", "attach the key to this lease")
	flags.BoolVar(&opts.prev, "prev", false, "print the value that was replaced")
	flags.BoolVar(&opts.ifAbsent, "if-absent", false, "only when the key does not exist")
	flags.Var(&opts.ifRev, "if-rev", "only when the key's last change was at this revision; 0 means that it does not exist")
	return g.withAnswer(cmd, func(ctx context.Context, args []string) error { return runPut(ctx, g, opts, args) })
}

func runPut(ctx context.Context, g *globals, opts putOptions, args []string) error {
	op := kv.Op{Kind: kv.OpPut, Key: []byte(args[0]), TTL: time.Duration(opts.ttl), Lease: kv.LeaseID(opts.lease), PrevKV: opts.prev}
	if len(args) == 2 && args[1] != "-" {
		op.Value = []byte(args[1])
	} else {
		value, err := g.readValue()
		if err != nil {
			return err
		}
		op.Value = value
	}
	compare, err := conditions(op.Key, opts.ifAbsent, opts.ifRev)
	if err != nil {
		return err
	}
	return g.change(ctx, "put", kv.Txn{Compare: compare, Success: []kv.Op{op}}, g.printPut)
}

// readValue reads standard input, and tells a person who sits there.
func (g *globals) readValue() ([]byte, error) {
	if isTerminal(g.std.in) {
		fmt.Fprintln(g.std.err, "Type the value; Ctrl-D at the start of a line ends it.")
	}
	bar := newProgress(g.std.err, -1, "read the value")
	defer bar.Close()
	value, err := io.ReadAll(io.TeeReader(g.std.in, bar))
	if err != nil {
		return nil, fmt.Errorf("read the value from standard input: %w", err)
	}
	return value, nil
}

// change runs a transaction of one operation and prints what came of it; that
// its condition does not hold is an error.
func (g *globals) change(ctx context.Context, verb string, t kv.Txn, print func(kv.TxnResult) error) error {
	return g.withStore(ctx, func(ctx context.Context, s kv.Store) error {
		done := g.busy(verb)
		res, err := s.Txn(ctx, t)
		done()
		if err != nil {
			return err
		}
		if !res.Succeeded {
			return fmt.Errorf("%s %s: %w", verb, printable(t.Success[0].Key), errConflict)
		}
		return print(res)
	})
}

// conditions are the comparisons behind --if-absent and --if-rev.
func conditions(key []byte, ifAbsent bool, ifRev condition) ([]kv.Compare, error) {
	switch {
	case ifAbsent && ifRev.given:
		return nil, usagef("--if-absent and --if-rev exclude each other")
	case ifAbsent:
		return []kv.Compare{{Key: key, Target: kv.CompareCreate, Relation: kv.Equal}}, nil
	case ifRev.given:
		return []kv.Compare{{Key: key, Target: kv.CompareMod, Relation: kv.Equal, Number: int64(ifRev.revision)}}, nil
	}
	return nil, nil
}

func (g *globals) printPut(res kv.TxnResult) error {
	prev := res.Ops[0].Prev
	if g.output == "json" {
		out := map[string]any{"revision": int64(res.Revision)}
		if len(prev) > 0 {
			out["prev"] = toJSONKV(&prev[0], res.Time, true)
		}
		return printJSON(g.std.out, out)
	}
	if len(prev) > 0 {
		if _, err := fmt.Fprintf(g.std.out, "%s\n", prev[0].Value); err != nil {
			return err
		}
	}
	fmt.Fprintf(g.std.err, "OK, revision %d\n", res.Revision)
	return nil
}

// delOptions are del's selection and condition.
type delOptions struct {
	prefix, fromKey, prev bool
	ifRev                 condition
}

func newDelCommand(g *globals) *cobra.Command {
	var opts delOptions
	cmd := &cobra.Command{
		Use: "del KEY [END]", Short: "Delete a key, or the keys from KEY up to END",
		Long:    "Delete a key, or the keys from KEY up to END, and print how many were deleted.\nWhen there was none, the exit code is 3.",
		Example: "  concord del greeting\n  concord del --prefix svc/old/",
		Args:    cobra.RangeArgs(1, 2),
	}
	flags := cmd.Flags()
	flags.BoolVar(&opts.prefix, "prefix", false, "all keys that start with KEY")
	flags.BoolVar(&opts.fromKey, "from-key", false, "all keys from KEY on")
	flags.BoolVar(&opts.prev, "prev", false, "print what was deleted")
	flags.Var(&opts.ifRev, "if-rev", "only when the last change to KEY was at this revision")
	return g.withAnswer(cmd, func(ctx context.Context, args []string) error { return runDel(ctx, g, opts, args) })
}

func runDel(ctx context.Context, g *globals, opts delOptions, args []string) error {
	op := kv.Op{Kind: kv.OpDelete, Key: []byte(args[0]), PrevKV: opts.prev}
	if len(args) == 2 {
		op.End = []byte(args[1])
	}
	var err error
	if op.Key, op.End, err = keyRange(op.Key, op.End, opts.prefix, opts.fromKey); err != nil {
		return err
	}
	compare, err := conditions(op.Key, false, opts.ifRev)
	if err != nil {
		return err
	}
	return g.change(ctx, "delete", kv.Txn{Compare: compare, Success: []kv.Op{op}}, g.printDel)
}

func (g *globals) printDel(res kv.TxnResult) error {
	deleted := res.Ops[0]
	if g.output == "json" {
		prev := make([]jsonKV, len(deleted.Prev))
		for i := range deleted.Prev {
			prev[i] = toJSONKV(&deleted.Prev[i], res.Time, true)
		}
		out := map[string]any{"revision": int64(res.Revision), "deleted": deleted.Deleted}
		if len(prev) > 0 {
			out["prev"] = prev
		}
		if err := printJSON(g.std.out, out); err != nil {
			return err
		}
	} else {
		if _, err := fmt.Fprintln(g.std.out, strconv.FormatInt(deleted.Deleted, 10)); err != nil {
			return err
		}
		for i := range deleted.Prev {
			if _, err := fmt.Fprintf(g.std.out, "%s\n%s\n", deleted.Prev[i].Key, deleted.Prev[i].Value); err != nil {
				return err
			}
		}
	}
	if deleted.Deleted == 0 {
		return &silentError{exitNotFound}
	}
	return nil
}
