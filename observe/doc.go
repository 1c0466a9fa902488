// Package observe is what a member tells of itself: events, as values, and the
// functions that receive them. [Observer] is given to concord.Open with the
// option concord.Observe; a running member is listened to with Node.Subscribe.
//
// Functions are called on the goroutines that do the work, some of them under
// locks: they must return at once and must not call the member. A function that
// panics does no harm: the panic is counted and the first one logged. Whoever
// needs time takes a [Subscription], whose buffer is bounded and which counts
// what did not fit.
//
// No event has a value, a secret or the name of a key in it. What nobody
// listens to costs a load and a comparison.
//
// The package imports the standard library only.
package observe
