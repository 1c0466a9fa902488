package lint

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// lowerHalf is everything below package concord: replication and state.
var lowerHalf = []string{
	"kv", "internal/auth", "internal/compactor", "internal/discovery", "internal/divergence", "internal/founding",
	"internal/lease", "internal/lessor", "internal/machine", "internal/memberfile", "internal/mvcc",
	"internal/replica", "internal/secret", "internal/snap", "internal/steward", "internal/transport", "internal/vfs", "internal/wal",
}

// edges are the packages that turn a wire API into kv.
var edges = []string{"internal/etcdapi", "internal/restapi", "internal/dnsapi", "internal/console"}

// mayImport is the table of docs/DESIGN.md: which of our packages a package may
// import. Tests are free. A package that is not here has to be added, with the
// decision behind it.
var mayImport = map[string][]string{
	"kv":                  {},
	"observe":             {},
	"kv/kvtest":           {"kv"},
	"kv/kvtest/lincheck":  {"kv"},
	"internal/vfs":        {},
	"internal/discovery":  {},
	"internal/secret":     {},
	"internal/telemetry":  {"kv", "observe"},
	"internal/transport":  {},
	"internal/formation":  {},
	"internal/founding":   {},
	"internal/lint":       {},
	"internal/certs":      {},
	"internal/certstest":  {},
	"internal/loopback":   {},
	"internal/memberfile": {"internal/vfs"},
	"internal/lab":        {"internal/vfs"},
	"internal/mvcc":       {"kv"},
	"internal/lease":      {"kv"},
	"internal/auth":       {"kv"},
	"internal/lessor":     {"kv"},
	"internal/compactor":  {"kv"},
	"internal/steward":    {"kv"},
	"internal/divergence": {"kv"},
	"internal/headers":    {},
	"internal/etcdapi":    {"kv", "internal/etcdfile", "internal/headers", "internal/lockpb"},
	"internal/lockpb":     {},
	"internal/etcdfile":   {"kv"},
	"internal/migrate":    {"kv", "internal/etcdfile"},
	"internal/restapi":    {"kv"},
	"internal/tracing":    {"internal/headers", "observe"},
	"internal/dnsapi":     {"kv"},
	"internal/console":    {"kv"},
	"internal/wal":        {"internal/vfs"},
	"internal/snap":       {"internal/vfs"},
	"internal/machine":    {"kv", "internal/mvcc", "internal/lease", "internal/auth"},
	"internal/replica":    {"internal/wal", "internal/snap", "internal/transport"},
	"internal/backup":     {"kv", "internal/wal", "internal/snap", "internal/machine", "internal/memberfile", "internal/replica", "internal/vfs"},
	"client":              {"kv"},
	".":                   append([]string{"internal/backup", "internal/lab", "observe"}, lowerHalf...),
	"server":              append([]string{"kv", "observe", "internal/headers", "internal/lockpb", "internal/telemetry"}, edges...),
	"cmd/concord":         {".", "server", "client", "kv", "observe", "internal/backup", "internal/certs", "internal/etcdfile", "internal/migrate", "internal/restapi", "internal/tracing"},
	"concordtest":         {".", "kv", "internal/lab", "internal/vfs"},
	"internal/sim":        append([]string{"kv/kvtest/lincheck"}, lowerHalf...),
	"internal/alarms":     {"kv", "client"},
	"internal/siege":      {"kv", "client"},
	"internal/chaos":      {"kv", "client", "kv/kvtest/lincheck", "internal/loopback"},
}

// wires are the packages that put others together: they alone may import more
// than four of ours.
var wires = []string{".", "server", "cmd/concord", "concordtest", "internal/backup", "internal/sim", "internal/chaos"}

// mostImports is how many of our packages another may import.
const mostImports = 4

// checkImports holds each package to the table.
func checkImports(t *tree) []finding {
	var out []finding
	for dir, files := range t.packages() {
		allowed, known := mayImport[dir]
		if !known {
			out = append(out, finding{files[0].path, 1, "package " + dir + " is not in the import table"})
			continue
		}
		ours := map[string]bool{}
		for _, f := range files {
			for _, spec := range f.syntax.Imports {
				target, ok := ourImport(spec.Path.Value)
				if !ok {
					continue
				}
				ours[target] = true
				if !slices.Contains(allowed, target) {
					out = append(out, t.at(f, spec, "%s may not import %s", dir, target))
				}
			}
		}
		if len(ours) > mostImports && !slices.Contains(wires, dir) {
			out = append(out, finding{files[0].path, 1, dir + " imports " + strconv.Itoa(len(ours)) + " of our packages; at most 4 are allowed"})
		}
	}
	return out
}

// ourImport gives the folder of an import, when it is ours.
func ourImport(quoted string) (dir string, ok bool) {
	name, err := strconv.Unquote(quoted)
	if err != nil {
		return "", false
	}
	if name == module {
		return ".", true
	}
	return strings.CutPrefix(name, module+"/")
}

// standardOnly are packages that import the standard library and what the table
// allows, and nothing else: they are what programs build against or audit.
var standardOnly = []string{"kv", "observe", "kv/kvtest", "internal/transport", "internal/founding"}

// checkStandardOnly finds foreign imports in packages that have none.
func checkStandardOnly(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		if f.test || !slices.Contains(standardOnly, f.dir) {
			continue
		}
		for _, spec := range f.syntax.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			if _, ours := ourImport(spec.Path.Value); !ours && strings.Contains(strings.Split(name, "/")[0], ".") {
				out = append(out, t.at(f, spec, "%s imports the standard library only, not %s", f.dir, name))
			}
		}
	}
	return out
}

// emptyNames say nothing about what a package is for.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base"}

// checkPackageNames finds packages without a meaning in their name.
func checkPackageNames(t *tree) []finding {
	var out []finding
	for dir, files := range t.packages() {
		if slices.Contains(emptyNames, path.Base(dir)) || slices.Contains(emptyNames, files[0].syntax.Name.Name) {
			out = append(out, finding{files[0].path, 1, "the package's name does not say what it is for"})
		}
	}
	return out
}
