package observe

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocs: the page lists all events, and none that there is not.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/TELEMETRY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(page), "\n## Events\n")
	if !found {
		t.Fatal("docs/TELEMETRY.md has no part about events")
	}
	part, _, _ = strings.Cut(part, "\n## ")
	var listed []string
	for line := range strings.Lines(part) {
		if row, ok := strings.CutPrefix(line, "| "); ok {
			cell, _, _ := strings.Cut(row, "|")
			for _, m := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(cell, -1) {
				listed = append(listed, m[1])
			}
		}
	}
	slices.Sort(listed)
	if want := Names(); !slices.Equal(listed, want) {
		t.Errorf("docs/TELEMETRY.md lists %v\nthere are %v", listed, want)
	}
}
