package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// topOptions are those of 'concord top'.
type topOptions struct {
	every time.Duration
	once  bool
	sort  string
}

func newTopCommand(g *globals) *cobra.Command {
	var opts topOptions
	cmd := &cobra.Command{
		Use: "top", Short: "Watch the members at work", Args: cobra.NoArgs,
		Long: "Show what each member does, again and again: it asks one member, which asks the\n" +
			"others. Rates and times are those since the look before.\n\n" +
			"  WRITE/S READ/S  calls of clients of that member; FAIL/S are those that failed\n" +
			"  W P50 W P99     what half, and 99 of 100, of the writes took; R of reads\n" +
			"  LOG P99         until writes of the log were durable\n" +
			"  LAG             entries behind the leader, and for how long\n" +
			"  WAIT SEND       calls that wait to be agreed on, bytes for other members\n" +
			"  CONN WATCH      connections and watches of clients\n" +
			"  CPU MEM FREE    of the process, and of the disk; 100% is one processor\n" +
			"  LEADERS         changes of leader since the member started\n\n" +
			"Keys: q ends it, s sorts by the next column, r by the one before, p pauses. A\n" +
			"narrow screen has fewer columns. Where the output is no terminal, each look is\n" +
			"printed below the other; --once prints one, and has the exit code 5 without a\n" +
			"majority. NO_COLOR switches colours off. -o json prints all there is, a line for\n" +
			"each look.",
	}
	g.addClientFlags(cmd.Flags())
	g.addOutputFlag(cmd.Flags(), "table", "table", "json")
	cmd.Flags().DurationVar(&opts.every, "interval", 2*time.Second, "time between looks")
	cmd.Flags().BoolVar(&opts.once, "once", false, "print one view, after one interval, and end")
	cmd.Flags().StringVar(&opts.sort, "sort", "name", "sort by "+strings.Join(orderNames(), ", "))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := g.checkOutput("table", "json"); err != nil {
			return err
		}
		return runTop(cmd.Context(), g, opts)
	}
	return cmd
}

func orderNames() (names []string) {
	for _, o := range topOrders {
		names = append(names, o.name)
	}
	return names
}

// top is a running 'concord top'.
type top struct {
	g     *globals
	asker *asker
	every time.Duration
	order int

	before, now look
	view        topView
	rates       []float64
	trouble     string
}

// sparks is how many rates are kept.
const sparks = 30

func runTop(ctx context.Context, g *globals, opts topOptions) error {
	t := &top{g: g, every: opts.every, order: -1}
	for i, o := range topOrders {
		if o.name == opts.sort {
			t.order = i
		}
	}
	if t.order < 0 {
		return usagef("--sort %q is unknown; use %s", opts.sort, strings.Join(orderNames(), ", "))
	}
	if opts.every < 100*time.Millisecond {
		return usagef("--interval %v is too short; use 100ms or more", opts.every)
	}
	var err error
	if t.asker, err = g.newAsker(); err != nil {
		return err
	}
	defer t.asker.close()
	if !opts.once && g.output == "table" && isTerminal(g.std.out) && isTerminal(g.std.in) {
		return t.live(ctx)
	}
	return t.print(ctx, opts.once)
}

// look asks, and makes the view of what came since the look before.
func (t *top) look(ctx context.Context) error {
	var next look
	if err := t.asker.get(ctx, "/v1/cluster/status", &next.status); err != nil {
		return err
	}
	next.at = time.Now()
	t.take(next)
	return nil
}

func (t *top) take(next look) {
	t.before, t.now, t.trouble = t.now, next, ""
	t.view = between(&t.before, &t.now)
	if t.view.IntervalMillis == 0 {
		return
	}
	if t.rates = append(t.rates, t.view.WriteRate); len(t.rates) > sparks {
		t.rates = t.rates[1:]
	}
}

// print writes views one below the other.
func (t *top) print(ctx context.Context, once bool) error {
	err := t.look(ctx)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(t.every):
		}
		switch err := t.look(ctx); {
		case errors.Is(err, context.Canceled):
			return nil
		case err != nil:
			return err
		}
		if err := t.write(first); err != nil {
			return err
		}
		if once && !t.view.Health.Serving {
			return &silentError{exitUnavailable}
		}
		if once {
			return nil
		}
	}
}

