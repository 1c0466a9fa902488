package telemetry

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the files that are made from the tables")

// root is the checkout, seen from this package.
const root = "../.."

// compare compares a file with what it should be, or writes it.
func compare(t *testing.T, name string, want []byte) {
	t.Helper()
	name = filepath.Join(root, filepath.FromSlash(name))
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, name); !bytes.Equal(got, want) {
		t.Errorf("%s is not what the tables say; make it anew with 'go test ./internal/telemetry -update'", name)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The part of docs/TELEMETRY.md that is made from the tables.
const docsBegin, docsEnd = "<!-- made from the tables of internal/telemetry: begin -->\n", "<!-- end -->\n"

// tables are the metrics as documented.
func tables() []byte {
	var b bytes.Buffer
	topic := ""
	for _, f := range Families() {
		if f.Topic != topic {
			topic = f.Topic
			fmt.Fprintf(&b, "\n### %s\n\n| metric | kind | labels | what it is |\n|---|---|---|---|\n", topic)
		}
		labels := ""
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Kind, labels, strings.TrimSuffix(f.Help, "."))
	}
	return append(b.Bytes(), '\n')
}

// TestDocs: the page has the tables, and names nothing else.
func TestDocs(t *testing.T) {
	const name = "docs/TELEMETRY.md"
	page := read(t, filepath.Join(root, name))
	before, rest, ok := bytes.Cut(page, []byte(docsBegin))
	_, after, closed := bytes.Cut(rest, []byte(docsEnd))
	if !ok || !closed {
		t.Fatalf("%s has no place for the tables", name)
	}
	compare(t, name, slices.Concat(before, []byte(docsBegin), tables(), []byte(docsEnd), after))
	exported(t, name, string(before)+string(after))
}

// libraryPrefixes are of metrics that the library exports.
var libraryPrefixes = []string{"go_", "process_"}

// metric is a word that looks like the name of one.
var metric = regexp.MustCompile(`\b(concord|etcd|grpc|go|process|os)_[a-z0-9_]*[a-z0-9]\b`)

// names are the metrics that a text names.
func names(text string) (out []string) {
	for _, name := range metric.FindAllString(text, -1) {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// exported reports names in text that nothing exports.
func exported(t *testing.T, where, text string) {
	t.Helper()
	all := gather(t, silent())
	known := map[string]bool{}
	for name := range all {
		known[name] = true
	}
	for _, f := range Families() {
		known[f.Name] = true
		if f.Kind == Histogram {
			known[f.Name+"_bucket"], known[f.Name+"_sum"], known[f.Name+"_count"] = true, true, true
		}
	}
	for _, name := range names(text) {
		base := strings.TrimSuffix(strings.TrimSuffix(name, "_count"), "_sum")
		library := slices.ContainsFunc(libraryPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
		if !known[name] && !(library && known[base]) {
			t.Errorf("%s names %s, which is not exported", where, name)
		}
	}
}

// TestBoardNames: panels and alerts name what is exported, and every metric of
// Concord's own is in a panel.
func TestBoardNames(t *testing.T) {
	var doc struct {
		Panels []struct {
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, filepath.Join(root, "deploy/grafana/concord.json")), &doc); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, p := range doc.Panels {
		for _, target := range p.Targets {
			fmt.Fprintln(&all, target.Expr)
		}
	}
	exported(t, "the dashboard", all.String())
	shown := map[string]bool{}
	for _, name := range names(all.String()) {
		shown[name], shown[strings.TrimSuffix(name, "_bucket")] = true, true
	}
	for _, f := range Families() {
		if strings.HasPrefix(f.Name, "concord_") && !shown[f.Name] {
			t.Errorf("no panel shows %s", f.Name)
		}
	}
}

// alertFile is deploy/prometheus/alerts.yaml.
type alertFile struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

// TestAlerts: each has a severity, a summary and a next step, is documented, and
// names what is exported.
func TestAlerts(t *testing.T) {
	var rules alertFile
	if err := yaml.Unmarshal(read(t, filepath.Join(root, "deploy/prometheus/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	page := string(read(t, filepath.Join(root, "docs/TELEMETRY.md")))
	tests := string(read(t, filepath.Join(root, "deploy/prometheus/alerts_test.yaml")))
	seen := map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			seen[r.Alert] = true
			exported(t, r.Alert, r.Expr)
			if s := r.Labels["severity"]; s != "critical" && s != "warning" && s != "info" {
				t.Errorf("%s has severity %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["next"] == "" || len(names(r.Expr)) == 0 {
				t.Errorf("%s has no summary, no next step or no metric", r.Alert)
			}
			if !strings.Contains(page, "| `"+r.Alert+"` |") {
				t.Errorf("docs/TELEMETRY.md does not tell of %s", r.Alert)
			}
			if !strings.Contains(tests, "alertname: "+r.Alert+"\n") {
				t.Errorf("no rule test makes %s fire", r.Alert)
			}
		}
	}
	for _, m := range regexp.MustCompile("`(Concord[A-Z][A-Za-z]+)`").FindAllStringSubmatch(page, -1) {
		if !seen[m[1]] {
			t.Errorf("docs/TELEMETRY.md tells of %s, which is no alert", m[1])
		}
	}
	if len(seen) < 15 {
		t.Errorf("%d alerts", len(seen))
	}
}
