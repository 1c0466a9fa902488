package machine

import (
	"reflect"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

func TestWorkOf(t *testing.T) {
	for _, test := range []struct {
		kind    string
		command []byte
		want    Work
		ok      bool
	}{
		{"lease grant", EncodeGrant(nil, 7, time.Minute), Work{Granted: []kv.LeaseID{7}, TTL: time.Minute}, true},
		{"lease keep-alive", EncodeKeepAlive(nil, 7, 8), Work{Renewed: []kv.LeaseID{7, 8}}, true},
		{"lease revoke", EncodeRevoke(nil, 7), Work{Revoked: []kv.LeaseID{7}}, true},
		{"compact", EncodeCompact(nil, 9), Work{Compact: 9}, true},
		{"expire", EncodeExpire(nil, 3, []ExpiredLease{{ID: 7}, {ID: 9}}, []ExpiredKey{{Key: []byte("k"), Mod: 4}}), Work{Expired: []kv.LeaseID{7, 9}, Keys: 1}, true},
		{"member update", EncodeUpdateMember(nil, kv.Member{ID: 5}), Work{Members: []MemberChange{{Op: UpdateMember, Member: kv.Member{ID: 5}}}}, true},
		{"put", EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("k")}}}), Work{}, false},
		{"unknown", nil, Work{}, false},
		{"unknown", []byte{255, 0}, Work{}, false},
	} {
		caller := &kv.Caller{User: "alice"}
		commands := [][]byte{test.command}
		if test.kind != "unknown" {
			commands = append(commands, AppendCaller(test.command[:len(test.command):len(test.command)], 0, caller))
		}
		for _, command := range commands {
			got, ok := WorkOf(command)
			if !reflect.DeepEqual(got, test.want) || ok != test.ok {
				t.Errorf("%s: got %+v, %t", test.kind, got, ok)
			}
			if name := KindName(command); name != test.kind {
				t.Errorf("%s is named %s", test.kind, name)
			}
		}
	}
}

func TestEveryKindHasAName(t *testing.T) {
	for k, level := range kindLevels {
		if (level > 0) != (kindNames[k] != "") {
			t.Errorf("kind %d of level %d is named %q", k, level, kindNames[k])
		}
	}
}

func FuzzWorkOf(f *testing.F) {
	f.Add(EncodeKeepAlive(nil, 7, 8))
	f.Add(EncodeExpire(nil, 3, []ExpiredLease{{ID: 7}}, nil))
	f.Fuzz(func(t *testing.T, command []byte) {
		if w, ok := WorkOf(command); ok && w.Keys+len(w.Expired)+len(w.Renewed) > len(command) {
			t.Errorf("%d bytes name more than they can: %+v", len(command), w)
		}
		if changes := MemberChangesOf(command); len(changes) > len(command) {
			t.Errorf("%d bytes have %d changes", len(command), len(changes))
		}
	})
}
