package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/kv"
)

// watchOptions say what is followed.
type watchOptions struct {
	prefix, fromKey bool
	revision, limit natural
	prev            bool
}

func newWatchCommand(g *globals) *cobra.Command {
	var opts watchOptions
	cmd := &cobra.Command{
		Use: "watch KEY [END]", Short: "Print changes as they happen, until interrupted",
		Example: "  concord watch --prefix svc/\n  concord watch config --rev 17 -o jsonl",
		Args:    cobra.RangeArgs(1, 2),
	}
	flags := cmd.Flags()
	flags.BoolVar(&opts.prefix, "prefix", false, "all keys that start with KEY")
	flags.BoolVar(&opts.fromKey, "from-key", false, "all keys from KEY on")
	flags.Var(&opts.revision, "rev", "begin with the changes of this revision; 0 means from now on")
	flags.Var(&opts.limit, "limit", "end after this many changes; 0 means never")
	flags.BoolVar(&opts.prev, "prev", false, "show the value before each change")
	g.addClientFlags(flags)
	flags.Lookup("timeout").Usage = "how long to look for a member that answers; 0 means for ever"
	g.addOutputFlag(flags, "value", "value (three lines an event, as etcdctl), jsonl")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return runWatch(cmd.Context(), g, opts, args)
	}
	return cmd
}

func runWatch(ctx context.Context, g *globals, opts watchOptions, args []string) error {
	if err := g.checkOutput("value", "jsonl"); err != nil {
		return err
	}
	w := kv.WatchRequest{Start: kv.Revision(opts.revision), PrevKV: opts.prev}
	var end []byte
	if len(args) == 2 {
		end = []byte(args[1])
	}
	var err error
	if w.Key, w.End, err = keyRange([]byte(args[0]), end, opts.prefix, opts.fromKey); err != nil {
		return err
	}
	c, err := g.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	// A watch looks for a member without end; a person wants to know first
	// whether there is one.
	if _, err := c.Range(ctx, kv.Range{Key: w.Key, CountOnly: true, Level: kv.Eventual}); err != nil {
		return err
	}
	left := opts.limit
	for batch, err := range c.Watch(ctx, w) {
		switch {
		case ctx.Err() != nil:
			return nil // interrupted: that is how a watch ends
		case err != nil:
			return err
		}
		for i := range batch.Events {
			if err := g.printEvent(batch.Revision, &batch.Events[i]); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
	}
	return nil
}

// jsonEvent is a change as JSON output shows it.
type jsonEvent struct {
	Type     string  `json:"type"`
	Revision int64   `json:"revision"`
	KV       jsonKV  `json:"kv"`
	Prev     *jsonKV `json:"prev,omitempty"`
}

func (g *globals) printEvent(rev kv.Revision, ev *kv.Event) error {
	if g.output == "jsonl" {
		out := jsonEvent{Type: ev.Type.String(), Revision: int64(rev), KV: toJSONKV(&ev.KV, 0, ev.Type == kv.PutEvent)}
		if ev.Prev != nil {
			prev := toJSONKV(ev.Prev, 0, true)
			out.Prev = &prev
		}
		return printJSONLine(g.std.out, out)
	}
	_, err := fmt.Fprintln(g.std.out, ev.Type)
	if err == nil && ev.Prev != nil {
		_, err = fmt.Fprintf(g.std.out, "%s\n%s\n", ev.Prev.Key, ev.Prev.Value)
	}
	if err == nil {
		_, err = fmt.Fprintf(g.std.out, "%s\n%s\n", ev.KV.Key, ev.KV.Value)
	}
	return err
}
