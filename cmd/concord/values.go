package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/concord-kv/concord/kv"
)

// natural is a flag that takes no negative number.
type natural int64

var _ pflag.Value = (*natural)(nil)

var errNatural = errors.New("no number from 0 up; write it as 17")

// Set implements pflag.Value.
func (n *natural) Set(text string) error {
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || number < 0 {
		return errNatural
	}
	*n = natural(number)
	return nil
}

// String implements pflag.Value.
func (n natural) String() string { return strconv.FormatInt(int64(n), 10) }

// Type implements pflag.Value: how the help calls the value.
func (n natural) Type() string { return "number" }

// condition is a flag with a revision, of which 0 is one too: that of a key that
// is not there.
type condition struct {
	given    bool
	revision natural
}

var _ pflag.Value = (*condition)(nil)

// Set implements pflag.Value.
func (c *condition) Set(text string) error {
	if err := c.revision.Set(text); err != nil {
		return err
	}
	c.given = true
	return nil
}

// String implements pflag.Value.
func (c condition) String() string {
	if !c.given {
		return ""
	}
	return c.revision.String()
}

// Type implements pflag.Value.
func (c condition) Type() string { return "revision" }

// ttl is a flag with a time to live; 0 means for ever.
type ttl time.Duration

var _ pflag.Value = (*ttl)(nil)

// Set implements pflag.Value.
func (t *ttl) Set(text string) error {
	if text == "0" {
		*t = 0
		return nil
	}
	d, err := parseTTL(text)
	*t = ttl(d)
	return err
}

// String implements pflag.Value.
func (t ttl) String() string {
	if t == 0 {
		return "" // so that the help names no default
	}
	return time.Duration(t).String()
}

// Type implements pflag.Value.
func (t ttl) Type() string { return "duration" }

// leaseID is a flag with the id of a lease, as it is printed; 0 means none.
type leaseID kv.LeaseID

var _ pflag.Value = (*leaseID)(nil)

var errLeaseID = errors.New("no lease id; give it in hexadecimal, as 'concord lease grant' prints it")

// Set implements pflag.Value.
func (l *leaseID) Set(text string) error {
	id, err := strconv.ParseInt(text, 16, 64)
	if err != nil || id <= 0 {
		return errLeaseID
	}
	*l = leaseID(id)
	return nil
}

// String implements pflag.Value.
func (l leaseID) String() string {
	if l == 0 {
		return "" // so that the help names no default
	}
	return kv.LeaseID(l).String()
}

// Type implements pflag.Value.
func (l leaseID) Type() string { return "id" }

// parseLease reads a lease id that is no flag.
func parseLease(text string) (kv.LeaseID, error) {
	var id leaseID
	if err := id.Set(text); err != nil {
		return 0, usagef("%q is %w", text, err)
	}
	return kv.LeaseID(id), nil
}

// checkName refuses what is no name of a member.
func checkName(name string) error {
	if name == "" || strings.ContainsAny(name, "/\\=,\x00") || name == "." || name == ".." {
		return usagef("--name %q is no name; use letters, digits and dashes", name)
	}
	return nil
}

var errTTL = errors.New("no time to live; write it as 30s or 5m, from 1ms up to 9223372036s")

// parseTTL reads a duration, or whole seconds, as etcdctl takes them.
func parseTTL(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < time.Millisecond || d > kv.MaxTTL || strings.HasPrefix(text, "+") {
		return 0, errTTL
	}
	return d, nil
}
