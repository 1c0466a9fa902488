package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/schollz/progressbar/v3"
)

// screen is a terminal's other side.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	seen chan struct{} // has one when something was drawn
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.seen <- struct{}{}:
	default:
	}
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// Work of a second or longer shows its progress, of known length or not; at its
// end the line is empty again.
func TestProgressIsShownAfterASecond(t *testing.T) {
	for name, total := range map[string]int64{"known": 1000, "unknown": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &screen{seen: make(chan struct{}, 1)}
			start := time.Now()
			p := startProgress(total, progressbar.OptionSetWriter(s), progressbar.OptionSetDescription("work"),
				progressbar.OptionShowBytes(true), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish())
			if n, err := p.Write(make([]byte, 500)); n != 500 || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
			<-s.seen
			if early := time.Since(start); early < showAfter {
				t.Errorf("shown after %v", early)
			}
			for !strings.Contains(s.String(), "500") {
				<-s.seen
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			text := s.String()
			last := text[strings.LastIndexAny(strings.TrimRight(text, "\r"), "\r")+1:]
			if !strings.Contains(text, "work") || strings.TrimSpace(last) != "" {
				t.Errorf("drawn %q, and at the end %q", text, last)
			}
		})
	}
}

// Short work shows nothing.
func TestProgressOfShortWorkIsNotShown(t *testing.T) {
	s := &screen{seen: make(chan struct{}, 1)}
	p := startProgress(10, progressbar.OptionSetWriter(s))
	if err := p.Close(); err != nil || s.String() != "" {
		t.Errorf("close: %v; drawn %q", err, s.String())
	}
}
