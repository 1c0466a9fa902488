package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// module is the module path; what follows it in an import is a folder.
const module = "github.com/concord-kv/concord"

// tree is a checkout: its text files, and the Go files of the main module
// parsed.
type tree struct {
	fsys  fs.FS
	fset  *token.FileSet
	files []*file
	texts []text
}

// file is one Go file of the main module.
type file struct {
	path      string
	dir       string // "." is the root
	test      bool
	generated bool
	syntax    *ast.File
	lines     int
}

// text is any text file, of nested modules too.
type text struct {
	path string
	data []byte
}

// finding is one place that breaks a rule.
type finding struct {
	path string
	line int
	what string
}

func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.what) }

// at makes a finding at a node of f.
func (t *tree) at(f *file, n ast.Node, format string, args ...any) finding {
	return finding{f.path, t.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...)}
}

// largestText is where files stop being read: larger ones are data.
const largestText = 1 << 20

// load reads a checkout. Folders with a go.mod of their own are nested modules,
// of which only the text is looked at.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fsys: fsys, fset: token.NewFileSet()}
	var nested []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "bin" || name == "data"):
			return fs.SkipDir
		case d.IsDir() && name != "." && exists(fsys, name+"/go.mod"):
			nested = append(nested, name+"/")
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		inNested := slices.ContainsFunc(nested, func(dir string) bool { return strings.HasPrefix(name, dir) })
		return t.add(fsys, name, inNested)
	})
	return t, err
}

func exists(fsys fs.FS, name string) bool {
	_, err := fs.Stat(fsys, name)
	return err == nil
}

func (t *tree) add(fsys fs.FS, name string, nested bool) error {
	info, err := fs.Stat(fsys, name)
	if err != nil || info.Size() > largestText {
		return err
	}
	data, err := fs.ReadFile(fsys, name)
	if err != nil || bytes.IndexByte(data, 0) >= 0 {
		return err
	}
	t.texts = append(t.texts, text{name, data})
	if nested || path.Ext(name) != ".go" || strings.Contains(name, "testdata/") {
		return nil
	}
	syntax, err := parser.ParseFile(t.fset, name, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.files = append(t.files, &file{
		path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(syntax), syntax: syntax, lines: bytes.Count(data, []byte("\n")),
	})
	return nil
}

// packages groups the files that are no tests by folder.
func (t *tree) packages() map[string][]*file {
	out := map[string][]*file{}
	for _, f := range t.files {
		if !f.test {
			out[f.dir] = append(out[f.dir], f)
		}
	}
	return out
}
