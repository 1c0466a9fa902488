package lint

import (
	"fmt"
	"go/importer"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// sources makes a tree of files, given as a path followed by the text.
func sources(t *testing.T, pairs ...string) *tree {
	t.Helper()
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// lines gives n lines of code.
func lines(n int) string { return strings.Repeat("\t_ = 0\n", n) }

func names(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("x%d", i))
	}
	return strings.Join(out, ", ")
}

// ruleCases have for each rule a source that breaks it and one that just does not.
var ruleCases = []struct {
	name      string
	rule      func(*tree) []finding
	path      string
	bad, good string
}{
	{"import against the table", checkImports, "internal/mvcc/a.go",
		`package mvcc; import "` + module + `/internal/replica"`,
		`package mvcc; import "` + module + `/kv"`},
	{"edge imports the core", checkImports, "internal/etcdapi/a.go",
		`package etcdapi; import "` + module + `"`,
		`package etcdapi; import "` + module + `/kv"`},
	{"foreign import in kv", checkStandardOnly, "kv/a.go",
		`package kv; import "example.com/x"`, `package kv; import "go/ast"`},
	{"package without a meaning", checkPackageNames, "internal/wal/a.go",
		`package util`, `package wal`},
	{"long function", checkLimits, "kv/a.go",
		"package kv\nfunc f() {\n" + lines(69) + "}\n", "package kv\nfunc f() {\n" + lines(68) + "}\n"},
	{"long file", checkLimits, "kv/a.go",
		"package kv\n" + strings.Repeat("//\n", 600), "package kv\n" + strings.Repeat("//\n", 599)},
	{"wide struct", checkLimits, "kv/a.go",
		"package kv\ntype t struct { " + names(17) + " int }", "package kv\ntype t struct { " + names(16) + " int }"},
	{"embedded fields count", checkLimits, "kv/a.go",
		"package kv\ntype t struct { " + names(16) + " int; e }", "package kv\ntype t struct { " + names(15) + " int; e }"},
	{"wide interface", checkLimits, "kv/a.go",
		"package kv\ntype t interface { a(); b(); c(); d(); e(); f(); g(); h() }",
		"package kv\ntype t interface { a(); b(); c(); d(); e(); f(); g() }"},
	{"many parameters", checkLimits, "kv/a.go",
		"package kv\nfunc f(a, b, c, d, e int) {}",
		"package kv\nimport \"context\"\nfunc f(ctx context.Context, a, b, c, d int) {}"},
	{"many parameters of a literal", checkLimits, "kv/a.go",
		"package kv\nfunc f() { _ = func(a, b int, c, d, e string) {} }", "package kv\nfunc f() { _ = func(a, b int, c, d string) {} }"},
	{"init", checkLimits, "kv/a.go", "package kv\nfunc init() {}", "package kv\ntype t int\nfunc (t) init() {}"},
	{"global variable", checkGlobals, "kv/a.go",
		"package kv\nvar counter int", "package kv\nvar names = [...]string{\"a\"}"},
	{"global made by a call", checkGlobals, "kv/a.go",
		"package kv\nvar cache = newCache()", "package kv\nvar ErrX = errors.New(\"x\")"},
	{"global pool", checkGlobals, "kv/a.go",
		"package kv\nvar pool = sync.Pool{New: make()}", "package kv\nvar _ Store = (*T)(nil)"},
	{"package without a doc", checkPackageDocs, "kv/a.go",
		"// Other text.\npackage kv", "// Package kv is a vocabulary.\npackage kv"},
	{"exported function without a comment", checkDocs, "kv/a.go",
		"package kv\nfunc F() {}", "package kv\n// F does it.\nfunc F() {}"},
	{"exported method without a comment", checkDocs, "kv/a.go",
		"package kv\nfunc (*T[K]) F() {}", "package kv\nfunc (*t) F() {}"},
	{"exported constant without a comment", checkDocs, "kv/a.go",
		"package kv\nconst C = 1", "package kv\n// The constants.\nconst ( C = 1; D = 2 )"},
	{"exported type without a comment", checkDocs, "kv/a.go",
		"package kv\ntype T int", "package kv\ntype T int // T counts."},
	{"sleep in a test", checkTests, "kv/a_test.go",
		"package kv\nfunc f() { time.Sleep(1) }", "package kv\nfunc f() { time.After(1) }"},
	{"skip", checkTests, "kv/a_test.go",
		"package kv\nfunc f() { t.Skip() }", "package kv\nfunc f() { r.Skip(4) }"},
	{"fixed port", checkTests, "kv/a_test.go",
		`package kv; func f() { net.Listen("tcp", "127.0.0.1:2379") }`,
		`package kv; func f() { net.Listen("tcp", "127.0.0.1:0") }`},
	{"dead link", checkLinks, "docs/a.md",
		"see [b](../docs/b.md)", "see [a](a.md#top) and [the web](https://example.com/x)"},
	{"path of one machine", checkWords, "docs/a.md", "see /" + "work/main", "see ./work/main"},
	{"temporary path", checkWords, "bench/run.sh", "rm /" + "tmp/x", "rm \"$dir/tmp/x\""},
	{"unfinished", checkWords, "a.go", "package a // TO" + "DO: all", "package a // to do what was asked"},
	{"unfinished too", checkWords, "docs/a.md", "this is not " + "implemented", "this is implemented"},
}

