package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/spf13/cobra"

	"github.com/concord-kv/concord"
)

// etcdVersion is the version of etcd whose command line is understood.
const etcdVersion = "3.7.3"

// asEtcd gives the program's arguments, where a program that is called etcd
// means the command of that name.
func asEtcd(args []string) []string {
	if len(args) > 0 && filepath.Base(args[0]) == "etcd" {
		return append([]string{"etcd"}, args[1:]...)
	}
	return args[min(1, len(args)):]
}

func newEtcdCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "etcd [flags of etcd]", Short: "Run one member from a command line of etcd",
		Long: "Run one member from the flags, environment (ETCD_NAME …) and settings file of\n" +
			"etcd " + etcdVersion + ", with its defaults. A program of this file that is called etcd\n" +
			"does the same. 'concord etcd --help' lists the flags.",
		DisableFlagParsing: true,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		values, notes, err := parseEtcd(g, args, os.Environ())
		if values == nil {
			return err
		}
		return runEtcd(cmd.Context(), g, values, notes)
	}
	return cmd
}

// note is something to log once the logger is known.
type note struct {
	text string
	args []any
}

// parseEtcd reads the settings as etcd does: the file alone, or the flags and,
// where they say nothing, the environment. There are no values when there is
// nothing to run, with or without an error.
func parseEtcd(g *globals, args, environ []string) (etcdValues, []note, error) {
	values := newEtcdValues()
	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	values.addTo(fs)
	version := fs.Bool("version", false, "print the version and exit")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, nil, printEtcdHelp(g.std.out)
	case err != nil:
		return nil, nil, &usageError{err, "See 'concord etcd --help' for the flags."}
	case fs.NArg() > 0:
		return nil, nil, usagef("%q is not a valid flag", fs.Arg(0))
	case *version:
		_, err := fmt.Fprintf(g.std.out, "etcd Version: %s\nConcord Version: %s\nGo Version: %s\nGo OS/Arch: %s/%s\n",
			etcdVersion, concord.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return nil, nil, err
	}
	env := map[string]string{}
	for _, pair := range environ {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "ETCD_") && value != "" {
			env[name] = value
		}
	}
	var notes []note
	if path := cmp.Or(values.text("config-file"), env[etcdEnv("config-file")]); path != "" {
		values = newEtcdValues()
		notes, err = values.readFile(path)
		notes = append(notes, note{"settings come from the file; flags and environment are ignored", []any{"path", path}})
	} else {
		notes, err = values.readEnv(env)
	}
	if err == nil {
		var more []note
		more, err = values.complete()
		notes = append(notes, more...)
	}
	if err != nil {
		return nil, nil, err
	}
	return values, notes, nil
}

// etcdEnv is the environment variable of a flag.
func etcdEnv(flag string) string {
	return "ETCD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (v etcdValues) readEnv(env map[string]string) (notes []note, err error) {
	known := map[string]bool{}
	for i := range etcdFlags {
		variable, value := etcdEnv(etcdFlags[i].name), v[etcdFlags[i].name]
		known[variable] = true
		text := env[variable]
		switch {
		case text == "":
		case value.given:
			notes = append(notes, note{"environment variable is shadowed by a flag", []any{"variable", variable}})
		default:
			if err := value.Set(text); err != nil {
				return nil, usagef("invalid value %q for %s: %w", text, variable, err)
			}
		}
	}
	for variable := range env {
		if !known[variable] {
			notes = append(notes, note{"unrecognized environment variable", []any{"variable", variable}})
		}
	}
	return notes, nil
}

// sections of etcd's settings file, with the beginning of the flags that their
// keys stand for.
var sections = map[string]string{"client-transport-security": "", "peer-transport-security": "peer-", "socket-options": "socket-"}

// renamed are keys of sections that are not called as their flags.
var renamed = map[string]string{
	"allowed-cn": "cert-allowed-cn", "allowed-hostname": "cert-allowed-hostname",
	"skip-client-san-verification": "skip-client-san-verification",
	"reuse-port":                   "reuse-port", "reuse-address": "reuse-address",
}

// readFile reads etcd's settings file: YAML with the flags' names as keys, and
// TLS in sections.
func (v etcdValues) readFile(path string) (notes []note, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the settings file: %w", err)
	}
	settings, err := yaml.Parser().Unmarshal(data)
	if err != nil {
		return nil, usagef("read the settings file %s: %w", path, err)
	}
	for key, value := range settings {
		prefix, isSection := sections[key]
		if !isSection {
			notes, err = v.setKey(notes, key, value)
		} else if section, ok := value.(map[string]any); ok {
			for key, value := range section {
				name := prefix + cmp.Or(renamed[key], key)
				if prefix == "" && renamed[key] != "" {
					name = "client-" + name
				}
				if notes, err = v.setKey(notes, name, value); err != nil {
					break
				}
			}
		} else if value != nil {
			err = fmt.Errorf("invalid %s", key)
		}
		if err != nil {
			return nil, usagef("settings file %s: %w", path, err)
		}
	}
	return notes, nil
}

