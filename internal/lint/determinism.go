package lint

import (
	"fmt"
	"go/ast"
	"go/types"
	"path"
	"slices"
	"strings"
)

// deterministic are the packages whose results must be equal on all members.
var deterministic = []string{"internal/machine", "internal/mvcc", "internal/lease", "internal/auth", "internal/founding", "internal/replica"}

// sansIO are the packages of which only a part is deterministic, with the
// beginning of the names of its files; a shell with clocks and goroutines
// stands around it.
var sansIO = map[string]string{"internal/replica": "core", "internal/founding": "machine"}

func inCore(dir, name string) bool { return strings.HasPrefix(name, sansIO[dir]) }

// exempt are files of deterministic packages that may draw random numbers,
// start goroutines and wait on channels, with the reason why no result depends
// on it.
var exempt = map[string]string{
	"internal/mvcc/load.go":     "pages are decoded in parallel and inserted in the order of the stream",
	"internal/mvcc/hub.go":      "wakes watchers; a wake-up carries no data",
	"internal/mvcc/interval.go": "chance shapes the tree of watchers, not what is found in it",
}

// checkDeterminism finds, in one type-checked file of a deterministic package,
// clocks, chance, goroutines, select, and loops over maps that do not say why
// the order makes no difference.
func (t *tree) checkDeterminism(f *file, info *types.Info) []finding {
	var out []finding
	_, allowed := exempt[f.path]
	for _, spec := range f.syntax.Imports {
		switch name := spec.Path.Value; {
		case allowed:
		case name == `"math/rand"`, name == `"math/rand/v2"`, name == `"crypto/rand"`:
			out = append(out, t.at(f, spec, "chance in a deterministic package: %s", name))
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if !allowed {
				out = append(out, t.at(f, n, "a goroutine in a deterministic file"))
			}
		case *ast.SelectStmt:
			if !allowed {
				out = append(out, t.at(f, n, "a select in a deterministic file: which case runs is chance"))
			}
		case *ast.SelectorExpr:
			if what := clock(n, info); what != "" {
				out = append(out, t.at(f, n, "a clock in a deterministic package: %s", what))
			}
		case *ast.RangeStmt:
			if isMap(n.X, info) && !t.explainsOrder(f, n) {
				out = append(out, t.at(f, n, "a loop over a map: say in a comment with the word order why the order makes no difference, or sort"))
			}
		}
		return true
	})
	return out
}

// clocks are the functions of package time that read or wait for time.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

func clock(sel *ast.SelectorExpr, info *types.Info) string {
	fn, ok := info.Uses[sel.Sel].(*types.Func)
	if ok && fn.Pkg() != nil && fn.Pkg().Path() == "time" && slices.Contains(clocks, fn.Name()) && fn.Signature().Recv() == nil {
		return "time." + fn.Name()
	}
	return ""
}

func isMap(x ast.Expr, info *types.Info) bool {
	typ := info.TypeOf(x)
	if call, ok := x.(*ast.CallExpr); ok && len(call.Args) == 1 {
		switch callee(call) {
		case "maps.Keys", "maps.Values", "maps.All":
			typ = info.TypeOf(call.Args[0])
		}
	}
	if typ == nil {
		return false
	}
	_, ok := typ.Underlying().(*types.Map)
	return ok
}

// explainsOrder reports whether a comment on the loop's line, or ending on the
// line above, speaks of order.
func (t *tree) explainsOrder(f *file, loop *ast.RangeStmt) bool {
	line := t.fset.Position(loop.Pos()).Line
	for _, group := range f.syntax.Comments {
		first, last := t.fset.Position(group.Pos()).Line, t.fset.Position(group.End()).Line
		if (last == line-1 || first == line) && strings.Contains(strings.ToLower(group.Text()), "order") {
			return true
		}
	}
	return false
}

// checkPackage type-checks the files of one folder and looks at those that must
// be deterministic.
func (t *tree) checkPackage(dir string, imports types.Importer) ([]finding, error) {
	var files []*ast.File
	var core []*file
	for _, f := range t.packages()[dir] {
		if strings.HasSuffix(f.path, "_other.go") {
			continue // the stand-in for other systems declares the same names
		}
		files = append(files, f.syntax)
		if inCore(dir, path.Base(f.path)) {
			core = append(core, f)
		}
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: imports}
	if _, err := conf.Check(module+"/"+dir, t.fset, files, info); err != nil {
		return nil, fmt.Errorf("type-check %s: %w", dir, err)
	}
	var out []finding
	for _, f := range core {
		out = append(out, t.checkDeterminism(f, info)...)
	}
	return out, nil
}
