package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/concord-kv/concord/client"
)

// credentials are the flags that say who the user of the command is.
type credentials struct{ user, token string }

// addCredentialFlags adds the flags. What the environment has is no default of
// theirs, because defaults are in the help.
func (g *globals) addCredentialFlags(flags *pflag.FlagSet) {
	flags.StringVar(&g.credentials.user, "user", "", "NAME of the user to log in as (CONCORD_USER), or NAME:PASSWORD; others see a command line,\nso better set CONCORD_PASSWORD, or have it asked for")
	flags.StringVar(&g.credentials.token, "token", "", "token to show instead of a user (CONCORD_TOKEN)")
}

// show puts into cfg whom the flags name, or else the environment. A password
// that is nowhere given is asked for on a terminal.
func (g *globals) show(cfg *client.Config) error {
	user, token := g.credentials.user, g.credentials.token
	switch {
	case user != "" && token != "":
		return usagef("--user and --token exclude each other")
	case user == "" && token == "":
		if token = os.Getenv("CONCORD_TOKEN"); token == "" {
			user = os.Getenv("CONCORD_USER")
		}
	}
	cfg.Token = token
	if user == "" {
		return nil
	}
	var given bool
	if cfg.User, cfg.Password, given = strings.Cut(user, ":"); given {
		return nil
	}
	if cfg.Password, given = os.LookupEnv("CONCORD_PASSWORD"); given {
		return nil
	}
	terminal := terminalOf(g.std.in)
	if terminal == nil {
		return usagef("the password of %s is not given; set CONCORD_PASSWORD, or use a terminal", cfg.User)
	}
	var err error
	cfg.Password, err = askPassword(terminal, g.std.err, "Password of "+cfg.User)
	return err
}

// newPassword asks for a new password, twice, or reads the first line of what is
// no terminal.
func (g *globals) newPassword(prompt string) (string, error) {
	terminal := terminalOf(g.std.in)
	if terminal == nil {
		line, err := bufio.NewReader(g.std.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read password: %w", err)
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return "", noPassword("no password comes from standard input")
		}
		return line, nil
	}
	password, err := askPassword(terminal, g.std.err, prompt)
	if err != nil {
		return "", err
	}
	again, err := askPassword(terminal, g.std.err, "Again")
	switch {
	case err != nil:
		return "", err
	case password != again:
		return "", usagef("the passwords differ")
	case password == "":
		return "", noPassword("the password is empty")
	}
	return password, nil
}

func noPassword(what string) error {
	return &usageError{errors.New(what), "Type it when it is asked for, or give it as a line: 'concord user add NAME < password-file'; 'concord user add NAME --no-password' adds a user without."}
}

// terminalOf is in as a terminal, or nil.
func terminalOf(in io.Reader) *os.File {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// errInterrupted ends a prompt.
var errInterrupted = errors.New("interrupted")

// askPassword reads a line that is not shown. An interrupt ends it, and leaves
// the terminal as it was.
func askPassword(terminal *os.File, out io.Writer, prompt string) (string, error) {
	fd := int(terminal.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	defer signal.Stop(interrupt)
	fmt.Fprint(out, prompt+": ")
	defer fmt.Fprintln(out)
	type answer struct {
		line []byte
		err  error
	}
	answered := make(chan answer, 1)
	go func() { // on an interrupt it ends with the process
		line, err := term.ReadPassword(fd)
		answered <- answer{line, err}
	}()
	select {
	case a := <-answered:
		if a.err != nil {
			return "", fmt.Errorf("read password: %w", a.err)
		}
		return string(a.line), nil
	case <-interrupt:
		return "", errors.Join(errInterrupted, term.Restore(fd, state))
	}
}
