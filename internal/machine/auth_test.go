package machine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
)

// as marks a command as a user's who has just proved who it is; nobody for "".
func (d *driver) as(user string, command []byte) []byte {
	return AppendCaller(command, 0, &kv.Caller{User: user, AuthRevision: d.Access().Revision()})
}

// auth makes changes that must succeed.
func (d *driver) auth(changes ...auth.Change) {
	d.Helper()
	for i := range changes {
		if err, failed := d.apply(EncodeAuth(nil, &changes[i])).(error); failed {
			d.Fatalf("change %+v: %v", changes[i], err)
		}
	}
}

func granted(access kv.Access, key, end string) auth.Change {
	return auth.Change{Op: auth.GrantPermission, Role: "r", Permission: kv.Permission{Access: access, Key: []byte(key), End: []byte(end)}}
}

// guarded is a machine with root and with u, who may read b..e and write c..f,
// and authentication on.
func guarded(t testing.TB) *driver {
	d := start(t)
	d.auth(auth.Change{Op: auth.AddUser, Name: "root", Hash: "h"}, auth.Change{Op: auth.GrantRole, Name: "root", Role: "root"},
		auth.Change{Op: auth.AddUser, Name: "u"}, auth.Change{Op: auth.AddRole, Role: "r"}, auth.Change{Op: auth.GrantRole, Name: "u", Role: "r"},
		granted(kv.ReadAccess, "b", "e"), granted(kv.WriteAccess, "c", "f"), auth.Change{Op: auth.Enable})
	return d
}

func encodeOps(ops ...kv.Op) []byte { return EncodeTxn(nil, &kv.Txn{Success: ops}) }

func putOf(key string) kv.Op { return kv.Op{Kind: kv.OpPut, Key: []byte(key)} }

func deleteOf(key, end string) kv.Op {
	return kv.Op{Kind: kv.OpDelete, Key: []byte(key), End: []byte(end)}
}

func rangeOf(key, end string) kv.Op {
	return kv.Op{Kind: kv.OpRange, Range: &kv.Range{Key: []byte(key), End: []byte(end)}}
}

func withPrev(op kv.Op) kv.Op {
	op.PrevKV = true
	return op
}

func withLease(op kv.Op, id kv.LeaseID) kv.Op {
	op.Lease = id
	return op
}

func nested(t kv.Txn) kv.Op { return kv.Op{Kind: kv.OpTxn, Txn: &t} }

// leased makes two leases and keys: 7 has one of others, 8 one of u.
func (d *driver) leased() *driver {
	d.apply(EncodeGrant(nil, 7, time.Hour))
	d.apply(EncodeGrant(nil, 8, time.Hour))
	d.apply(encodeOps(withLease(putOf("a"), 7), withLease(putOf("c"), 8), putOf("x")))
	return d
}

// ofU is a command, and what u gets for it.
type ofU struct {
	command []byte
	want    error
}

