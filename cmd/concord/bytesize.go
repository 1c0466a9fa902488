package main

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// byteSize is a number of bytes that people write with a unit. It is a flag.
type byteSize int64

var _ pflag.Value = (*byteSize)(nil)

// byteUnits are the units, the larger ones of each kind first: those of IEC
// 80000-13 for powers of 1,024, those of SI for powers of 1,000.
var byteUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

var errByteSize = errors.New("no number of bytes; write it as 67108864, 64MiB or 1GiB")

// Set implements pflag.Value.
func (s *byteSize) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			number, unit = strings.TrimRight(rest, " "), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/unit {
		return errByteSize
	}
	*s = byteSize(int64(n) * unit)
	return nil
}

// String gives the size in the largest power of 1,024 that leaves no rest.
func (s byteSize) String() string {
	for _, u := range byteUnits[:4] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Type implements pflag.Value: how the help calls the value.
func (s byteSize) Type() string { return "bytes" }