func TestRulesFire(t *testing.T) {
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			if found := c.rule(sources(t, c.path, c.bad)); len(found) != 1 {
				t.Errorf("the bad source gave %v", found)
			}
			if found := c.rule(sources(t, c.path, c.good)); len(found) != 0 {
				t.Errorf("the good source gave %v", found)
			}
		})
	}
}

func TestUnknownPackageFires(t *testing.T) {
	if found := checkImports(sources(t, "internal/newcomer/a.go", "package newcomer")); len(found) != 1 {
		t.Errorf("got %v", found)
	}
}

func TestTooManyImportsFires(t *testing.T) {
	source := func(dirs ...string) string {
		text := "package machine\n"
		for _, dir := range dirs {
			text += "import \"" + module + "/" + dir + "\"\n"
		}
		return text
	}
	four := source(mayImport["internal/machine"]...)
	if found := checkImports(sources(t, "internal/machine/a.go", four)); len(found) != 0 {
		t.Errorf("four imports gave %v", found)
	}
	five := source(append(slices.Clone(mayImport["internal/machine"]), "internal/wal")...)
	if found := checkImports(sources(t, "internal/machine/a.go", five)); len(found) != 2 {
		t.Errorf("five imports, one of them against the table, gave %v", found)
	}
}

// Nested modules answer for their words, and for nothing else.
func TestNestedModules(t *testing.T) {
	tr := sources(t, "bench/go.mod", "module x", "bench/a.go", "package util // TO"+"DO")
	if found := checkPackageNames(tr); len(found) != 0 {
		t.Errorf("the name of a nested package gave %v", found)
	}
	if found := checkWords(tr); len(found) != 1 {
		t.Errorf("a word in a nested module gave %v", found)
	}
}

func TestGeneratedFilesAreExempt(t *testing.T) {
	source := "// Code generated by x. DO NOT EDIT.\n\npackage kv\nfunc F() {\n" + lines(100) + "}\n"
	tr := sources(t, "kv/a.go", source)
	if found := append(checkLimits(tr), checkDocs(tr)...); len(found) != 0 {
		t.Errorf("got %v", found)
	}
}

func TestDeterminismFires(t *testing.T) {
	for _, c := range []struct {
		name, source string
		want         int
	}{
		{"clock", `import "time"; func f() time.Time { return time.Now() }`, 1},
		{"clock by another name", `import clock "time"; var now = clock.Now`, 1},
		{"duration", `import "time"; func f(t time.Time) int64 { return t.Add(time.Second).Sub(t).Milliseconds() }`, 0},
		{"chance", `import "math/rand/v2"; var n = rand.Int()`, 1},
		{"goroutine", `func f() { go f() }`, 1},
		{"select", `func f(c chan int) { select { case <-c: default: } }`, 1},
		{"map", "func f(m map[int]int) {\n\n\tfor range m {}\n}", 1},
		{"map of a named type", "type t map[int]int\nfunc f(m t) {\n\n\tfor range m {}\n}", 1},
		{"keys of a map", "import \"maps\"\nfunc f(m map[int]int) {\n\n\tfor range maps.Keys(m) {}\n}", 1},
		{"map with a reason", "func f(m map[int]int) (n int) {\n\t// The order makes no difference to a sum.\n\tfor _, v := range m { n += v }\n\treturn n\n}", 0},
		{"slice", "func f(s []int) {\n\n\tfor range s {}\n}", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := sources(t, "internal/machine/a.go", "package machine\n"+c.source)
			found, err := tr.checkPackage("internal/machine", importer.ForCompiler(tr.fset, "source", nil))
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != c.want {
				t.Errorf("got %v, want %d findings", found, c.want)
			}
		})
	}
}

// The shell of a package whose core is deterministic may have clocks.
func TestShellsAreExempt(t *testing.T) {
	source := "package replica\nimport \"time\"\nvar now = time.Now"
	for name, want := range map[string]int{"core_read.go": 1, "loop.go": 0} {
		tr := sources(t, "internal/replica/"+name, source)
		found, err := tr.checkPackage("internal/replica", importer.ForCompiler(tr.fset, "source", nil))
		if err != nil || len(found) != want {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
}
