package etcdfile

import (
	"encoding/binary"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/kv"
)

// auth writes users and roles. Etcd knows bcrypt only: users with another hash
// cannot log in until their password is set again, and where root is one of
// them authentication is off in the file, so that somebody can.
func (w *writer) auth() {
	img := &w.img.Auth
	enabled := []byte{0}
	for i := range img.Users {
		u := &img.Users[i]
		hash := u.Hash
		if !strings.HasPrefix(hash, "$2") {
			hash = ""
		}
		if u.Name == kv.RootName && img.Enabled && hash != "" {
			enabled[0] = 1
		}
		w.message(bucketUsers, u.Name, &authpb.User{
			Name: []byte(u.Name), Password: []byte(hash), Roles: u.Roles, Options: &authpb.UserAddOptions{NoPassword: u.NoPassword},
		})
	}
	for i := range img.Roles {
		r := &img.Roles[i]
		role := &authpb.Role{Name: []byte(r.Name)}
		for _, p := range r.Permissions {
			if r.Name != kv.RootName { // which may do everything by its name
				role.KeyPermission = append(role.KeyPermission, &authpb.Permission{
					PermType: authpb.Permission_Type(p.Access), Key: p.Key, RangeEnd: p.End,
				})
			}
		}
		w.message(bucketRoles, r.Name, role)
	}
	w.set(bucketAuth, "authEnabled", enabled)
	w.set(bucketAuth, "authRevision", binary.BigEndian.AppendUint64(nil, max(1, img.Revision)))
}

func (w *writer) message(bucket, key string, m proto.Message) {
	value, err := proto.Marshal(m)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.set(bucket, key, value)
}
