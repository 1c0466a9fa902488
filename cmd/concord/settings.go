package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// A settings struct has a field a setting. Its tag names it everywhere:
// `set:"client-addr"` is the flag --client-addr, the key client-addr in the
// file and CONCORD_CLIENT_ADDR in the environment; `usage` is the flag's help.
// The fields' values before loading are the defaults. A struct without a tag
// holds further settings.

// addSettingFlags adds a flag for each field of *settings, with its value as
// the default.
func addSettingFlags(flags *pflag.FlagSet, settings any) {
	eachSetting(settings, func(name, usage string, field reflect.Value) {
		switch p := field.Addr().Interface().(type) {
		case *string:
			flags.StringVar(p, name, *p, usage)
		case *bool:
			flags.BoolVar(p, name, *p, usage)
		case *int:
			flags.IntVar(p, name, *p, usage)
		case *byteSize:
			flags.Var(p, name, usage)
		case *time.Duration:
			flags.DurationVar(p, name, *p, usage)
		case *[]string:
			flags.StringSliceVar(p, name, *p, usage)
		default:
			panic(fmt.Sprintf("setting %s has type %s, which no flag has", name, field.Type()))
		}
	})
}

func eachSetting(settings any, visit func(name, usage string, field reflect.Value)) {
	v := reflect.ValueOf(settings).Elem()
	for i := range v.NumField() {
		tag, field := v.Type().Field(i).Tag, v.Field(i)
		if name := tag.Get("set"); name != "" {
			visit(name, tag.Get("usage"), field)
		} else if field.Kind() == reflect.Struct {
			eachSetting(field.Addr().Interface(), visit)
		}
	}
}

// envName is the environment variable of a setting.
func envName(setting string) string {
	return "CONCORD_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// loadSettings fills the settings behind flags that the command line left
// alone: from the file, when path is given, and over it from the environment.
func loadSettings(flags *pflag.FlagSet, settings any, path string) error {
	known := map[string]bool{}
	eachSetting(settings, func(name, _ string, _ reflect.Value) { known[name] = true })
	if err := checkEnv(os.Environ(), known); err != nil {
		return err
	}
	layers, err := readSettings(path, known)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		value, where := layers[name], "setting "+name+" in "+path
		if env := os.Getenv(envName(name)); env != "" {
			value, where = env, envName(name)
		}
		if value == "" || flags.Changed(name) {
			continue
		}
		if err := flags.Set(name, value); err != nil {
			flag := flags.Lookup(name)
			var invalid *pflag.InvalidValueError
			if errors.As(err, &invalid) {
				err = invalid.Unwrap()
			}
			return usagef("%w", badValue(where, flag, value, err))
		}
	}
	return nil
}

// readSettings reads the file at path, if there is one, as text by setting.
func readSettings(path string, known map[string]bool) (map[string]string, error) {
	values := map[string]string{}
	if path == "" {
		return values, nil
	}
	layer := koanf.New(".")
	err := layer.Load(file.Provider(path), yaml.Parser())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil, &usageError{fmt.Errorf("read the settings: %w", err), "Check --config and CONCORD_CONFIG: the path, and the right to read it."}
	case err != nil:
		return nil, &usageError{fmt.Errorf("read the settings file %s: %w", path, err), "It is YAML, a setting a line, as in 'client-addr: 127.0.0.1:2379'."}
	}
	for _, key := range layer.Keys() {
		if !known[key] {
			return nil, unknownSetting(fmt.Sprintf("the settings file %s has the unknown setting %q", path, key), key, known)
		}
		if values[key] = strings.Join(layer.Strings(key), ","); values[key] == "" {
			values[key] = layer.String(key)
		}
	}
	return values, nil
}

// unknownSetting names the known setting that comes nearest.
func unknownSetting(what, name string, known map[string]bool) error {
	plain := func(s string) string { return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s)) }
	hint := "See 'concord serve --help': each flag is a setting by its name."
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if plain(k) == plain(name) {
			hint = "It is written " + k + ", and " + envName(k) + " in the environment."
		}
	}
	return &usageError{errors.New(what), hint}
}

// otherVariables are those of other commands, and what orchestrators set for a
// service that is called concord. Source of the latter: kubernetes.io, "Service",
// environment variables.
var otherVariables = []string{
	`CONCORD_(CONFIG|ENDPOINTS|USER|PASSWORD|TOKEN|TOKEN_FILE|SECRET|CLIENT_TLS_[A-Z_]+)`,
	`CONCORD_([A-Z0-9_]+_)?SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?`,
	`CONCORD_([A-Z0-9_]+_)?PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?`,
}

// checkEnv refuses a variable that looks like a setting and is none: a typing
// error would start a member with a default instead.
func checkEnv(environ []string, known map[string]bool) error {
	others := regexp.MustCompile("^(" + strings.Join(otherVariables, "|") + ")$")
	vars := map[string]bool{}
	for name := range known {
		vars[envName(name)] = true
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "CONCORD_") || value == "" || vars[name] || others.MatchString(name) {
			continue
		}
		return unknownSetting("the environment has "+name+", which is no setting", strings.TrimPrefix(name, "CONCORD_"), known)
	}
	return nil
}
