package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// newProgress returns a writer that shows, on a terminal, how many bytes went
// through it once the work takes longer than a second; total is -1 when it is
// not known. Close ends the display.
func newProgress(stderr io.Writer, total int64, what string) io.WriteCloser {
	f, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return noProgress{}
	}
	return &progress{started: time.Now(), bar: func() *progressbar.ProgressBar {
		return progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(stderr), progressbar.OptionSetDescription(what),
			progressbar.OptionShowBytes(true), progressbar.OptionShowCount(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}}
}

// progress waits a second before it shows its bar.
type progress struct {
	started time.Time
	done    int64
	bar     func() *progressbar.ProgressBar
	shown   *progressbar.ProgressBar
}

func (p *progress) Write(b []byte) (int, error) {
	p.done += int64(len(b))
	if p.shown == nil && time.Since(p.started) > time.Second {
		p.shown = p.bar()
	}
	if p.shown != nil {
		return len(b), p.shown.Set64(p.done)
	}
	return len(b), nil
}

func (p *progress) Close() error {
	if p.shown == nil {
		return nil
	}
	return p.shown.Finish()
}

// noProgress is for output that is no terminal.
type noProgress struct{}

func (noProgress) Write(b []byte) (int, error) { return len(b), nil }
func (noProgress) Close() error                { return nil }
