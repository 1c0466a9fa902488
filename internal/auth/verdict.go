package auth

import (
	"cmp"
	"slices"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Can answers a question. Its header is zero.
func (t *Tables) Can(q *kv.Question) kv.Verdict {
	u := t.find([]byte(q.User))
	var own []kv.Permission
	if q.User == "" {
		u = nil
		if a := t.accessOf(q.Token); a != nil {
			u, own = a.user, a.own
		}
	}
	switch {
	case !t.enabled:
		return kv.Verdict{Allowed: true, Because: kv.BecauseOff}
	case u == nil:
		return kv.Verdict{Because: kv.BecauseUnknown}
	case u.grants.root:
		return kv.Verdict{Allowed: true, Because: kv.BecauseRoot}
	}
	v := kv.Verdict{Because: kv.BecauseOfRules}
	for _, access := range [...]kv.Access{kv.ReadAccess, kv.WriteAccess} {
		if q.Access != access && q.Access != kv.ReadWriteAccess {
			continue
		}
		rules, missing, allowed := cover(t.rulesOf(u, own, access), q.Key, q.End)
		if !allowed {
			return kv.Verdict{Because: kv.BecauseNoRule, Missing: missing, MissingAccess: access}
		}
		for _, r := range rules {
			if !slices.ContainsFunc(v.Rules, func(other kv.Rule) bool { return other.Role == r.Role && sameRange(&other.Permission, &r.Permission) }) {
				v.Rules = append(v.Rules, r)
			}
		}
	}
	v.Allowed = true
	return v
}

// rulesOf lists what gives a user or token that access, by the first key.
func (t *Tables) rulesOf(u *user, own []kv.Permission, access kv.Access) (rules []kv.Rule) {
	add := func(role string, list []kv.Permission) {
		for _, p := range list {
			if p.Access == access || p.Access == kv.ReadWriteAccess {
				rules = append(rules, kv.Rule{Role: role, Permission: clonePermission(p)})
			}
		}
	}
	add("", own)
	for _, name := range u.roles {
		if r := t.role(name); r != nil {
			add(name, r.permissions)
		}
	}
	slices.SortStableFunc(rules, func(a, b kv.Rule) int { return cmp.Compare(string(a.Key), string(b.Key)) })
	return rules
}

// cover picks rules that together cover all keys that key and end select, each
// time the one that reaches furthest, or returns the first key that none covers.
func cover(rules []kv.Rule, key, end []byte) (picked []kv.Rule, missing []byte, allowed bool) {
	asked := interval{string(key), string(end)}
	switch {
	case kv.FromKey(end):
		asked.end = ""
	case len(end) == 0 || string(end) <= string(key): // as covers takes it
		asked.end = string(key) + "\x00"
	}
	for at := asked.begin; ; {
		best, reach := -1, at
		for i := range rules {
			r := intervalOf(&rules[i].Permission)
			if r.begin <= at && (r.end == "" || r.end > reach) {
				if best, reach = i, r.end; reach == "" {
					break
				}
			}
		}
		if best < 0 {
			return nil, []byte(at), false
		}
		picked = append(picked, rules[best])
		if reach == "" || asked.end != "" && reach >= asked.end {
			return picked, nil, true
		}
		at = reach
	}
}

// Hour is the time in hours since 1970.
func Hour(t time.Time) int64 { return t.Unix() / 3600 }

func fromHour(hour int64) time.Time { return time.Unix(hour*3600, 0) }
