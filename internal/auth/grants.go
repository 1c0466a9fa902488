package auth

import (
	"cmp"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// grants is what a user or access token may do.
type grants struct {
	root        bool
	rights      uint8 // a bit for each kv.Right that is not about keys
	read, write []interval
}

// interval holds the keys from begin up to end, which is empty where there is
// no end.
type interval struct{ begin, end string }

// intervalOf gives the keys of a permission.
func intervalOf(p *kv.Permission) interval {
	switch begin := string(p.Key); {
	case len(p.End) == 0:
		return interval{begin, begin + "\x00"}
	case kv.FromKey(p.End):
		return interval{begin, ""}
	default:
		return interval{begin, string(p.End)}
	}
}

// merge adds up what the roles and own permissions allow. Roles that do not
// exist allow nothing, but root allows everything, and those with a meaning have
// it.
func (t *Tables) merge(roles []string, own []kv.Permission) *grants {
	g := &grants{}
	g.add(own)
	for _, name := range roles {
		if name == kv.RootName {
			return &grants{root: true}
		}
		if right, ok := builtIn[name]; ok {
			g.rights |= 1 << right
		}
		if r := t.role(name); r != nil {
			g.add(r.permissions)
		}
	}
	g.read, g.write = mergeIntervals(g.read), mergeIntervals(g.write)
	return g
}

func (g *grants) add(list []kv.Permission) {
	for i := range list {
		p := &list[i]
		if p.Access != kv.WriteAccess {
			g.read = append(g.read, intervalOf(p))
		}
		if p.Access != kv.ReadAccess {
			g.write = append(g.write, intervalOf(p))
		}
	}
}

// shared finds grants by roles, so that users with the same roles share them.
type shared map[string]*grants

func (s shared) merge(t *Tables, roles []string) *grants {
	var key []byte
	for _, name := range roles {
		key = appendString(key, name) // names may have any byte in them
	}
	if s[string(key)] == nil {
		s[string(key)] = t.merge(roles, nil)
	}
	return s[string(key)]
}

// mergeIntervals sorts the list and joins what overlaps or touches.
func mergeIntervals(list []interval) []interval {
	slices.SortFunc(list, func(a, b interval) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) })
	merged := list[:0]
	for _, next := range list {
		last := len(merged) - 1
		if last < 0 || merged[last].end != "" && merged[last].end < next.begin {
			merged = append(merged, next)
			continue
		}
		if end := &merged[last].end; next.end == "" || *end != "" && *end < next.end {
			*end = next.end
		}
	}
	return slices.Clip(merged)
}

// covers tells whether all keys that key and end select are in the list. A range
// without keys is taken for its key.
func covers(list []interval, key, end []byte) bool {
	low, high := 0, len(list) // the first that begins after key
	for low < high {
		mid := int(uint(low+high) >> 1)
		if list[mid].begin <= string(key) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == 0 {
		return false
	}
	switch last := list[low-1].end; {
	case last == "":
		return true
	case last <= string(key):
		return false
	case len(end) == 0:
		return true
	default:
		return !kv.FromKey(end) && string(end) <= last
	}
}
