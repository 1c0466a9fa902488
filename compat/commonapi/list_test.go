package commonapi

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tests is the module with etcd's tests.
const tests = "go.etcd.io/etcd/tests/v3@v3.7.3"

// page is the list for people.
var page = filepath.Join("..", "..", "docs", "ETCD-TESTS.md")

var update = flag.Bool("update", false, "write the page")

const top = `# etcd's tests of its API, and ours

etcd 3.7.3 has tests of its API that run against its server in a process and against its program (` + "`tests/common`" + `). For each of them this page names the behaviour of ` + "`make compat-common`" + ` that asks for the same: of etcd itself (one member; three with certificates), and of one member and three of ` + "`concord etcd`" + `, plain, with certificates for members and clients, and with certificates that the servers make (` + "`--auto-tls`" + `). Those marked with * are tried with simple tokens and with JSON Web Tokens. The test holds this page to the functions that etcd has.

Beyond etcd's: ranges are drawn at random and compared with an oracle, for downgrades, snapshots and changes of the leader the rights are tried that etcd's tests only name, tokens of others are also tried when they are over, old, of another method or of nobody, sockets of the file system are tried with TLS and without (but not with certificates of clients, whose names must be addresses), and removals of members are refused which would leave no majority.

What differs: etcd refuses changes of members until these have been connected for five seconds, and a new one whenever any is away. Concord refuses what would leave no majority of members that are there. And the hash at the very revision of a compaction is what etcd hashed while it compacted, for as long as it runs; Concord hashes what is left (` + "`TestVerifyHashKVAfterCompactAndDefrag`" + ` holds of that).

| etcd | behaviour |
|---|---|
`

// TestList holds the page to etcd's tests: each has a behaviour, and none is
// named that etcd does not have.
func TestList(t *testing.T) {
	covered := map[string][]string{}
	for _, b := range behaviours() {
		name := b.name
		if b.tokens {
			name += "*"
		}
		for _, test := range b.etcd {
			covered[test] = append(covered[test], name)
		}
	}
	text := top
	for _, test := range etcdTests(t) {
		if covered[test] == nil {
			t.Errorf("no behaviour stands for %s", test)
		}
		file, function, _ := strings.Cut(test, "/")
		text += fmt.Sprintf("| `%s` `%s` | %s |\n", file, function, strings.Join(covered[test], ", "))
		delete(covered, test)
	}
	for test, names := range covered {
		t.Errorf("etcd has no test %s, for which %q stands", test, names)
	}
	if *update {
		must(t, os.WriteFile(page, []byte(text), 0o644))
	}
	if got := get[[]byte](t)(os.ReadFile(page)); string(got) != text {
		t.Errorf("%s is not what the behaviours say; make it with -update", page)
	}
}

// etcdTests lists the functions by file, in order.
func etcdTests(t *testing.T) (all []string) {
	t.Helper()
	out := get[[]byte](t)(exec.CommandContext(t.Context(), "go", "mod", "download", "-json", tests).Output())
	var module struct{ Dir string }
	must(t, json.Unmarshal(out, &module))
	files := get[[]string](t)(filepath.Glob(filepath.Join(module.Dir, "common", "*_test.go")))
	for _, file := range files {
		parsed := get[*ast.File](t)(parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution))
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
				all = append(all, filepath.Base(file)+"/"+f.Name.Name)
			}
		}
	}
	slices.Sort(all)
	if len(all) < 90 {
		t.Fatalf("etcd has %d tests", len(all))
	}
	return all
}
