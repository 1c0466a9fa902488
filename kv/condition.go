package kv

// Condition is one thing on which it depends whether a member can serve.
type Condition struct {
	// Name is short, in snake_case, and does not change.
	Name string
	// Reason says what is wrong, with figures, as a sentence without a full
	// stop; empty where nothing is.
	Reason string
	// Next is the next step; empty where there is nothing to do.
	Next string
	// Minor is wrong and worth a note, and yet the member serves linearizable
	// reads.
	Minor bool
}

// Diagnosed is what a [Cluster] may offer besides: how its own member is.
type Diagnosed interface {
	// Conditions answers at once from what the member knows, always with the
	// same names in the same order.
	Conditions() []Condition
}