// commandsOfU are commands of each kind.
func commandsOfU(authRevision uint64) map[string]ofU {
	yes, no := error(nil), error(kv.ErrPermissionDenied)
	never := []kv.Compare{{Key: []byte("c"), Target: kv.CompareVersion, Number: 99}}
	return map[string]ofU{
		"put":                            {encodeOps(putOf("c")), yes},
		"put to read":                    {encodeOps(putOf("b")), no},
		"put and show":                   {encodeOps(withPrev(putOf("d"))), yes},
		"put and show what is hidden":    {encodeOps(withPrev(putOf("e"))), no},
		"put with own lease":             {encodeOps(withLease(putOf("c"), 8)), yes},
		"put with others' lease":         {encodeOps(withLease(putOf("c"), 7)), no},
		"put with no lease":              {encodeOps(withLease(putOf("c"), 9)), kv.ErrLeaseNotFound},
		"delete":                         {encodeOps(deleteOf("c", "f")), yes},
		"delete too much":                {encodeOps(deleteOf("c", "f\x00")), no},
		"delete from key on":             {encodeOps(deleteOf("c", "\x00")), no},
		"delete and show":                {encodeOps(withPrev(deleteOf("c", "e"))), yes},
		"delete and show what is hid":    {encodeOps(withPrev(deleteOf("c", "f"))), no},
		"range":                          {encodeOps(putOf("c"), rangeOf("b", "e")), yes},
		"range too far":                  {encodeOps(putOf("c"), rangeOf("b", "f")), no},
		"branch not taken":               {EncodeTxn(nil, &kv.Txn{Success: []kv.Op{putOf("c")}, Failure: []kv.Op{putOf("a")}}), no},
		"branch not taken, other way":    {EncodeTxn(nil, &kv.Txn{Compare: never, Success: []kv.Op{putOf("a")}, Failure: []kv.Op{putOf("c")}}), no},
		"nested":                         {encodeOps(nested(kv.Txn{Success: []kv.Op{putOf("c")}})), yes},
		"nested put":                     {encodeOps(nested(kv.Txn{Success: []kv.Op{nested(kv.Txn{Failure: []kv.Op{putOf("a")}})}})), no},
		"nested lease":                   {encodeOps(nested(kv.Txn{Success: []kv.Op{withLease(putOf("c"), 7)}})), no},
		"compare":                        {EncodeTxn(nil, &kv.Txn{Compare: []kv.Compare{{Key: []byte("a")}}, Success: []kv.Op{putOf("c")}}), no},
		"nested compare":                 {encodeOps(nested(kv.Txn{Compare: []kv.Compare{{Key: []byte("b"), End: []byte{0}}}, Success: []kv.Op{putOf("c")}})), no},
		"with a request id":              {EncodeTxn(nil, &kv.Txn{ID: kv.RequestID{Seq: 1}, Success: []kv.Op{putOf("a")}}), no},
		"upload":                         {EncodeUploadTxn(nil, &kv.Txn{Success: []kv.Op{putOf("a")}}, UploadID{}, 1), no},
		"piece":                          {EncodePiece(nil, Piece{Upload: UploadID{1}, Total: 2}, []byte("x")), yes},
		"grant":                          {EncodeGrant(nil, 20, time.Hour), yes},
		"keep alive":                     {EncodeKeepAlive(nil, 8), yes},
		"keep others' alive":             {EncodeKeepAlive(nil, 7), no},
		"revoke others'":                 {EncodeRevoke(nil, 7), no},
		"revoke nothing":                 {EncodeRevoke(nil, 99), kv.ErrLeaseNotFound},
		"compact":                        {EncodeCompact(nil, 1), no},
		"settings":                       {EncodeSettings(nil, SettingsChange{}), no},
		"expire":                         {EncodeExpire(nil, 1, nil, nil), no},
		"update member":                  {EncodeUpdateMember(nil, kv.Member{ID: 1}), no},
		"alarm":                          {EncodeAlarm(nil, kv.Alarm{}, true), no},
		"downgrade":                      {EncodeDowngrade(nil, "1"), no},
		"disable":                        {EncodeAuth(nil, &auth.Change{Op: auth.Disable}), no},
		"make a token":                   {EncodeToken(nil, &kv.Token{Caller: kv.Caller{User: "root", AuthRevision: authRevision}, TTL: time.Hour}), no},
		"revoke a token":                 {EncodeRevokeToken(nil, kv.TokenID{}), no},
		"of two leases one is another's": {EncodeKeepAlive(nil, 8, 7), yes},
	}
}

