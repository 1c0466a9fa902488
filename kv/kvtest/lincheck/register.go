package lincheck

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"github.com/concord-kv/concord/kv"
)

// register is the state of one key.
type register struct {
	exists bool
	value  string
	// at is the revision of the last change. When loose is set that change
	// was never answered, and is only known to be above at.
	at    kv.Revision
	loose bool
}

// may reports whether the last change can have been at rev.
func (r register) may(rev kv.Revision) bool {
	if r.loose {
		return rev > r.at
	}
	return rev == r.at
}

// before reports whether the last change can be older than a change at rev.
func (r register) before(rev kv.Revision) bool { return rev == 0 || rev > r.at }

// registers is the model of a key space whose keys are checked apart.
func registers() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string]int{}
			var out [][]porcupine.Operation
			for _, op := range history {
				key := op.Input.(Operation).Key
				i, ok := byKey[key]
				if !ok {
					i = len(out)
					byKey[key] = i
					out = append(out, nil)
				}
				out[i] = append(out[i], op)
			}
			return out
		},
		Init: func() []any { return []any{register{}} },
		Step: func(state, input, _ any) []any {
			return input.(Operation).step(state.(register))
		},
		DescribeOperation: func(input, _ any) string { return input.(Operation).String() },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
	return m.ToModel()
}

// step returns the states that o can leave r in; none means that o cannot have
// its answer here.
func (o Operation) step(r register) []any {
	if o.Unknown {
		return o.stepUnknown(r)
	}
	a := o.Answer
	switch o.Kind {
	case Get:
		switch {
		case a.Done != r.exists, a.Revision != 0 && a.Revision < r.at:
			return nil
		case !a.Done:
			return []any{r}
		case a.Value != r.value, !r.may(a.Mod):
			return nil
		}
		r.at, r.loose = a.Mod, false
		return []any{r}
	case Put:
		if !r.before(a.Revision) {
			return nil
		}
		return []any{o.write(r)}
	case Delete:
		switch {
		case a.Done != r.exists:
			return nil
		case !a.Done:
			return []any{r}
		case !r.before(a.Revision):
			return nil
		}
		return []any{o.remove(r)}
	default:
		if a.Done {
			if !o.matches(r) || !r.before(a.Revision) {
				return nil
			}
			return []any{o.write(r)}
		}
		if o.mustMatch(r) {
			return nil
		}
		return []any{r}
	}
}

func (o Operation) stepUnknown(r register) []any {
	switch o.Kind {
	case Put:
		return []any{o.write(r)}
	case Delete:
		if !r.exists {
			return []any{r}
		}
		return []any{o.remove(r)}
	case Swap:
		var next []any
		if o.matches(r) {
			next = append(next, o.write(r))
		}
		if !o.mustMatch(r) {
			next = append(next, r)
		}
		return next
	}
	return []any{r}
}

// matches reports whether a swap can succeed on r.
func (o Operation) matches(r register) bool {
	if o.Expect == 0 || !r.exists {
		return o.Expect == 0 && !r.exists
	}
	return r.may(o.Expect)
}

// mustMatch reports whether a swap cannot fail on r.
func (o Operation) mustMatch(r register) bool { return o.matches(r) && !(r.exists && r.loose) }

func (o Operation) write(r register) register {
	return register{exists: true, value: o.Value, at: o.at(r), loose: o.Answer.Revision == 0}
}

func (o Operation) remove(r register) register {
	return register{at: o.at(r), loose: o.Answer.Revision == 0}
}

// at is the revision of o's change where it is known, else the one that it is
// above.
func (o Operation) at(r register) kv.Revision { return max(o.Answer.Revision, r.at) }
