package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/concord-kv/concord/kv"
)

// getOptions select and order keys; get and ls share them.
type getOptions struct {
	prefix, fromKey bool
	revision, limit natural
	sort, order     string
	level           string
	keysOnly, count bool
}

var sortTargets = map[string]kv.SortTarget{
	"key": kv.SortByKey, "version": kv.SortByVersion, "create": kv.SortByCreate,
	"mod": kv.SortByMod, "value": kv.SortByValue,
}

var sortOrders = map[string]kv.SortOrder{"": kv.NoSort, "asc": kv.Ascending, "desc": kv.Descending}

func (o *getOptions) addFlags(flags *pflag.FlagSet) {
	flags.Var(&o.revision, "rev", "read at this revision; 0 means the latest")
	flags.Var(&o.limit, "limit", "return at most this many keys; 0 means all")
	flags.StringVar(&o.sort, "sort", "key", "sort by key, version, create, mod or value")
	flags.StringVar(&o.order, "order", "", "asc or desc")
	flags.StringVar(&o.level, "level", "strong", "read level: strong, leader or eventual")
	flags.BoolVar(&o.count, "count", false, "print only how many keys there are")
}

// request turns the options into a range of key and, when given, end.
func (o *getOptions) request(key []byte, end []byte) (kv.Range, error) {
	level, err := kv.ParseReadLevel(o.level)
	if err != nil {
		return kv.Range{}, &usageError{err: err}
	}
	by, ok := sortTargets[o.sort]
	if !ok {
		return kv.Range{}, usagef("--sort %q is unknown; use key, version, create, mod or value", o.sort)
	}
	order, ok := sortOrders[o.order]
	if !ok {
		return kv.Range{}, usagef("--order %q is unknown; use asc or desc", o.order)
	}
	if key, end, err = keyRange(key, end, o.prefix, o.fromKey); err != nil {
		return kv.Range{}, err
	}
	return kv.Range{
		Key: key, End: end, Revision: kv.Revision(o.revision), Limit: int64(o.limit), Level: level,
		Sort: kv.Sort{By: by, Order: order}, KeysOnly: o.keysOnly, CountOnly: o.count,
	}, nil
}

// keyRange is the range that the arguments and flags ask for. All keys start
// with, and follow, the empty one.
func keyRange(key, end []byte, prefix, fromKey bool) (first, last []byte, err error) {
	given := 0
	for _, is := range []bool{len(end) > 0, prefix, fromKey} {
		if is {
			given++
		}
	}
	if given > 1 {
		return nil, nil, usagef("END, --prefix and --from-key exclude each other")
	}
	switch {
	case prefix:
		end = kv.Prefix(key)
	case fromKey:
		end = []byte{0}
	}
	if len(key) == 0 && len(end) > 0 {
		key = []byte{0}
	}
	return key, end, nil
}

func newGetCommand(g *globals) *cobra.Command {
	var opts getOptions
	cmd := &cobra.Command{
		Use: "get KEY [END]", Short: "Print a key, or the keys from KEY up to END",
		Example: "  concord get greeting\n  concord get --prefix svc/ -o json\n  concord get greeting --rev 7",
		Args:    cobra.RangeArgs(1, 2),
	}
	opts.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&opts.prefix, "prefix", false, "all keys that start with KEY")
	cmd.Flags().BoolVar(&opts.fromKey, "from-key", false, "all keys from KEY on")
	cmd.Flags().BoolVar(&opts.keysOnly, "keys-only", false, "leave the values out")
	g.addClientFlags(cmd.Flags())
	g.addOutputFlag(cmd.Flags(), "", "value (one key), table (several), json, jsonl")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return runGet(cmd.Context(), g, opts, args)
	}
	return cmd
}

func runGet(ctx context.Context, g *globals, opts getOptions, args []string) error {
	var end []byte
	if len(args) == 2 {
		end = []byte(args[1])
	}
	r, err := opts.request([]byte(args[0]), end)
	if err != nil {
		return err
	}
	single := len(r.End) == 0
	if g.output == "" {
		g.output = "table"
		if single {
			g.output = "value"
		}
	}
	return g.printRange(ctx, r, single)
}