// The rights that commands need, as etcd has them.
func TestCommandsNeedRights(t *testing.T) {
	d := guarded(t).leased()
	for name, c := range commandsOfU(d.Access().Revision()) {
		before := d.header().Revision
		for _, who := range []struct {
			name string
			want error
		}{{"", kv.ErrUserEmpty}, {"u", c.want}} {
			result := d.apply(d.as(who.name, slices.Clone(c.command)))
			err, _ := result.(error)
			if !errors.Is(err, who.want) || (err == nil) != (who.want == nil) {
				t.Errorf("%s of %q: %v, want %v", name, who.name, err, who.want)
			}
			if err != nil && d.header().Revision != before {
				t.Errorf("%s of %q was refused, and changed something", name, who.name)
			}
			if alive, ok := result.([]kv.LeaseResult); ok && (alive[0].TTL == 0 || alive[1].TTL != 0) {
				t.Errorf("of two leases, the caller's own and another's, were renewed: %+v", alive)
			}
		}
		if err, _ := d.apply(d.as("root", slices.Clone(c.command))).(error); errors.Is(err, kv.ErrPermissionDenied) {
			t.Errorf("%s of root: %v", name, err)
		}
		d = guarded(t).leased() // root may have changed much
	}
}

// Who may not change the members changes neither table nor configuration.
func TestMembersNeedRights(t *testing.T) {
	d := guarded(t)
	change := MemberChange{AddMember, kv.Member{ID: 2, Name: "two", Learner: true}}
	named := func(user string) *kv.Caller { return &kv.Caller{User: user, AuthRevision: d.Access().Revision()} }
	made := d.bearer("root")
	made.Token++
	for _, c := range []struct {
		caller *kv.Caller
		want   error
	}{
		{named(""), kv.ErrUserEmpty}, {named("u"), kv.ErrPermissionDenied}, {named("mallory"), kv.ErrUserNotFound}, {named("root"), nil},
		{d.bearer("u"), kv.ErrPermissionDenied}, {d.bearer("root"), nil}, {made, kv.ErrInvalidAuthToken},
	} {
		want := c.want
		d.index++
		result := d.ApplyMembers(d.at(), AppendMembersCaller(EncodeMembers(nil, change), c.caller))
		if err, _ := result.(error); !errors.Is(err, want) || (err == nil) != (want == nil) || len(d.Members()) == 2 != (err == nil) {
			t.Errorf("%+v adds a member: %v, want %v; members %v", *c.caller, err, want, d.Members())
		}
		if want == nil {
			d.change(MemberChange{RemoveMember, kv.Member{ID: change.Member.ID}})
			change.Member.ID++ // an id is never used again
		}
	}
	for _, flags := range []byte{0, 9, 16, 16 | isAnonymous} {
		d.index++
		r := recovered(func() { d.ApplyMembers(d.at(), append(EncodeMembers(nil, change), flags)) })
		if _, ok := r.(*CommandError); !ok {
			t.Errorf("flags %d behind a change: %v", flags, r)
		}
	}
}

