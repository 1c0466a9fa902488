package lincheck

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/concord-kv/concord/kv"
)

// Options bound a check.
type Options struct {
	// Timeout ends the search; 0 means 60 s. A history that is undecided by
	// then is an error, as one that is not linearizable is.
	Timeout time.Duration
	// Picture names a file for a page that shows the history, written when
	// it is not linearizable; empty means none.
	Picture string
}

// Check returns nil when the history is linearizable, else an error that says
// what does not fit.
func (h *History) Check(o Options) error {
	ops := pinUnknown(h.Operations())
	if err := checkAnswers(ops); err != nil {
		return err
	}
	if err := checkRevisions(ops); err != nil {
		return err
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	model := registers()
	result, info := porcupine.CheckOperationsVerbose(model, toPorcupine(ops), o.Timeout)
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("undecided after %v: %d operations", o.Timeout, len(ops))
	}
	return notLinearizable(model, info, ops, o.Picture)
}

// notLinearizable describes the failure: the keys at fault, each with its
// operations in order.
func notLinearizable(model porcupine.Model, info porcupine.LinearizationInfo, ops []Operation, picture string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "not linearizable: %d operations", len(ops))
	for _, part := range partition(ops) {
		if porcupine.CheckOperationsTimeout(model, toPorcupine(part), time.Second) != porcupine.Illegal {
			continue
		}
		fmt.Fprintf(&b, "\nkey %q:", part[0].Key)
		for _, op := range part[max(0, len(part)-100):] {
			fmt.Fprintf(&b, "\n  %v", op)
		}
	}
	if picture != "" {
		f, err := os.Create(picture)
		if err != nil {
			return fmt.Errorf("%s (and no picture: %w)", b.String(), err)
		}
		defer f.Close()
		if err := porcupine.Visualize(model, info, f); err != nil {
			return fmt.Errorf("%s (and no picture: %w)", b.String(), err)
		}
		fmt.Fprintf(&b, "\npicture: %s", picture)
	}
	return fmt.Errorf("%s", b.String())
}

func toPorcupine(ops []Operation) []porcupine.Operation {
	var out []porcupine.Operation
	for _, op := range ops {
		out = append(out, porcupine.Operation{
			ClientId: op.Client, Input: op, Output: op.Answer, Call: op.Call, Return: op.Return,
		})
	}
	return out
}

// partition groups operations by key, each in order of their calls.
func partition(ops []Operation) [][]Operation {
	byKey := map[string][]Operation{}
	var keys []string
	for _, op := range ops {
		if byKey[op.Key] == nil {
			keys = append(keys, op.Key)
		}
		byKey[op.Key] = append(byKey[op.Key], op)
	}
	slices.Sort(keys)
	var out [][]Operation
	for _, key := range keys {
		part := byKey[key]
		slices.SortStableFunc(part, func(a, b Operation) int { return cmp.Compare(a.Call, b.Call) })
		out = append(out, part)
	}
	return out
}

// checkAnswers looks at each answer alone.
func checkAnswers(ops []Operation) error {
	for _, op := range ops {
		switch {
		case op.Unknown:
		case op.Return < op.Call:
			return fmt.Errorf("answered before it was called: %v", op)
		case op.Kind == Get && op.Answer.Done && op.Answer.Revision != 0 && op.Answer.Mod > op.Answer.Revision:
			return fmt.Errorf("a key from the future: %v", op)
		}
	}
	return nil
}

// changed reports whether op is known to have made a revision.
func (o Operation) changed() bool {
	return !o.Unknown && o.Answer.Revision != 0 && (o.Kind == Put || o.Kind != Get && o.Answer.Done)
}

// checkRevisions holds the revisions of all keys against real time: each change
// has one of its own, above all that was answered before it was called; no
// answer is from a state older than that; and a read at a revision saw the last
// change that is known up to it.
func checkRevisions(ops []Operation) error {
	changes := map[kv.Revision]Operation{}
	byKey := map[string][]kv.Revision{}
	for _, op := range ops {
		if !op.changed() {
			continue
		}
		if other, ok := changes[op.Answer.Revision]; ok {
			return fmt.Errorf("two changes at revision %d:\n  %v\n  %v", op.Answer.Revision, other, op)
		}
		changes[op.Answer.Revision] = op
		byKey[op.Key] = append(byKey[op.Key], op.Answer.Revision)
	}
	if err := checkRealTime(ops); err != nil {
		return err
	}
	for _, revs := range byKey {
		slices.Sort(revs)
	}
	for _, op := range ops {
		// Where a read found nothing, an unknown delete may be the reason.
		if op.Kind != Get || !op.Answer.Done || op.Answer.Revision == 0 {
			continue
		}
		revs := byKey[op.Key]
		i, found := slices.BinarySearch(revs, op.Answer.Revision)
		if !found {
			i--
		}
		if i >= 0 && op.Answer.Mod < revs[i] {
			return fmt.Errorf("a read missed a change:\n  %v\n  %v", changes[revs[i]], op)
		}
	}
	return nil
}

// checkRealTime sweeps over calls in order, with the highest revision that was
// answered before each.
func checkRealTime(ops []Operation) error {
	var known []Operation
	for _, op := range ops {
		if !op.Unknown && op.Answer.Revision != 0 {
			known = append(known, op)
		}
	}
	calls, returns := slices.Clone(known), known
	slices.SortFunc(calls, func(a, b Operation) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortFunc(returns, func(a, b Operation) int { return cmp.Compare(a.Return, b.Return) })
	var latest Operation
	for _, op := range calls {
		for len(returns) > 0 && returns[0].Return < op.Call {
			if returns[0].Answer.Revision >= latest.Answer.Revision {
				latest = returns[0]
			}
			returns = returns[1:]
		}
		low := latest.Answer.Revision
		if op.changed() {
			low++
		}
		if op.Answer.Revision < low {
			return fmt.Errorf("went back in time: after\n  %v\ncame\n  %v", latest, op)
		}
	}
	return nil
}

// pinUnknown bounds what is known to have happened after all: when only one
// write of a key has some value and a read found it, then that write happened,
// at the read's mod revision, before the read returned. Without this each
// unknown write stays open to the end of the history, and the search takes
// time exponential in their number.
func pinUnknown(ops []Operation) []Operation {
	type written struct{ key, value string }
	writers := map[written]int{}
	for _, op := range ops {
		if op.Kind == Put || op.Kind == Swap {
			writers[written{op.Key, op.Value}]++
		}
	}
	seen := map[written]Operation{}
	for _, op := range ops {
		w := written{op.Key, op.Answer.Value}
		if op.Kind != Get || !op.Answer.Done || writers[w] != 1 {
			continue
		}
		if first, ok := seen[w]; !ok || op.Return < first.Return {
			seen[w] = op
		}
	}
	out := slices.Clone(ops)
	for i := range out {
		op := &out[i]
		read, ok := seen[written{op.Key, op.Value}]
		if !op.Unknown || !ok || op.Kind != Put && op.Kind != Swap {
			continue
		}
		op.Unknown = false
		op.Return = max(read.Return, op.Call)
		op.Answer = Answer{Revision: read.Answer.Mod, Done: true}
	}
	return out
}