// printRange asks for r and prints it. A single key that is not there is an
// error.
func (g *globals) printRange(ctx context.Context, r kv.Range, single bool) error {
	if err := g.checkOutput("table", "json", "jsonl", "value"); err != nil {
		return err
	}
	return g.withStore(ctx, func(ctx context.Context, s kv.Store) error {
		res, err := s.Range(ctx, r)
		if err != nil {
			return err
		}
		if r.CountOnly {
			return g.printCount(res)
		}
		if single && len(res.KVs) == 0 {
			return &kv.Error{Code: kv.NotFound, Message: "key " + printable(r.Key) + " not found", Err: kv.ErrKeyNotFound}
		}
		return g.printKVs(res, !r.KeysOnly)
	})
}

func (g *globals) printCount(res kv.RangeResult) error {
	if g.output == "json" || g.output == "jsonl" {
		return printJSONLine(g.std.out, map[string]int64{"count": res.Count, "revision": int64(res.Revision)})
	}
	_, err := fmt.Fprintln(g.std.out, res.Count)
	return err
}

func (g *globals) printKVs(res kv.RangeResult, values bool) error {
	out := g.std.out
	switch g.output {
	case "value":
		for i := range res.KVs {
			b := res.KVs[i].Value
			if !values {
				b = res.KVs[i].Key
			}
			if _, err := fmt.Fprintf(out, "%s\n", b); err != nil {
				return err
			}
		}
		return nil
	case "jsonl":
		for i := range res.KVs {
			if err := printJSONLine(out, toJSONKV(&res.KVs[i], res.Time, values)); err != nil {
				return err
			}
		}
		return nil
	case "json":
		list := make([]jsonKV, len(res.KVs))
		for i := range res.KVs {
			list[i] = toJSONKV(&res.KVs[i], res.Time, values)
		}
		return printJSON(out, map[string]any{
			"kvs": list, "count": res.Count, "more": res.More, "revision": int64(res.Revision),
		})
	}
	return g.printKVTable(res, values)
}

func (g *globals) printKVTable(res kv.RangeResult, values bool) error {
	header := []string{"KEY", "VALUE", "REVISION", "VERSION", "LEASE", "TTL"}
	if !values {
		header = append(header[:1], header[2:]...)
	}
	rows := make([][]string, len(res.KVs))
	for i := range res.KVs {
		k := &res.KVs[i]
		row := []string{printable(k.Key)}
		if values {
			row = append(row, printable(k.Value))
		}
		rows[i] = append(row, strconv.FormatInt(int64(k.ModRevision), 10),
			strconv.FormatInt(k.Version, 10), leaseText(k.Lease), ttlLeft(k.Expires, res.Time))
	}
	if err := printTable(g.std.out, header, rows); err != nil {
		return err
	}
	if res.More {
		fmt.Fprintf(g.std.err, "%d of %d keys shown; raise --limit to see more\n", len(res.KVs), res.Count)
	}
	return nil
}

func newListCommand(g *globals) *cobra.Command {
	var opts getOptions
	cmd := &cobra.Command{
		Use: "ls [PREFIX]", Short: "List keys, all or those that start with PREFIX",
		Example: "  concord ls\n  concord ls svc/ -o value\n  concord ls --count",
		Args:    cobra.MaximumNArgs(1),
	}
	opts.addFlags(cmd.Flags())
	g.addClientFlags(cmd.Flags())
	g.addOutputFlag(cmd.Flags(), "value", "value (a key a line), table, json, jsonl")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opts.keysOnly, opts.prefix = true, true
		var prefix []byte
		if len(args) == 1 {
			prefix = []byte(args[0])
		}
		r, err := opts.request(prefix, nil)
		if err != nil {
			return err
		}
		return g.printRange(cmd.Context(), r, false)
	}
	return cmd
}
