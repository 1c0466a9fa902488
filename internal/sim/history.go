package sim

import (
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// opKind is what a client asked of one key.
type opKind uint8

const (
	opGet opKind = iota
	opPut
	opDelete
	opSwap // put if the value is what it was read as; an empty expectation means absent
)

// asked is the input of an operation on one key as porcupine sees it.
type asked struct {
	kind       opKind
	key        string
	value, old string
}

// told is its output. Values are never empty: "" means that there is no key.
type told struct {
	value   string
	swapped bool
	failed  bool // an error said that nothing was done
	unknown bool
}

// history collects what clients saw of single keys, for a check that shares
// nothing with the members' revisions or with the model.
type history struct {
	byKey map[string]*keyHistory
	limit int // operations kept per key: the check is exponential at worst
}

// keyHistory holds the operations on one key. Once it is closed, operations
// under way stay open for ever: a history cut at a time is one that can happen.
type keyHistory struct {
	ops    []porcupine.Operation
	closed bool
}

func newHistory(limit int) *history {
	return &history{byKey: map[string]*keyHistory{}, limit: limit}
}

// begin notes a call and returns what ends it.
func (h *history) begin(client int, in asked, call int64) (end func(out told, ret int64)) {
	k := h.byKey[in.key]
	if k == nil {
		k = &keyHistory{}
		h.byKey[in.key] = k
	}
	if len(k.ops) >= h.limit {
		k.closed = true
		return func(told, int64) {}
	}
	i := len(k.ops)
	k.ops = append(k.ops, porcupine.Operation{
		ClientId: client, Input: in, Output: told{unknown: true}, Call: call, Return: math.MaxInt64,
	})
	return func(out told, ret int64) {
		if !k.closed && !out.unknown {
			k.ops[i].Output, k.ops[i].Return = out, ret
		}
	}
}

// register is one key as a linearizable register with compare-and-swap.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		value, in, out := state.(string), input.(asked), output.(told)
		switch {
		case out.failed:
			return true, value
		case in.kind == opGet:
			return out.value == value, value
		case in.kind == opPut:
			return true, in.value
		case in.kind == opDelete:
			return true, ""
		}
		holds := value == in.old
		if !out.unknown && out.swapped != holds {
			return false, value
		}
		if holds {
			return true, in.value
		}
		return true, value
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// check panics with a violation when some key's history has no linear order.
// A history that porcupine cannot decide within the budget passes: it bounds
// the run, and the revisions are checked anyway.
func (h *history) check(budget time.Duration) (checked int) {
	keys := make([]string, 0, len(h.byKey))
	for k := range h.byKey {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		var ops []porcupine.Operation
		for _, op := range h.byKey[k].ops {
			if !op.Output.(told).unknown || op.Input.(asked).kind != opGet {
				ops = append(ops, op) // a read that nobody saw says nothing
			}
		}
		checked += len(ops)
		if porcupine.CheckOperationsTimeout(register, ops, budget) == porcupine.Illegal {
			violate("history of key %q is not linearizable (%d operations)", k, len(ops))
		}
	}
	return checked
}
