package lint

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
)

// words are patterns that have no place in the project: paths of one machine,
// and words that say that something is unfinished. They are written so that
// they do not match themselves.
var words = []struct {
	pattern *regexp.Regexp
	why     string
}{
	{regexp.MustCompile(`(?i)(^|[^\w.~-])/(work|root|farm|home/[a-z]\w*)/`), "an absolute path of one machine"},
	{regexp.MustCompile(`(^|[^\w.~-])/[t]mp/`), "a fixed temporary path: use a fresh directory"},
	{regexp.MustCompile(`\b([T]ODO|[F]IXME|[X]XX)\b`), "unfinished by its own words"},
	{regexp.MustCompile(`(?i)\b[n]ot (yet )?implemented\b`), "unfinished by its own words"},
	{regexp.MustCompile(`(?i)\b([L]LM|[s]ubagent|[c]hat[g]pt|[c]laude)\b`), "no word of this project"},
	{regexp.MustCompile(`(?i)(the (previous|last|next)|[t]his) [s]ession\b`), "history belongs into the log"},
}

// checkedText are the kinds of files in which words are looked for.
var checkedText = []string{
	".go", ".md", ".yaml", ".yml", ".toml", ".sh", ".txt", ".txtar", ".json", ".proto", ".mod", ".service", "",
}

// unfinishedAllowed are files that name the patterns because they are about
// them.
var unfinishedAllowed = []string{"internal/lint/rules_test.go", "LICENSE", "go.sum"}

// checkWords looks through every text file, of nested modules too.
func checkWords(t *tree) []finding {
	var out []finding
	for _, file := range t.texts {
		if !slices.Contains(checkedText, path.Ext(file.path)) || slices.Contains(unfinishedAllowed, file.path) {
			continue
		}
		for i, line := range bytes.Split(file.data, []byte("\n")) {
			for _, w := range words {
				if found := w.pattern.Find(line); found != nil {
					out = append(out, finding{file.path, i + 1, fmt.Sprintf("%q: %s", found, w.why)})
				}
			}
		}
	}
	return out
}
