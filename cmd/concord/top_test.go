package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/concord-kv/concord/internal/restapi"
)

// at is a look at three members, seconds after they started: the first leads,
// the second lags, the third is silent.
func at(seconds int) look {
	count := uint64(seconds)
	times := func(upTo float64, n uint64) restapi.Times {
		return restapi.Times{Count: n, Cells: []restapi.Cell{{UpTo: upTo, Count: n}}}
	}
	said := func(role string, factor uint64) *restapi.Said {
		return &restapi.Said{
			Role: role, Term: 3, Revision: 40 + int64(seconds), Up: int64(seconds) * 1000,
			Disk: restapi.Disk{FreeBytes: 5 << 30}, Memory: restapi.Memory{ResidentBytes: 64 << 20},
			Load: restapi.Load{
				ProcessorMillis: int64(250 * seconds), LeaderChanges: 1, Keys: 7, Waiting: 2, Connections: 4,
				Writes:    restapi.Calls{Failed: count, Times: times(0.001, 100*factor*count)},
				Reads:     restapi.Calls{Times: times(0.0005, 3000*factor*count)},
				LogWrites: times(0.004, 10*count),
			},
		}
	}
	s := restapi.Status{
		Cluster: "c", Leader: "a1", Term: 3,
		Health: restapi.Health{Summary: "2 of 3 voters, survives 0 failures: n3 has not answered for 5s", Next: "start n3 again", Notes: []string{"evil \x1b[2Jname"}, Serving: true},
		Members: []restapi.Figure{
			{Member: restapi.Member{ID: "a1", Name: "n1"}, Answered: true, Said: said("leader", 1)},
			{Member: restapi.Member{ID: "a2", Name: "n2"}, Answered: true, LagEntries: 12345, LagMillis: 2000, Said: said("follower", 5)},
			{Member: restapi.Member{ID: "a3", Name: "n3"}, SilentMillis: 5000},
		},
	}
	s.Members[1].Wrong = []restapi.Condition{{Name: "memory", Reason: "full", Minor: true}}
	return look{s, time.Date(2026, 1, 2, 3, 4, seconds, 0, time.UTC)}
}

func TestBetween(t *testing.T) {
	before, now := at(10), at(14)
	v := between(&before, &now)
	n1, n2, n3 := v.Members[0], v.Members[1], v.Members[2]
	if v.WriteRate != 600 || v.ReadRate != 18_000 || v.Revision != 54 || v.Keys != 7 || v.IntervalMillis != 4000 {
		t.Errorf("%+v", v)
	}
	if n1.WriteRate != 100 || n1.FailRate != 1 || n1.Processor != 0.25 || n1.Waiting != 2 || n1.Role != "leader" || len(n1.Wrong) != 0 {
		t.Errorf("%+v", n1)
	}
	if n2.WriteRate != 500 || n2.LagEntries != 12345 || len(n2.Wrong) != 1 || n3.Answered || n3.Role != "voter" || n3.SilentMillis != 5000 {
		t.Errorf("%+v\n%+v", n2, n3)
	}
	if first := between(new(look), &now); first.WriteRate != 0 || first.Members[0].Write != (topTimes{}) || first.IntervalMillis != 0 {
		t.Errorf("rates of a first look: %+v", first)
	}
	if again := between(&now, &before); again.WriteRate != 0 {
		t.Errorf("rates of a member that was started anew: %+v", again)
	}
}

// TestScreen checks what is seen in any width: nothing is wider than the screen,
// and nothing is an order to the terminal.
func TestScreen(t *testing.T) {
	before, now := at(10), at(14)
	v := between(&before, &now)
	for width := 0; width < 200; width++ {
		s := topScreen{width: width, height: 24, utf8: width%2 == 0, order: topOrders[1], rates: []float64{1, 2, 600}, foot: "q quit"}
		lines := s.lines(&v)
		for _, line := range lines {
			if width >= 40 && utf8.RuneCountInString(line) > width || strings.ContainsRune(line, '\x1b') {
				t.Errorf("width %d: %q", width, line)
			}
		}
		if width != 0 && width < 40 {
			continue
		}
		table := lines[len(lines)-5 : len(lines)-1]
		for i, name := range []string{"NAME", "n2", "n1", "n3"} { // by writes
			if !strings.HasPrefix(table[i], name) {
				t.Errorf("width %d: line %d is %q", width, i, table[i])
			}
		}
	}
	all := strings.Join((&topScreen{order: topOrders[0]}).lines(&v), "\n")
	for _, want := range []string{"600 writes/s", "18.0k reads/s", "12.3k 2s", "silent 5s", "! evil ?[2Jname", "next: start n3 again", "25%", "64M", "03:04:14"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	short := (&topScreen{width: 80, height: 5, order: topOrders[0], foot: "q quit"}).lines(&v)
	if len(short) != 5 || short[4] != "q quit" {
		t.Errorf("on five lines: %q", short)
	}
	coloured := strings.Join((&topScreen{width: 120, height: 24, colour: true, order: topOrders[0]}).lines(&v), "\n")
	if strings.Count(coloured, "\x1b[") != 2*strings.Count(coloured, plain) || !strings.Contains(coloured, red) {
		t.Errorf("%q", coloured)
	}
}

func TestPress(t *testing.T) {
	tp, paused := new(top), false
	for _, key := range []byte("ssrpx") {
		if tp.press(key, &paused) {
			t.Errorf("%q ends it", key)
		}
	}
	if tp.order != 1 || !paused {
		t.Errorf("order %d, paused %v", tp.order, paused)
	}
	for _, key := range []byte{'q', 3} {
		if !tp.press(key, &paused) {
			t.Errorf("%d does not end it", key)
		}
	}
	if tp.press('r', &paused); tp.order != 0 {
		t.Errorf("order %d", tp.order)
	}
	if tp.press('r', &paused); tp.order != len(topOrders)-1 {
		t.Errorf("order %d", tp.order)
	}
}

func TestShortRate(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0", 0.25: "0.2", 0.97: "1", 12.4: "12", 9999: "9999", 9999.9: "10.0k", 12345: "12.3k", 99_960: "100k", 999_600: "1.0M", 2e6: "2.0M",
	} {
		if got := shortRate(n); got != want {
			t.Errorf("%v is %s, want %s", n, got, want)
		}
	}
}

// TestDraw writes a screen over the one before.
func TestDraw(t *testing.T) {
	tp := &top{every: time.Second, trouble: "refused"}
	tp.take(at(1))
	tp.take(at(2))
	tp.trouble = "refused"
	var b strings.Builder
	tp.draw(&b, [2]int{80, 24}, true)
	text := b.String()
	if !strings.HasPrefix(text, homeCursor) || !strings.HasSuffix(text, clearRest) || !strings.Contains(text, "PAUSED") ||
		!strings.Contains(text, "no newer answer: refused") || strings.Count(text, clearLine) != strings.Count(text, "\r\n")+1 {
		t.Errorf("%q", text)
	}
}
