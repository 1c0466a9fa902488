package main

import (
	"bytes"
	"cmp"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/concord-kv/concord/internal/loopback"
)

// The scripts run the program itself, as processes, which have the race detector
// where this has it. There a process sleeps for a second before it ends, for what
// else goes on in it; with hundreds of short commands that is minutes.
// Source: go.dev/doc/articles/race_detector, "Options".
func TestMain(m *testing.M) {
	if err := os.Setenv(raceOptions, cmp.Or(os.Getenv(raceOptions), "atexit_sleep_ms=10")); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"concord": main})
}

const raceOptions = "GORACE"

func TestScripts(t *testing.T) {
	t.Parallel() // with TestSecrets…, which wait as much as they do
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Values[processes{}] = map[string]*process{}
			env.Setenv(raceOptions, os.Getenv(raceOptions))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "start": cmdStart, "end": cmdEnd, "said": cmdSaid, "ports": cmdPorts, "flip": cmdFlip, "tear": cmdTear,
			"stranger": cmdStranger, "forbid": cmdForbid, "until": cmdUntil,
		},
	})
}

// cmdCode runs a command that must end with an exit code: code N COMMAND...
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// processes is the key of the processes that a script has started, by name.
type processes struct{}

func started(ts *testscript.TestScript) map[string]*process {
	return ts.Value(processes{}).(map[string]*process)
}

// process is a running member or cluster. It is a writer of what the process
// says.
type process struct {
	cmd *exec.Cmd

	mu    sync.Mutex
	text  bytes.Buffer
	want  *regexp.Regexp
	found chan string // the first submatch of want

	ended chan struct{} // closed when cmd.ProcessState is there
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Write(b)
	if m := p.want.FindSubmatch(p.text.Bytes()); m != nil {
		select {
		case p.found <- string(m[1]):
		default:
		}
	}
	return len(b), nil
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

var serving = regexp.MustCompile(`(?:serves clients at|endpoints  ) ([^\s,]+)[,\s]`)

// cmdStart starts 'concord' and waits until it says where it serves clients,
// which is in $CONCORD_ENDPOINTS and $NAME then: start NAME [KEY=VALUE...] ARG...
// With "&" behind NAME it does not wait, with /(PATTERN)/ for what that says.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME [&] [KEY=VALUE...] ARG...")
	}
	name, args := args[0], args[1:]
	wait, want := args[0] != "&", serving
	if strings.HasPrefix(args[0], "/") {
		want = regexp.MustCompile(strings.Trim(args[0], "/"))
	}
	if !wait || want != serving {
		args = args[1:]
	}
	env := []string{}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", raceOptions, "CONCORD_ENDPOINTS"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	for len(args) > 0 && strings.Contains(args[0], "=") && !strings.HasPrefix(args[0], "-") {
		env, args = append(env, args[0]), args[1:]
	}
	bin, err := lookPath(ts.Getenv("PATH"))
	ts.Check(err)
	p := &process{cmd: exec.Command(bin, args...), want: want, found: make(chan string, 1), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = env, ts.MkAbs(".")
	p.cmd.Stdout, p.cmd.Stderr = p, p
	ts.Check(p.cmd.Start())
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	ts.Defer(func() { _ = p.cmd.Process.Kill(); <-p.ended })
	started(ts)[name] = p
	if !wait {
		return
	}
	select {
	case found := <-p.found:
		if want == serving {
			ts.Setenv("CONCORD_ENDPOINTS", found)
			ts.Setenv(name, found)
		}
	case <-p.ended:
		ts.Fatalf("%s ended: %s", name, p.said())
	case <-time.After(time.Minute):
		ts.Fatalf("%s does not serve: %s", name, p.said())
	}
}

// cmdSaid waits until a process has said something: said NAME PATTERN
func cmdSaid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || started(ts)[args[0]] == nil {
		ts.Fatalf("usage: said NAME PATTERN")
	}
	p, want := started(ts)[args[0]], regexp.MustCompile(args[1])
	deadline := time.Now().Add(time.Minute)
	for !want.MatchString(p.said()) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s has not said %s: %s", args[0], args[1], p.said())
		}
		<-time.After(5 * time.Millisecond)
	}
}

