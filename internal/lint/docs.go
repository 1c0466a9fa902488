package lint

import (
	"go/ast"
	"go/token"
	"strings"
)

// checkPackageDocs finds packages that do not say what they are for.
func checkPackageDocs(t *tree) []finding {
	var out []finding
	for dir, files := range t.packages() {
		said := false
		for _, f := range files {
			doc := f.syntax.Doc.Text()
			want := "Package " + f.syntax.Name.Name + " "
			if f.syntax.Name.Name == "main" {
				want = ""
			}
			said = said || doc != "" && strings.HasPrefix(doc, want)
		}
		if !said {
			out = append(out, finding{files[0].path, 1, "no file of " + dir + " says what the package is for"})
		}
	}
	return out
}

// checkDocs finds exported names without a comment. A comment on a group of
// constants, variables or types, or behind one, counts.
func checkDocs(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		if f.test || f.generated || f.syntax.Name.Name == "main" {
			continue
		}
		for _, decl := range f.syntax.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Doc == nil && decl.Name.IsExported() && exportedReceiver(decl) {
					out = append(out, t.at(f, decl, "exported %s has no comment", decl.Name.Name))
				}
			case *ast.GenDecl:
				out = append(out, t.undocumented(f, decl)...)
			}
		}
	}
	return out
}

func exportedReceiver(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return true
	}
	typ := fn.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

func (t *tree) undocumented(f *file, gen *ast.GenDecl) []finding {
	if gen.Doc != nil || gen.Tok == token.IMPORT {
		return nil
	}
	var out []finding
	for _, spec := range gen.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && spec.Doc == nil && spec.Comment == nil {
				out = append(out, t.at(f, spec, "exported %s has no comment", spec.Name.Name))
			}
		case *ast.ValueSpec:
			if spec.Names[0].IsExported() && spec.Doc == nil && spec.Comment == nil {
				out = append(out, t.at(f, spec, "exported %s has no comment", spec.Names[0].Name))
			}
		}
	}
	return out
}
