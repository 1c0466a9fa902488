package lint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// root is the checkout, seen from this package.
const root = "../.."

func loadRoot(t *testing.T) *tree {
	t.Helper()
	tr, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.files) == 0 {
		t.Fatal("no Go files found: the test looks at the wrong folder")
	}
	return tr
}

func report(t *testing.T, found []finding) {
	t.Helper()
	slices.SortFunc(found, func(a, b finding) int {
		return cmp.Or(strings.Compare(a.path, b.path), a.line-b.line)
	})
	for _, f := range found {
		t.Error(f)
	}
}

func TestImportTable(t *testing.T) {
	tr := loadRoot(t)
	report(t, checkImports(tr))
	report(t, checkStandardOnly(tr))
	report(t, checkPackageNames(tr))
}

func TestLimits(t *testing.T)  { report(t, checkLimits(loadRoot(t))) }
func TestGlobals(t *testing.T) { report(t, checkGlobals(loadRoot(t))) }
func TestWords(t *testing.T)   { report(t, checkWords(loadRoot(t))) }
func TestLinks(t *testing.T)   { report(t, checkLinks(loadRoot(t))) }
func TestTests(t *testing.T)   { report(t, checkTests(loadRoot(t))) }

func TestDocs(t *testing.T) {
	tr := loadRoot(t)
	report(t, checkPackageDocs(tr))
	report(t, checkDocs(tr))
}

func TestDeterminism(t *testing.T) {
	tr := loadRoot(t)
	for _, dir := range deterministic {
		if len(tr.packages()[dir]) == 0 {
			continue // not in this version of the project
		}
		found, err := tr.checkPackage(dir, compiledImports(t, tr.fset, "./"+dir))
		if err != nil {
			t.Error(err)
		}
		report(t, found)
	}
	for name := range exempt {
		if _, err := os.Stat(root + "/" + name); err != nil {
			t.Errorf("an exception for a file that is not there: %v", err)
		}
	}
}

// goList is what go list -json tells of a package.
type goList struct {
	ImportPath, Export string
	Standard           bool
}

func list(t *testing.T, args ...string) []goList {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Export,Standard"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var packages []goList
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goList
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// compiledImports gives the types of what a package imports, from the compiler.
func compiledImports(t *testing.T, fset *token.FileSet, pkg string) types.Importer {
	t.Helper()
	exports := map[string]string{}
	for _, p := range list(t, "-export", pkg) {
		exports[p.ImportPath] = p.Export
	}
	return importer.ForCompiler(fset, "gc", func(name string) (io.ReadCloser, error) {
		return os.Open(exports[name])
	})
}

// coreBudget is how many packages of others a program that embeds Concord
// compiles. It may fall. To raise it is a decision: say in docs/adr what for.
const coreBudget = 56

// foreign are dependencies of the edges, which the core must not have.
var foreign = []string{
	"google.golang.org/grpc", "go.etcd.io/etcd", "github.com/prometheus", "go.opentelemetry.io", "github.com/spf13",
	"github.com/knadh", "github.com/anishathalye",
}

func TestCoreDependencies(t *testing.T) {
	var others []string
	for _, p := range list(t, ".") {
		if p.Standard || strings.HasPrefix(p.ImportPath, module) {
			continue
		}
		others = append(others, p.ImportPath)
		for _, prefix := range foreign {
			if strings.HasPrefix(p.ImportPath, prefix) {
				t.Errorf("the embeddable core depends on %s", p.ImportPath)
			}
		}
	}
	t.Logf("%d packages of others: %s", len(others), strings.Join(others, " "))
	if len(others) > coreBudget {
		t.Errorf("the core pulls in %d packages of others, its budget is %d:\n%s", len(others), coreBudget, strings.Join(others, "\n"))
	}
}
