package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/kv"
)

const txnHelp = `Run a transaction that is read from FILE or standard input: comparisons, a
blank line, the operations for when all hold, a blank line, the operations
for when not. It is the text form that etcdctl takes.

  mod("config") = "17"

  put config v2
  del config/old --prefix

  get config

Comparisons: value, version, create, mod or lease of a quoted key; then =, !=,
< or >; then the quoted value. Operations: put KEY VALUE [--ttl D] [--lease ID],
get KEY [END] [--prefix], del KEY [END] [--prefix]. Words may stand in single
or double quotes. Lines that start with # are comments.

The first line of the answer is SUCCESS or FAILURE; a FAILURE ends with exit
code 4.`

func newTxnCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "txn [FILE]", Short: "Compare, then change several keys at one revision",
		Long: txnHelp, Args: cobra.MaximumNArgs(1),
	}
	return g.withAnswer(cmd, func(ctx context.Context, args []string) error { return runTxn(ctx, g, args) })
}

func runTxn(ctx context.Context, g *globals, args []string) error {
	in := g.std.in
	if len(args) == 1 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return fmt.Errorf("read the transaction: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read the transaction: %w", err)
	}
	t, err := parseTxn(string(text))
	if err != nil {
		return &usageError{err: err, hint: "See 'concord txn --help' for the form of a transaction."}
	}
	return g.withStore(ctx, func(ctx context.Context, s kv.Store) error {
		res, err := s.Txn(ctx, t)
		if err != nil {
			return err
		}
		if err := g.printTxn(res); err != nil {
			return err
		}
		if !res.Succeeded {
			return &silentError{exitConflict}
		}
		return nil
	})
}

func (g *globals) printTxn(res kv.TxnResult) error {
	if g.output == "json" {
		ops := make([]any, len(res.Ops))
		for i := range res.Ops {
			ops[i] = jsonOpResult(&res.Ops[i], res.Time)
		}
		return printJSON(g.std.out, map[string]any{
			"succeeded": res.Succeeded, "revision": int64(res.Revision), "results": ops,
		})
	}
	verdict := "SUCCESS"
	if !res.Succeeded {
		verdict = "FAILURE"
	}
	fmt.Fprintln(g.std.out, verdict)
	for i := range res.Ops {
		op := &res.Ops[i]
		switch op.Kind {
		case kv.OpPut:
			fmt.Fprintln(g.std.out, "OK")
		case kv.OpDelete:
			fmt.Fprintln(g.std.out, op.Deleted)
		case kv.OpRange:
			for j := range op.Range.KVs {
				fmt.Fprintf(g.std.out, "%s\n%s\n", op.Range.KVs[j].Key, op.Range.KVs[j].Value)
			}
		}
	}
	return nil
}

func jsonOpResult(op *kv.OpResult, now kv.Time) map[string]any {
	out := map[string]any{"op": op.Kind.String()}
	switch op.Kind {
	case kv.OpDelete:
		out["deleted"] = op.Deleted
	case kv.OpRange:
		kvs := make([]jsonKV, len(op.Range.KVs))
		for i := range op.Range.KVs {
			kvs[i] = toJSONKV(&op.Range.KVs[i], now, true)
		}
		out["kvs"], out["count"] = kvs, op.Range.Count
	}
	return out
}
