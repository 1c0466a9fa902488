package lint

import (
	"go/ast"
	"go/token"
	"strings"
)

// checkGlobals finds package variables that are neither errors nor tables.
// Tests may have their flags.
func checkGlobals(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		if f.test || f.generated {
			continue
		}
		for _, decl := range f.syntax.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				spec := spec.(*ast.ValueSpec)
				if !isConstantLike(gen, spec) {
					out = append(out, t.at(f, spec, "package variable %s is neither an error nor a table", spec.Names[0].Name))
				}
			}
		}
	}
	return out
}

// isConstantLike reports whether a variable is an error, a table, an embedded
// file or a check of an interface.
func isConstantLike(gen *ast.GenDecl, spec *ast.ValueSpec) bool {
	if spec.Names[0].Name == "_" || isEmbedded(gen.Doc) || isEmbedded(spec.Doc) {
		return true
	}
	if _, array := spec.Type.(*ast.ArrayType); array && len(spec.Values) == 0 {
		return true // a page of zeros
	}
	for i, value := range spec.Values {
		if !isTable(value) && !isErrorValue(spec.Names[i].Name, value) {
			return false
		}
	}
	return len(spec.Values) > 0
}

func isEmbedded(doc *ast.CommentGroup) bool {
	return doc != nil && strings.Contains(doc.List[len(doc.List)-1].Text, "//go:embed")
}

// tableMakers are functions whose result is a table.
var tableMakers = map[string]bool{
	"crc32.MakeTable": true, "crc64.MakeTable": true, "regexp.MustCompile": true, "append": true,
	"strings.NewReplacer": true,
}

func isTable(value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.Ident: // another table under a second name
		return true
	case *ast.CompositeLit:
		switch v.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
			return true
		}
		return isModelOfFunctions(v)
	case *ast.CallExpr:
		if array, ok := v.Fun.(*ast.ArrayType); ok { // []byte("…")
			return array.Len == nil
		}
		return tableMakers[callee(v)]
	}
	return false
}

// isModelOfFunctions reports whether a struct literal holds functions only: a
// table of behaviour, as porcupine.Model is.
func isModelOfFunctions(lit *ast.CompositeLit) bool {
	for _, elt := range lit.Elts {
		pair, ok := elt.(*ast.KeyValueExpr)
		if !ok {
			return false
		}
		switch pair.Value.(type) {
		case *ast.FuncLit, *ast.Ident:
		default:
			return false
		}
	}
	return len(lit.Elts) > 0
}

func isErrorValue(name string, value ast.Expr) bool {
	if !strings.HasPrefix(name, "Err") && !strings.HasPrefix(name, "err") {
		return false
	}
	switch v := value.(type) {
	case *ast.SelectorExpr: // another package's error under a name of ours
		return true
	case *ast.UnaryExpr:
		return v.Op == token.AND
	case *ast.CallExpr:
		name := callee(v)
		return name == "errors.New" || strings.HasSuffix(name, "Error") || strings.HasSuffix(name, "Errorf")
	}
	return false
}

// callee writes the name of what is called, as pkg.Func or Func.
func callee(call *ast.CallExpr) string {
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.SelectorExpr:
		if x, ok := fun.X.(*ast.Ident); ok {
			return x.Name + "." + fun.Sel.Name
		}
		return fun.Sel.Name
	}
	return ""
}