// A view shows what the caller may see, at the rights of the same moment.
func TestViewsNeedRights(t *testing.T) {
	d := guarded(t)
	d.apply(EncodeGrant(nil, 7, time.Hour))
	d.apply(EncodeGrant(nil, 8, time.Hour))
	d.apply(encodeOps(withLease(putOf("a"), 7), withLease(putOf("c"), 8)))
	see := func(user string) map[string]error {
		v := d.ViewAs(&kv.Caller{User: user, AuthRevision: d.Access().Revision()})
		defer v.Close()
		out := map[string]error{}
		_, out["range"] = v.Range(&kv.Range{Key: []byte("b"), End: []byte("e")})
		_, out["range too far"] = v.Range(&kv.Range{Key: []byte("b"), End: []byte{0}})
		_, out["txn"] = v.Txn(&kv.Txn{Compare: []kv.Compare{{Key: []byte("c")}}, Success: []kv.Op{rangeOf("b", "e")}})
		_, out["txn too far"] = v.Txn(&kv.Txn{Failure: []kv.Op{nested(kv.Txn{Success: []kv.Op{rangeOf("e", "")}})}})
		_, out["lease"] = v.TimeToLive(7, false)
		_, out["keys of own lease"] = v.TimeToLive(8, true)
		_, out["keys of others' lease"] = v.TimeToLive(7, true)
		_, out["leases"] = v.Leases()
		out["watch"] = v.Changes(1, v.Header().Revision, &kv.WatchRequest{Key: []byte("b")}, func(kv.Revision, kv.Event) bool { return true })
		out["watch too far"] = v.Changes(1, v.Header().Revision, &kv.WatchRequest{Key: []byte("a"), End: []byte("c")}, func(kv.Revision, kv.Event) bool { return true })
		return out
	}
	refused := []string{"range too far", "txn too far", "keys of others' lease", "leases", "watch too far"}
	for what, err := range see("u") {
		if want := slices.Contains(refused, what); errors.Is(err, kv.ErrPermissionDenied) != want || (err != nil) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range see("") {
		if !errors.Is(err, kv.ErrUserEmpty) {
			t.Errorf("%s of nobody: %v", what, err)
		}
	}
	for what, err := range see("root") {
		if err != nil {
			t.Errorf("%s of root: %v", what, err)
		}
	}
	v := d.ViewAs(&kv.Caller{User: "u", AuthRevision: d.Access().Revision()})
	defer v.Close()
	d.auth(auth.Change{Op: auth.AddRole, Role: "another"})
	if _, err := v.TimeToLive(8, true); !errors.Is(err, kv.ErrAuthOldRevision) {
		t.Errorf("leases that are newer than the rights: %v", err)
	}
	if _, err := v.Range(&kv.Range{Key: []byte("b")}); err != nil {
		t.Errorf("keys of the moment of the rights: %v", err)
	}
}

// operator says, key by key, what a user may do, and lists what a transaction
// needs; it knows nothing of intervals.
type operator struct {
	permissions []kv.Permission
	keysOf      func(kv.LeaseID) [][]byte
}

func (o *operator) may(a kv.Access, key, end []byte) bool {
	points := [][]byte{key, []byte("\xff\xff")}
	for i := range 30 {
		k := fmt.Appendf(nil, "k%02d", i)
		points = append(points, k, append(slices.Clone(k), 0))
	}
	for _, point := range points {
		if !bytes.Equal(point, key) && !kv.InRange(point, key, end) {
			continue
		}
		if !slices.ContainsFunc(o.permissions, func(p kv.Permission) bool {
			return (p.Access == a || p.Access == kv.ReadWriteAccess) && kv.InRange(point, p.Key, p.End)
		}) {
			return false
		}
	}
	return true
}

func (o *operator) mayTxn(t *kv.Txn) bool {
	may := true
	for _, c := range t.Compare {
		may = may && o.may(kv.ReadAccess, c.Key, c.End)
	}
	for _, op := range slices.Concat(t.Success, t.Failure) {
		switch op.Kind {
		case kv.OpTxn:
			may = may && o.mayTxn(op.Txn)
		case kv.OpRange:
			may = may && o.may(kv.ReadAccess, op.Range.Key, op.Range.End)
		default:
			may = may && o.may(kv.WriteAccess, op.Key, op.End) && (!op.PrevKV || o.may(kv.ReadAccess, op.Key, op.End))
			for _, key := range o.keysOf(op.Lease) {
				may = may && o.may(kv.WriteAccess, key, nil)
			}
		}
	}
	return may
}

// Random transactions of a user with random permissions: what is allowed does
// what it does without authentication, and touches no key that the user may not
// touch; what is not changes nothing.
func TestTransactionsNeedRights(t *testing.T) {
	allowed, refused := 0, 0
	for seed := range uint64(60) {
		c := newChance(700 + seed)
		d, twin := start(t), start(t)
		d.auth(auth.Change{Op: auth.AddUser, Name: "root"}, auth.Change{Op: auth.GrantRole, Name: "root", Role: "root"},
			auth.Change{Op: auth.AddUser, Name: "u"}, auth.Change{Op: auth.AddRole, Role: "r"}, auth.Change{Op: auth.GrantRole, Name: "u", Role: "r"})
		o := &operator{keysOf: func(id kv.LeaseID) [][]byte {
			v := twin.View()
			defer v.Close()
			l, _ := v.TimeToLive(id, true)
			return l.Keys
		}}
		for range 1 + c.IntN(12) {
			p := kv.Permission{Access: kv.Access(c.IntN(3)), Key: c.key(), End: c.end()}
			if r, failed := d.apply(EncodeAuth(nil, &auth.Change{Op: auth.GrantPermission, Role: "r", Permission: p})).(error); !failed {
				role, _ := d.Access().Role("r")
				o.permissions = role.Permissions
			} else if !errors.Is(r, kv.ErrInvalidAuthManagement) {
				t.Fatal(r)
			}
		}
		d.auth(auth.Change{Op: auth.Enable})
		for _, m := range []*driver{d, twin} {
			m.apply(EncodeGrant(nil, 2, time.Hour))
			m.apply(EncodeGrant(nil, 3, time.Hour))
		}
		for range 60 {
			txn := c.valid()
			if c.IntN(2) == 0 { // of whoever may do everything
				d.apply(d.as("root", EncodeTxn(nil, &txn)))
				twin.apply(EncodeTxn(nil, &txn))
				continue
			}
			may, before := o.mayTxn(&txn), d.header()
			got := d.apply(d.as("u", EncodeTxn(nil, &txn)))
			if err, _ := got.(error); errors.Is(err, kv.ErrPermissionDenied) == may {
				t.Fatalf("seed %d: may %v, got %v: %+v\nwith %v", seed, may, got, txn, o.permissions)
			}
			if !may {
				if refused++; d.header() != before {
					t.Fatalf("seed %d: refused, and changed something", seed)
				}
				continue
			}
			allowed++
			if diff := sameResult(errorText([]any{twin.apply(EncodeTxn(nil, &txn))}), errorText([]any{got})); diff != "" {
				t.Fatalf("seed %d: with and without authentication:\n%s", seed, diff)
			}
			o.checkChanges(t, d, before.Revision)
		}
	}
	if allowed < 100 || refused < 100 {
		t.Errorf("%d transactions were allowed and %d refused: too few to say something", allowed, refused)
	}
}

// checkChanges asserts that all keys that changed since then may be written.
func (o *operator) checkChanges(t *testing.T, d *driver, since kv.Revision) {
	t.Helper()
	v := d.View()
	defer v.Close()
	err := v.Changes(since+1, d.header().Revision, &kv.WatchRequest{Key: []byte{0}, End: []byte{0}}, func(_ kv.Revision, e kv.Event) bool {
		if !o.may(kv.WriteAccess, e.KV.Key, nil) {
			t.Fatalf("%q was changed", e.KV.Key)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Who waits is told when users or roles change, and not when a token does.
func TestAccessChanged(t *testing.T) {
	d := guarded(t)
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	changed := d.AccessChanged()
	token := kv.Token{Caller: kv.Caller{User: "u", AuthRevision: d.Access().Revision()}, TTL: time.Hour}
	d.apply(EncodeToken(nil, &token))
	d.apply(EncodeAuth(nil, &auth.Change{Op: auth.Enable})) // is on already
	if closed(changed) {
		t.Error("told, and nothing changed")
	}
	d.auth(auth.Change{Op: auth.AddRole, Role: "x"})
	if !closed(changed) {
		t.Error("not told of a role")
	}
	changed = d.AccessChanged()
	var b bytes.Buffer
	write, release := d.Snapshot()
	defer release()
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	if err := d.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if !closed(changed) {
		t.Error("not told of other state")
	}
}

// The running hash tells apart what only users, roles and tokens tell apart.
func TestAuthIsHashed(t *testing.T) {
	seen := map[uint64]string{}
	for name, c := range map[string][]byte{
		"user":       EncodeAuth(nil, &auth.Change{Op: auth.AddUser, Name: "x"}),
		"other user": EncodeAuth(nil, &auth.Change{Op: auth.AddUser, Name: "y"}),
		"hash":       EncodeAuth(nil, &auth.Change{Op: auth.AddUser, Name: "x", Hash: "h"}),
		"none":       EncodeAuth(nil, &auth.Change{Op: auth.AddUser, Name: "x", NoPassword: true}),
		"role":       EncodeAuth(nil, &auth.Change{Op: auth.AddRole, Role: "x"}),
		"read":       EncodeAuth(nil, &auth.Change{Op: auth.GrantPermission, Role: "r", Permission: kv.Permission{Key: []byte("a")}}),
		"write":      EncodeAuth(nil, &auth.Change{Op: auth.GrantPermission, Role: "r", Permission: kv.Permission{Access: 1, Key: []byte("a")}}),
		"refused":    EncodeAuth(nil, &auth.Change{Op: auth.DeleteUser, Name: "x"}),
		"nothing":    EncodeAuth(nil, &auth.Change{Op: auth.Enable}),
		"disable":    EncodeAuth(nil, &auth.Change{Op: auth.Disable}),
		"token":      EncodeToken(nil, &kv.Token{Caller: kv.Caller{User: "u", AuthRevision: 8}, TTL: time.Hour}),
		"longer":     EncodeToken(nil, &kv.Token{Caller: kv.Caller{User: "u", AuthRevision: 8}, TTL: 2 * time.Hour}),
	} {
		d := guarded(t)
		d.apply(c)
		_, hash := d.Hash()
		if seen[hash] != "" {
			t.Errorf("%s hashes as %s", name, seen[hash])
		}
		seen[hash] = name
	}
}

// Commands of somebody cost no memory more than the cluster's own, and those of
// nobody have no byte more.
func TestCallersCostNoMemory(t *testing.T) {
	d := guarded(t)
	plain := encodeOps(putOf("c"))
	if n := len(d.as("", slices.Clone(plain))); n != len(plain) {
		t.Errorf("a command of nobody has %d bytes, the cluster's own %d", n, len(plain))
	}
	cost := func(command []byte) float64 {
		commands, results := [][]byte{command}, make([]any, 1)
		return testing.AllocsPerRun(100, func() {
			d.index++
			d.Apply(d.at(), commands, results)
			if err, failed := results[0].(error); failed {
				t.Error(err)
			}
		})
	}
	own, users := cost(plain), cost(d.as("u", slices.Clone(plain)))
	bearer := d.bearer("u")
	bearers := cost(AppendCaller(slices.Clone(plain), 0, bearer))
	app := d.access(kv.NewAccessToken{ID: accessID(1), Roles: []string{"r"}})
	apps := cost(AppendCaller(slices.Clone(plain), 0, app))
	if users != own || bearers != own || apps != own {
		t.Errorf("a put of a user allocates %v times, with a token %v times, with an access token %v times, the cluster's own %v", users, bearers, apps, own)
	}
	caller := &kv.Caller{User: "u", AuthRevision: d.Access().Revision()}
	look := func(c *kv.Caller) float64 {
		r := &kv.Range{Key: []byte("c")}
		return testing.AllocsPerRun(100, func() {
			v := d.ViewAs(c)
			if _, err := v.Range(r); err != nil {
				t.Error(err)
			}
			v.Close()
		})
	}
	if users, bearers, apps, own := look(caller), look(bearer), look(app), look(nil); users != own || bearers != own || apps != own {
		t.Errorf("a range of a user allocates %v times, with a token %v times, with an access token %v times, the program's own %v", users, bearers, apps, own)
	}
}

// FuzzCaller applies a put with any bytes as the trailer: it is refused by name,
// or the caller is who was encoded.
func FuzzCaller(f *testing.F) {
	d := guarded(f)
	for _, user := range []string{"u", "root", "mallory"} {
		f.Add(d.as(user, encodeOps(putOf("c"))))
	}
	f.Add(AppendCaller(encodeOps(putOf("c")), 0, &kv.Caller{User: "u", Token: 1 << 60}))
	f.Add([]byte{byte(kindPut), hasCaller, 0, 0})
	f.Fuzz(func(t *testing.T, command []byte) {
		if len(command) < 2 {
			return
		}
		dec := decoder{data: command[2:]}
		c := dec.caller(command[1] & callerFlags)
		if dec.err != nil || c.name == nil || command[1]&hasToken != 0 && c.token == 0 {
			return // no token's mark is 0
		}
		again := AppendCaller([]byte{command[0], 0}, 0, &kv.Caller{User: string(c.name), AuthRevision: c.revision, Token: c.token})
		dec = decoder{data: again[2:]}
		if len(c.name) > kv.MaxAuthName {
			if again[1] != isAnonymous {
				t.Fatal("a name that is too long was kept")
			}
			return
		}
		if x := dec.caller(again[1]); dec.end() != nil || !bytes.Equal(x.name, c.name) || x.revision != c.revision || x.token != c.token {
			t.Fatalf("%+v became %+v", c, x)
		}
	})
}

// BenchmarkApplyPutAs is what a caller adds to a put.
func BenchmarkApplyPutAs(b *testing.B) {
	for _, user := range []string{"(the cluster)", "root", "u", "u with a token"} {
		b.Run("user="+user, func(b *testing.B) {
			d := guarded(b)
			command := encodeOps(kv.Op{Kind: kv.OpPut, Key: []byte("d/some/key/of/some/length"), Value: make([]byte, 256)})
			switch user {
			case "(the cluster)":
			case "u with a token":
				command = AppendCaller(command, 0, d.bearer("u"))
			default:
				command = d.as(user, command)
			}
			commands := slices.Repeat([][]byte{command}, 256)
			b.ReportAllocs()
			for n := 0; n < b.N; n += len(commands) {
				d.index++
				d.Apply(d.at(), commands, nil)
				if d.index%64 == 0 {
					d.apply(EncodeCompact(nil, d.header().Revision))
				}
				d.Maintain()
			}
		})
	}
}

// BenchmarkLookAs is what a request for a key costs, without and with a caller,
// and what it costs to find out for whom its token stands.
func BenchmarkLookAs(b *testing.B) {
	d := guarded(b)
	d.apply(encodeOps(putOf("c")))
	for i := range 1000 {
		token := kv.Token{ID: kv.TokenID{byte(i), byte(i >> 8)}, Caller: kv.Caller{User: "u", AuthRevision: d.Access().Revision()}, TTL: time.Hour}
		d.apply(EncodeToken(nil, &token))
	}
	look := func(b *testing.B, c *kv.Caller) {
		b.ReportAllocs()
		r := &kv.Range{Key: []byte("c")}
		for b.Loop() {
			v := d.ViewAs(c)
			if res, err := v.Range(r); err != nil || res.Count != 1 {
				b.Fatal(err)
			}
			v.Close()
		}
	}
	b.Run("program", func(b *testing.B) { look(b, nil) })
	b.Run("user", func(b *testing.B) { look(b, &kv.Caller{User: "u", AuthRevision: d.Access().Revision()}) })
	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, ok := d.Token(kv.TokenID{77, 2}, 0); !ok {
				b.Fatal("the token is not good")
			}
		}
	})
}

// TestPlainKey: the key of a put is known to be one whoever gave the command, as
// all from outside have a caller.
func TestPlainKey(t *testing.T) {
	for _, c := range []*kv.Caller{nil, {}, {User: "alice", AuthRevision: 1 << 20}, {User: "alice", Token: 1 << 60}} {
		for _, key := range []string{"k", strings.Repeat("k", 0x7f)} {
			if got := plainKey(AppendCaller(encodeOps(putOf(key)), 0, c)); string(got) != key {
				t.Errorf("caller %+v: %q, want %q", c, got, key)
			}
		}
		if got := plainKey(AppendCaller(encodeOps(deleteOf("k", "")), 0, c)); got != nil {
			t.Errorf("caller %+v: the key %q of a delete", c, got)
		}
	}
}