// setKey takes one value of a settings file. Durations are nanoseconds there.
func (v etcdValues) setKey(notes []note, name string, value any) ([]note, error) {
	f := v[name]
	if f == nil || name == "config-file" {
		return append(notes, note{"unknown setting in the file", []any{"setting", name}}), nil
	}
	text := fmt.Sprint(value)
	switch x := value.(type) {
	case nil:
		return notes, nil
	case []any:
		parts := make([]string, len(x))
		for i := range x {
			parts[i] = fmt.Sprint(x[i])
		}
		text = strings.Join(parts, ",")
	case float64:
		text = strconv.FormatFloat(x, 'f', -1, 64)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && f.kind == timeFlag {
		text = time.Duration(n).String()
	}
	if text == "" && f.kind != textFlag { // as if it were not there
		return notes, nil
	}
	if err := f.Set(text); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return notes, nil
}

// complete fills what depends on other settings, and tells what cannot be. The
// notes say which flags do nothing.
func (v etcdValues) complete() (notes []note, err error) {
	for _, f := range etcdFlags {
		value := v[f.name]
		switch {
		case !value.given || value.value == "":
		case f.refused != "":
			return nil, usagef("--%s cannot be used: %s", f.name, f.refused)
		case f.ignored != "" && value.value != f.def:
			notes = append(notes, note{"flag has no effect", []any{"flag", f.name, "reason", f.ignored}})
		}
	}
	if v.text("data-dir") == "" {
		v["data-dir"].value = v.text("name") + ".etcd"
	}
	if !v.given("initial-cluster") {
		var members []string
		for _, u := range v.urls("initial-advertise-peer-urls") {
			members = append(members, v.text("name")+"="+u.String())
		}
		v["initial-cluster"].value = strings.Join(members, ",")
	}
	return notes, v.checkEtcd()
}

// checkEtcd refuses what etcd refuses, in its words.
func (v etcdValues) checkEtcd() error {
	heartbeat, election := v.number("heartbeat-interval"), v.number("election-timeout")
	lowest, highest := tlsVersions[v.text("tls-min-version")], tlsVersions[v.text("tls-max-version")]
	for _, bad := range []struct {
		is   bool
		text string
	}{
		{v.given("listen-client-urls") && !v.given("advertise-client-urls"), "--advertise-client-urls is required when --listen-client-urls is set explicitly"},
		{!slices.Contains([]string{"new", "existing"}, v.text("initial-cluster-state")), fmt.Sprintf("unexpected clusterState %q", v.text("initial-cluster-state"))},
		{heartbeat <= 0, fmt.Sprintf("--heartbeat-interval must be >0 (set to %dms)", heartbeat)},
		{election <= 0, fmt.Sprintf("--election-timeout must be >0 (set to %dms)", election)},
		{5*heartbeat > election, fmt.Sprintf("--election-timeout[%vms] should be at least as 5 times as --heartbeat-interval[%vms]", election, heartbeat)},
		{election > 50_000, fmt.Sprintf("--election-timeout[%vms] is too long, and should be set less than 50000ms", election)},
		{!slices.Contains([]string{"periodic", "revision"}, v.text("auto-compaction-mode")), fmt.Sprintf("unknown auto-compaction-mode %q", v.text("auto-compaction-mode"))},
		{lowest == 0 && v.text("tls-min-version") != "", fmt.Sprintf("unexpected TLS version %q (must be one of: TLS1.2, TLS1.3)", v.text("tls-min-version"))},
		{highest == 0 && v.text("tls-max-version") != "", fmt.Sprintf("unexpected TLS version %q (must be one of: TLS1.2, TLS1.3)", v.text("tls-max-version"))},
		{highest != 0 && lowest > highest, fmt.Sprintf("min version (%s) is greater than max version (%s)", v.text("tls-min-version"), v.text("tls-max-version"))},
		{v.text("tls-min-version") == "TLS1.3" && len(v.list("cipher-suites")) > 0, "cipher suites cannot be configured when only TLS1.3 is enabled"},
		{v.number("max-txn-ops") <= 0 || v.number("max-request-bytes") <= 0, "--max-txn-ops and --max-request-bytes must be >0"},
	} {
		if bad.is {
			return usagef("%s", bad.text)
		}
	}
	_, err := v.compaction()
	return err
}

// printEtcdHelp lists the flags in etcd's layout.
func printEtcdHelp(out io.Writer) error {
	var b strings.Builder
	b.WriteString("Usage:\n\n  etcd [flags]\n    Start a member.\n\n  etcd --version\n    Show the version.\n\n  etcd --config-file FILE\n    Start a member with the settings in a file.\n\nFlags:\n")
	for _, f := range etcdFlags {
		fmt.Fprintf(&b, "  --%s '%s'\n    %s\n", f.name, f.def, f.help())
	}
	_, err := io.WriteString(out, b.String())
	return err
}
