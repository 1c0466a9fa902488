package kv

import "errors"

// nextError is an error with the next step of a person.
type nextError struct {
	error
	next string
}

func (e *nextError) Unwrap() error { return e.error }

// WithNext adds the next step to an error, for [NextStep]; its text and code
// stay.
func WithNext(err error, next string) error {
	return &nextError{err, next}
}

// NextStep is what a person should do about err, as [WithNext] has it; empty
// where nothing is known.
func NextStep(err error) string {
	var e *nextError
	if errors.As(err, &e) {
		return e.next
	}
	return ""
}