// cmdEnd ends a process, with SIGTERM or the named signal, or waits for its own
// end ("wait"), and keeps what it said in NAME.log: end NAME [kill|wait] [CODE]
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	p := started(ts)[args[0]]
	if neg || p == nil {
		ts.Fatalf("no process %q", args[0])
	}
	how, code := "term", 0
	if len(args) > 1 {
		how = args[1]
	}
	if len(args) > 2 {
		var err error
		code, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	switch how {
	case "term":
		ts.Check(p.cmd.Process.Signal(syscall.SIGTERM))
	case "kill":
		ts.Check(p.cmd.Process.Kill())
		code = -1
	}
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		ts.Fatalf("%s does not end: %s", args[0], p.said())
	}
	delete(started(ts), args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".log"), []byte(p.said()), 0o600))
	ts.Logf("%s", p.said())
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		ts.Fatalf("%s ended with exit code %d, want %d", args[0], got, code)
	}
}

func lookPath(path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if bin := filepath.Join(dir, "concord"); isFile(bin) {
			return bin, nil
		}
	}
	return "", exec.ErrNotFound
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// cmdPorts sets variables to free addresses on loopback: ports VAR...
func cmdPorts(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		addr, release, err := loopback.Reserve()
		ts.Check(err)
		ts.Defer(release)
		ts.Setenv(name, addr)
	}
}

// theFile is the one file that a pattern names.
func theFile(ts *testscript.TestScript, pattern string) string {
	files, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file is named %s", pattern)
	}
	return files[0]
}

// cmdFlip flips a bit of a file: flip PATTERN OFFSET
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	name := theFile(ts, args[0])
	data, err := os.ReadFile(name)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	data[at] ^= 1
	ts.Check(os.WriteFile(name, data, 0o600))
}

// cmdTear makes the last write in a log file look cut by a crash: its last bytes
// are zero. tear PATTERN
func cmdTear(ts *testscript.TestScript, _ bool, args []string) {
	name := theFile(ts, args[0])
	data, err := os.ReadFile(name)
	ts.Check(err)
	end := len(bytes.TrimRight(data, "\x00"))
	clear(data[end-8 : end])
	ts.Check(os.WriteFile(name, data, 0o600))
}

// cmdStranger starts a web server and sets a variable to its address: stranger VAR
func cmdStranger(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.NotFoundHandler())
	ts.Defer(s.Close)
	ts.Setenv(args[0], strings.TrimPrefix(s.URL, "http://"))
}

// cmdForbid runs 'concord' where it may not use a directory, which must end with
// exit code 6; what it says is in the file forbidden: forbid DIR ARG...
// Root may use everything, so as root it runs as another user.
func cmdForbid(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.Chmod(dir, 0o500))
	ts.Defer(func() { _ = os.Chmod(dir, 0o700) }) // so that it can be removed
	bin, err := lookPath(ts.Getenv("PATH"))
	ts.Check(err)
	cmd := exec.Command(bin, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	if os.Geteuid() == 0 {
		cmd.Path = openToAll(ts, bin)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.CombinedOutput()
	ts.Logf("%s", out)
	ts.Check(os.WriteFile(ts.MkAbs("forbidden"), out, 0o600))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitDenied {
		ts.Fatalf("%v, want exit code %d", err, exitDenied)
	}
}

// nobody is a user who has no files, by custom.
const nobody = 65534

// openToAll copies the program to the script's directory, and lets everybody run
// it there. Another process does it: what this one has open for writing, a process
// that another script starts just then has, too, and such a file cannot be run
// (golang/go issue 22315).
func openToAll(ts *testscript.TestScript, bin string) string {
	path := ts.MkAbs("concord")
	ts.Check(exec.Command("cp", bin, path).Run())
	ts.Check(os.Chmod(path, 0o755))
	for dir := filepath.Dir(path); len(dir) > len(filepath.Clean(os.TempDir())); dir = filepath.Dir(dir) {
		ts.Check(os.Chmod(dir, 0o711))
	}
	return path
}
