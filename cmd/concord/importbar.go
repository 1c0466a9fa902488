package main

import (
	"io"

	"github.com/schollz/progressbar/v3"
)

// newCounter returns a writer that shows, on a terminal, how many bytes were
// written to it as a number of things; total is -1 when it is not known. Close
// takes the display away.
func newCounter(stderr io.Writer, total int64, what string) io.WriteCloser {
	if !isTerminal(stderr) {
		return noProgress{}
	}
	return startProgress(total, progressbar.OptionSetWriter(stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionClearOnFinish())
}