func (t *top) write(first bool) error {
	if t.g.output == "json" {
		topOrders[t.order].sort(t.view.Members)
		return printJSONLine(t.g.std.out, &t.view)
	}
	s := topScreen{order: topOrders[t.order]}
	text := strings.Join(s.lines(&t.view), "\n") + "\n"
	if !first {
		text = "\n" + text
	}
	_, err := io.WriteString(t.g.std.out, text)
	return err
}

// What a terminal is told: another screen without cursor, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[2J"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	// A line's rest and a screen's are cleared rather than the whole screen
	// before, so that nothing flickers.
	homeCursor, clearLine, clearRest = "\x1b[H", "\x1b[K", "\x1b[J"
)

// live owns the terminal until q.
func (t *top) live(ctx context.Context) error {
	if err := t.look(ctx); err != nil { // said on the usual screen
		return err
	}
	in, out := t.g.std.in.(*os.File), t.g.std.out.(*os.File)
	was, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("take over the terminal: %w", err)
	}
	fmt.Fprint(out, enterScreen)
	defer func() {
		fmt.Fprint(out, leaveScreen)
		_ = term.Restore(int(in.Fd()), was)
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := make(chan byte)
	go readKeys(ctx, in, keys)
	return t.show(ctx, out, keys)
}

// readKeys reads until ctx ends; what it waits for then ends with the program.
func readKeys(ctx context.Context, in io.Reader, keys chan<- byte) {
	var b [1]byte
	for {
		if n, err := in.Read(b[:]); err != nil || n == 0 {
			close(keys)
			return
		}
		select {
		case keys <- b[0]:
		case <-ctx.Done():
			return
		}
	}
}

// sizeEvery is how often the size of the terminal is looked at.
const sizeEvery = 250 * time.Millisecond

// answered is what a look found.
type answered struct {
	look look
	err  error
}

// show draws until q or the end of ctx. It asks beside, so that keys work while
// nobody answers.
func (t *top) show(ctx context.Context, out *os.File, keys <-chan byte) error {
	answers := make(chan answered, 1)
	ask := func() {
		var next look
		err := t.asker.get(ctx, "/v1/cluster/status", &next.status)
		next.at = time.Now()
		answers <- answered{next, err}
	}
	next, sizes := time.NewTimer(min(t.every, time.Second)), time.NewTicker(sizeEvery)
	defer next.Stop()
	defer sizes.Stop()
	paused, asking, size := false, false, [2]int{}
	for {
		if drawn := sizeOf(out); drawn != size {
			size = drawn
			t.draw(out, size, paused)
		}
		select {
		case <-ctx.Done():
			return nil
		case key, ok := <-keys:
			if !ok || t.press(key, &paused) {
				return nil
			}
		case <-next.C:
			if !paused && !asking {
				asking = true
				go ask()
			}
			next.Reset(t.every)
			continue
		case a := <-answers:
			asking = false
			if a.err == nil {
				t.take(a.look)
			} else {
				t.trouble = a.err.Error()
			}
		case <-sizes.C:
			continue
		}
		t.draw(out, size, paused)
	}
}

// press does what a key asks for, and reports whether that is the end.
func (t *top) press(key byte, paused *bool) (end bool) {
	switch key {
	case 'q', 'Q', 3, 4: // Ctrl-C and Ctrl-D come as they are from a raw terminal
		return true
	case 's', 'S':
		t.order = (t.order + 1) % len(topOrders)
	case 'r', 'R':
		t.order = (t.order + len(topOrders) - 1) % len(topOrders)
	case 'p', 'P', ' ':
		*paused = !*paused
	}
	return false
}

func sizeOf(out *os.File) [2]int {
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return [2]int{80, 24} // what a terminal has that does not tell
	}
	return [2]int{width, height}
}

// draw writes the screen in one go.
func (t *top) draw(out io.Writer, size [2]int, paused bool) {
	s := topScreen{
		width: size[0], height: size[1], colour: wantsColour(), utf8: speaksUTF8(),
		order: topOrders[t.order], rates: t.rates, trouble: t.trouble,
		foot: fmt.Sprintf("q quit  s sort: %s  p pause  every %v", topOrders[t.order].name, t.every),
	}
	if paused {
		s.foot = "PAUSED  " + s.foot
	}
	var b strings.Builder
	b.WriteString(homeCursor)
	for i, line := range s.lines(&t.view) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + clearLine)
	}
	b.WriteString(clearRest)
	_, _ = io.WriteString(out, b.String()) // a terminal that is gone ends the keys
}

// wantsColour follows no-color.org, and terminals without.
func wantsColour() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// speaksUTF8 goes by the locale, in the order of POSIX.
func speaksUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(os.Getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}
