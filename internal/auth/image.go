package auth

import (
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Image lists everything, the hashes of passwords too.
func (t *Tables) Image() kv.AuthImage {
	img := kv.AuthImage{Enabled: t.enabled, Revision: t.revision}
	for _, u := range t.users {
		user := kv.User{Name: u.name, NoPassword: u.noPassword, Roles: slices.Clone(u.roles)}
		img.Users = append(img.Users, kv.UserImage{User: user, Hash: u.hash})
	}
	for _, r := range t.roles {
		img.Roles = append(img.Roles, kv.AuthRole{Name: r.name, Permissions: slices.Clone(r.permissions)})
	}
	return img
}
