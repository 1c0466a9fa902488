package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

// credentials are the flags that say who the user of the command is.
type credentials struct{ user, token, tokenFile string }

// addCredentialFlags adds the flags. What the environment has is no default of
// theirs, because defaults are in the help.
func (g *globals) addCredentialFlags(flags *pflag.FlagSet) {
	flags.StringVar(&g.credentials.user, "user", "", "NAME of the user to log in as (CONCORD_USER), or NAME:PASSWORD; others see a command line,\nso better set CONCORD_PASSWORD, or have it asked for")
	flags.StringVar(&g.credentials.token, "token", "", "token to show instead of a user (CONCORD_TOKEN); others see a command line, so better use a file")
	flags.StringVar(&g.credentials.tokenFile, "token-file", "", "file with that token, which only its owner can read (CONCORD_TOKEN_FILE)")
}

// show puts into cfg whom the flags name, or else the environment: a token
// before a file with one, and that before a user. A password that is nowhere
// given is asked for on a terminal.
func (g *globals) show(cfg *client.Config) (err error) {
	user, token, file := g.credentials.user, g.credentials.token, g.credentials.tokenFile
	switch {
	case user != "" && token != "":
		return usagef("--user and --token exclude each other")
	case file != "" && (user != "" || token != ""):
		return usagef("--token-file excludes --user and --token")
	case user == "" && token == "" && file == "":
		token, file, user = os.Getenv("CONCORD_TOKEN"), os.Getenv("CONCORD_TOKEN_FILE"), os.Getenv("CONCORD_USER")
	}
	if token == "" && file != "" {
		if token, err = readToken(file); err != nil {
			return err
		}
	}
	if token != "" {
		cfg.Token = token
		if strings.HasPrefix(token, kv.TokenPrefix) {
			_, err = parseSecret(token)
		}
		return err
	}
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
	cfg.Password, err = askPassword(terminal, g.std.err, "Password of "+cfg.User)
	return err
}

// readToken reads the first line of a file that nobody but its owner can read.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 && runtime.GOOS != "windows" { // where modes say something
		return "", &usageError{
			fmt.Errorf("the token file %s is open to others: its mode is %04o", path, mode.Perm()),
			"'chmod 600 " + path + "'; and where others may have read it, revoke the token and make another.",
		}
	}
	return firstLine(f, "the token file "+path+" is empty")
}

// firstLine reads a secret, which is one line.
func firstLine(r io.Reader, empty string) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxToken)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", usagef("%s", empty)
	}
	return line, nil
}

// maxToken is more than any token has: a JSON Web Token has some hundred bytes.
const maxToken = 64 << 10

// parseSecret gives the id of an access token, or says what is wrong with it.
func parseSecret(secret string) (kv.TokenID, error) {
	id, err := kv.ParseSecretToken(secret)
	if err != nil {
		err = &hintedError{err, fmt.Sprintf("Copy it again: it is %s and %d letters and digits.", kv.TokenPrefix, kv.SecretLength-len(kv.TokenPrefix))}
	}
	return id, err
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
