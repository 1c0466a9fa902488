package main

import (
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// showAfter is how long work takes before its progress is shown.
const showAfter = time.Second

// newProgress returns a writer that shows, on a terminal, how many bytes went
// through it once the work takes longer than a second; total is -1 when it is
// not known. Close takes the display away.
func newProgress(stderr io.Writer, total int64, what string) io.WriteCloser {
	if !isTerminal(stderr) {
		return noProgress{}
	}
	return startProgress(total, progressbar.OptionSetWriter(stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish())
}

// busy shows, on a terminal, that work of unknown length goes on, once it takes
// longer than a second. The function that it returns takes the display away.
func (g *globals) busy(what string) func() {
	if !isTerminal(g.std.err) {
		return func() {}
	}
	p := startProgress(-1, progressbar.OptionSetWriter(g.std.err), progressbar.OptionSetDescription(what),
		progressbar.OptionSpinnerType(14), progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish())
	return func() { _ = p.Close() } // a terminal that is gone is no error of the work
}

// isTerminal reports whether stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress draws its bar ten times a second, whether or not anything moves.
type progress struct {
	end   chan struct{}
	group sync.WaitGroup

	mu   sync.Mutex
	done int64
}

func startProgress(total int64, options ...progressbar.Option) *progress {
	p := &progress{end: make(chan struct{})}
	// The bar is there from the start, so that the pace that it shows is right,
	// but nobody sees it.
	bar := progressbar.NewOptions64(total, append(slices.Clone(options),
		progressbar.OptionSetWriter(io.Discard), progressbar.OptionSetSpinnerChangeInterval(0))...)
	_ = bar.RenderBlank() // begins its clock
	show := func() {
		for _, option := range options {
			option(bar)
		}
	}
	p.group.Go(func() { p.draw(bar, total, show) })
	return p
}

func (p *progress) draw(bar *progressbar.ProgressBar, total int64, show func()) {
	select {
	case <-p.end:
		return
	case <-time.After(showAfter):
	}
	show()
	defer bar.Finish() // a terminal that is gone is no error of the work
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		done := p.done
		p.mu.Unlock()
		if total < 0 || done < total { // the bar finishes itself at its total
			_ = bar.Set64(done) // as above
			_ = bar.RenderBlank()
		}
		select {
		case <-p.end:
			return
		case <-tick.C:
		}
	}
}

// Write implements io.Writer.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += int64(len(b))
	return len(b), nil
}

// Close implements io.Closer.
func (p *progress) Close() error {
	close(p.end)
	p.group.Wait()
	return nil
}

// noProgress is for output that is no terminal.
type noProgress struct{}

func (noProgress) Write(b []byte) (int, error) { return len(b), nil }
func (noProgress) Close() error                { return nil }
