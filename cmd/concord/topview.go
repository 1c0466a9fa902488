package main

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/concord-kv/concord/kv"
)

// topColumn is one of the table's. Where the screen is narrow, those of the
// highest rank go first.
type topColumn struct {
	head string
	rank int
	text func(*topMember) string
	// warn marks what wants attention; nil never.
	warn func(*topMember) bool
}

var topColumns = []topColumn{
	{"NAME", 0, func(m *topMember) string { return m.Name }, nil},
	{"ROLE", 0, roleText, func(m *topMember) bool { return !m.Answered || len(m.Wrong) > 0 }},
	{"WRITE/S", 0, func(m *topMember) string { return shortRate(m.WriteRate) }, nil},
	{"READ/S", 0, func(m *topMember) string { return shortRate(m.ReadRate) }, nil},
	{"FAIL/S", 4, func(m *topMember) string { return shortRate(m.FailRate) }, func(m *topMember) bool { return m.FailRate > 0 }},
	{"W P50", 5, func(m *topMember) string { return micros(m.Write.P50) }, nil},
	{"W P99", 1, func(m *topMember) string { return micros(m.Write.P99) }, nil},
	{"R P50", 6, func(m *topMember) string { return micros(m.Read.P50) }, nil},
	{"R P99", 2, func(m *topMember) string { return micros(m.Read.P99) }, nil},
	{"LOG P99", 2, func(m *topMember) string { return micros(m.Log.P99) }, nil},
	{"LAG", 1, lagText, func(m *topMember) bool { return m.LagMillis >= time.Second.Milliseconds() }},
	{"WAIT", 4, func(m *topMember) string { return shortRate(float64(m.Waiting)) }, nil},
	{"SEND", 6, func(m *topMember) string { return shortBytes(m.Queued) }, nil},
	{"CONN", 4, func(m *topMember) string { return shortRate(float64(m.Connections)) }, nil},
	{"WATCH", 5, func(m *topMember) string { return shortRate(float64(m.Watches)) }, nil},
	{"CPU", 3, func(m *topMember) string { return fmt.Sprintf("%.0f%%", m.Processor*100) }, nil},
	{"MEM", 3, func(m *topMember) string { return shortBytes(m.Resident) }, nil},
	{"FREE", 5, func(m *topMember) string { return shortBytes(m.DiskFree) }, nil},
	{"LEADERS", 7, func(m *topMember) string { return fmt.Sprint(m.LeaderChanges) }, nil},
	{"UP", 7, func(m *topMember) string { return kv.About(time.Duration(m.UpMillis) * time.Millisecond) }, nil},
}

// keptColumns is how many columns, from the left, a silent member has.
const keptColumns = 2

func roleText(m *topMember) string {
	switch silent := time.Duration(m.SilentMillis) * time.Millisecond; {
	case m.Answered:
		return m.Role
	case silent >= time.Second:
		return "silent " + kv.About(silent)
	}
	return "no answer"
}

// shownLag is the shortest lag that is worth to be told as a time.
const shownLag = 100 * time.Millisecond

func lagText(m *topMember) string {
	if m.LagMillis < shownLag.Milliseconds() {
		return shortRate(float64(m.LagEntries))
	}
	return shortRate(float64(m.LagEntries)) + " " + kv.About(time.Duration(m.LagMillis)*time.Millisecond)
}

func micros(n int64) string {
	if n == 0 {
		return "-"
	}
	return shortTime(n)
}

// shortRate writes a number in three digits or so.
func shortRate(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 0.95:
		return fmt.Sprintf("%.1f", n)
	case n < 9999.5:
		return fmt.Sprintf("%.0f", n)
	case n < 99_950:
		return fmt.Sprintf("%.1fk", n/1e3)
	case n < 999_500:
		return fmt.Sprintf("%.0fk", n/1e3)
	}
	return fmt.Sprintf("%.1fM", n/1e6)
}

// topScreen is how a view is shown.
type topScreen struct {
	width, height int // 0 is without bound
	colour, utf8  bool
	order         topOrder
	// rates are the writes of the last looks, oldest first.
	rates []float64
	// foot is the last line; trouble is why there is no newer view.
	foot, trouble string
}

