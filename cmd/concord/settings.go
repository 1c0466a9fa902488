package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// A settings struct has a field a setting. Its tag names it everywhere:
// `set:"client-addr"` is the flag --client-addr, the key client-addr in the
// file and CONCORD_CLIENT_ADDR in the environment; `usage` is the flag's help.
// The fields' values before loading are the defaults.

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
		tag := v.Type().Field(i).Tag
		if name := tag.Get("set"); name != "" {
			visit(name, tag.Get("usage"), v.Field(i))
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
	layers := koanf.New(".")
	if path != "" {
		if err := layers.Load(file.Provider(path), yaml.Parser()); err != nil {
			return usagef("read the settings file %s: %w", path, err)
		}
	}
	known := map[string]bool{}
	env := map[string]any{}
	eachSetting(settings, func(name, _ string, _ reflect.Value) {
		known[name] = true
		if value := os.Getenv(envName(name)); value != "" {
			env[name] = value
		}
	})
	for _, key := range layers.Keys() {
		if !known[key] {
			return usagef("the settings file %s has the unknown setting %q", path, key)
		}
	}
	if err := layers.Load(confmap.Provider(env, ""), nil); err != nil {
		return fmt.Errorf("read the settings from the environment: %w", err)
	}
	for _, key := range layers.Keys() {
		if flags.Changed(key) {
			continue
		}
		value := strings.Join(layers.Strings(key), ",")
		if value == "" {
			value = layers.String(key)
		}
		if err := flags.Set(key, value); err != nil {
			return usagef("setting %s (%s in the environment): %w", key, envName(key), err)
		}
	}
	return nil
}
