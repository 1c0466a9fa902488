package lint

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
)

// fixedPort is an address with a port that a program chose.
var fixedPort = regexp.MustCompile(`:[1-9][0-9]*$`)

// checkTests finds what makes tests slow or unsteady: sleeping instead of
// waiting for a condition, listening on a fixed port, skipping.
func checkTests(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		helper := strings.HasPrefix(f.dir, "kv/kvtest") || f.dir == "concordtest"
		if !f.test && !helper {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := callee(call)
			method := name[strings.LastIndex(name, ".")+1:]
			switch {
			case name == "time.Sleep":
				out = append(out, t.at(f, n, "a test sleeps: wait for a condition, or use testing/synctest"))
			case name == "testing.Short", strings.HasPrefix(method, "Skip") && strings.HasPrefix(name, "t."):
				out = append(out, t.at(f, n, "a test that can be skipped proves nothing"))
			case strings.HasPrefix(method, "Listen") && listensFixed(call):
				out = append(out, t.at(f, n, "a test listens on a fixed port: use port 0"))
			}
			return true
		})
	}
	return out
}

func listensFixed(call *ast.CallExpr) bool {
	for _, arg := range call.Args {
		lit, ok := arg.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			continue
		}
		if addr, err := strconv.Unquote(lit.Value); err == nil && fixedPort.MatchString(addr) {
			return true
		}
	}
	return false
}
