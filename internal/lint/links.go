package lint

import (
	"bytes"
	"path"
	"regexp"
	"strings"
)

// link is a Markdown link to a place in the tree.
var link = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)

// checkLinks finds links in Markdown files to files that are not there.
func checkLinks(t *tree) []finding {
	var out []finding
	for _, file := range t.texts {
		if path.Ext(file.path) != ".md" {
			continue
		}
		for i, line := range bytes.Split(file.data, []byte("\n")) {
			for _, m := range link.FindAllSubmatch(line, -1) {
				target := path.Join(path.Dir(file.path), string(m[1]))
				if !strings.HasPrefix(target, "..") && !exists(t.fsys, target) {
					out = append(out, finding{file.path, i + 1, "a link to " + target + ", which is not there"})
				}
			}
		}
	}
	return out
}