// The colours, and what ends them.
const (
	bold, red, yellow, dim = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[2m"
	plain                  = "\x1b[0m"
)

// paint colours text, where colours are wanted.
func (s *topScreen) paint(style, text string) string {
	if !s.colour || style == "" {
		return text
	}
	return style + text + plain
}

// lines is the whole screen.
func (s *topScreen) lines(v *topView) []string {
	var out []string
	state := ""
	if !v.Health.Serving {
		state = red
	}
	clock := v.Time.Format(time.TimeOnly)
	title := s.cut("concord  "+v.Health.Summary, len(clock)+2)
	gap := 2
	if s.width > 0 {
		gap = max(2, s.width-utf8.RuneCountInString(title)-len(clock))
	}
	out = append(out, s.paint(bold+state, title)+strings.Repeat(" ", gap)+clock)
	sums := fmt.Sprintf("%s writes/s  %s reads/s  %d keys  revision %d  term %d", shortRate(v.WriteRate), shortRate(v.ReadRate), v.Keys, v.Revision, v.Term)
	if line := s.spark(); line != "" && (s.width == 0 || len(sums)+2+len(s.rates) <= s.width) {
		sums += "  " + line
	}
	out = append(out, s.cut(sums, 0))
	if s.trouble != "" {
		out = append(out, s.paint(red, s.cut("no newer answer: "+s.trouble, 0)))
	}
	for _, note := range v.Health.Notes {
		out = append(out, s.paint(yellow, s.cut("! "+note, 0)))
	}
	if v.Health.Next != "" {
		out = append(out, s.cut("next: "+v.Health.Next, 0))
	}
	out = append(out, "")
	members := append([]topMember(nil), v.Members...)
	s.order.sort(members)
	out = append(out, s.table(members)...)
	if s.foot == "" {
		return out
	}
	if s.height > 0 && len(out) > s.height-1 {
		out = out[:max(0, s.height-1)]
	}
	return append(out, s.paint(dim, s.cut(s.foot, 0)))
}

// table has a head and a line each, in as many columns as there is room for.
func (s *topScreen) table(members []topMember) []string {
	cells, widths := make([][]string, len(members)), make([]int, len(topColumns))
	for i := range members {
		for j, c := range topColumns {
			text := "-"
			if members[i].Answered || j < keptColumns {
				text = printable1(c.text(&members[i]))
			}
			cells[i] = append(cells[i], text)
			widths[j] = max(widths[j], len(c.head), utf8.RuneCountInString(text))
		}
	}
	shown := s.fit(widths)
	line := func(text func(j int) (string, string)) string {
		var b strings.Builder
		for at, j := range shown {
			if at > 0 {
				b.WriteString("  ")
			}
			word, style := text(j)
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(word))
			if word = s.paint(style, word); j < keptColumns {
				b.WriteString(word + pad)
			} else {
				b.WriteString(pad + word)
			}
		}
		return strings.TrimRight(b.String(), " ")
	}
	out := []string{s.paint(dim, line(func(j int) (string, string) { return topColumns[j].head, "" }))}
	for i := range members {
		m := &members[i]
		out = append(out, line(func(j int) (string, string) {
			c := &topColumns[j]
			switch {
			case !m.Answered:
				return cells[i][j], red
			case c.warn != nil && c.warn(m):
				return cells[i][j], yellow
			case m.Role == "leader" && j < keptColumns:
				return cells[i][j], bold
			}
			return cells[i][j], ""
		}))
	}
	return out
}

// fit chooses the columns that the width has room for.
func (s *topScreen) fit(widths []int) (shown []int) {
	for most := 9; ; most-- {
		shown = shown[:0]
		total := -2
		for j, c := range topColumns {
			if c.rank <= most {
				shown = append(shown, j)
				total += widths[j] + 2
			}
		}
		if s.width == 0 || total <= s.width || most == 0 {
			return shown
		}
	}
}

// spark draws the rates, highest as high as it goes.
func (s *topScreen) spark() string {
	top := 0.0
	for _, r := range s.rates {
		top = max(top, r)
	}
	if !s.utf8 || len(s.rates) < 2 || top == 0 {
		return ""
	}
	var b strings.Builder
	for _, r := range s.rates {
		b.WriteRune('▁' + rune(math.Round(7*r/top)))
	}
	return b.String()
}

// cut leaves of a line what the width has room for beside less columns.
func (s *topScreen) cut(text string, less int) string {
	text = printable1(text)
	room := s.width - less
	if s.width == 0 || utf8.RuneCountInString(text) <= room {
		return text
	}
	mark := "..."
	if s.utf8 {
		mark = "…"
	}
	if room <= utf8.RuneCountInString(mark) {
		return ""
	}
	return string([]rune(text)[:room-utf8.RuneCountInString(mark)]) + mark
}

// printable1 is text without what a terminal would take for an order: names and
// errors come from elsewhere.
func printable1(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
