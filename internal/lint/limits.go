package lint

import "go/ast"

// The limits of size. A thing that outgrows its limit is split by what it does.
const (
	mostFileLines = 600
	mostFuncLines = 70
	mostFields    = 16
	mostMethods   = 7
	mostParams    = 4 // beside a context
)

// checkLimits holds files, functions, structs, interfaces and parameter lists to
// their limits. Generated files are exempt.
func checkLimits(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		if f.generated {
			continue
		}
		if f.lines > mostFileLines {
			out = append(out, finding{f.path, f.lines, "the file has more than 600 lines"})
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			out = append(out, t.checkNode(f, n)...)
			return true
		})
	}
	return out
}

func (t *tree) checkNode(f *file, n ast.Node) []finding {
	var out []finding
	switch n := n.(type) {
	case *ast.FuncDecl:
		if lines := t.lines(n); lines > mostFuncLines {
			out = append(out, t.at(f, n, "%s has %d lines; at most %d are allowed", n.Name.Name, lines, mostFuncLines))
		}
		if n.Name.Name == "init" && n.Recv == nil {
			out = append(out, t.at(f, n, "there is no init: let the caller start what it needs"))
		}
	case *ast.FuncType:
		if params := countParams(n); params > mostParams {
			out = append(out, t.at(f, n, "%d parameters beside ctx; at most %d are allowed", params, mostParams))
		}
	case *ast.StructType:
		if fields := countFields(n.Fields); fields > mostFields {
			out = append(out, t.at(f, n, "a struct of %d fields; at most %d are allowed", fields, mostFields))
		}
	case *ast.InterfaceType:
		if methods := countFields(n.Methods); methods > mostMethods {
			out = append(out, t.at(f, n, "an interface of %d methods; at most %d are allowed", methods, mostMethods))
		}
	}
	return out
}

func (t *tree) lines(n *ast.FuncDecl) int {
	return t.fset.Position(n.End()).Line - t.fset.Position(n.Pos()).Line + 1
}

func countFields(list *ast.FieldList) int {
	n := 0
	for _, field := range list.List {
		n += max(1, len(field.Names)) // embedded ones have no name
	}
	return n
}

func countParams(fn *ast.FuncType) int {
	n := 0
	for _, field := range fn.Params.List {
		typ := field.Type
		if star, ok := typ.(*ast.StarExpr); ok {
			typ = star.X
		}
		// A context, or the test that fuzzing hands over.
		if sel, ok := typ.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Context" || sel.Sel.Name == "T") {
			continue
		}
		n += max(1, len(field.Names))
	}
	return n
}
