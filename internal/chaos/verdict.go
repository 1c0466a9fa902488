package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// errViolation is wrapped by what a history breaks.
var errViolation = errors.New("violation")

// verdicts are those on the histories of rounds that are over.
type verdicts struct {
	dir      string                  // where a history goes that breaks a promise
	violated context.CancelCauseFunc // nil: go on

	group sync.WaitGroup
	mu    sync.Mutex // guards what follows, and standard output
	errs  []error
}

func (v *verdicts) printf(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Printf(format, args...)
}

// check begins to look at the round's history, and prints the verdict as soon as
// there is one.
func (v *verdicts) check(l *load) {
	v.group.Go(func() {
		start := time.Now()
		err := l.check()
		took := time.Since(start).Round(time.Millisecond)
		if err == nil {
			v.printf("     round %d: %d operations, linearizable (checked in %v)\n", l.round, l.history.Len(), took)
			return
		}
		file := filepath.Join(v.dir, fmt.Sprintf("round%d.history", l.round))
		err = fmt.Errorf("round %d: %w: %w (its history is in %s)", l.round, errViolation, errors.Join(err, l.save(file)), file)
		v.printf("     %v\n", err)
		v.mu.Lock()
		v.errs = append(v.errs, err)
		v.mu.Unlock()
		if v.violated != nil {
			v.violated(err)
		}
	})
}

// wait returns all violations, when every round has been looked at.
func (v *verdicts) wait() error {
	v.group.Wait()
	return errors.Join(v.errs...)
}

// save writes the history for people, an operation a line.
func (l *load) save(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, o := range l.history.Operations() {
		fmt.Fprintln(w, o)
	}
	return errors.Join(w.Flush(), f.Close())
}
