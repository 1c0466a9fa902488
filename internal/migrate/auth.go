package migrate

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Directory is what knows users and roles.
type Directory interface {
	kv.Users
	kv.Roles
}

// AuthSummary tells what was done to users and roles.
type AuthSummary struct {
	Roles, Permissions, Users int64
	// NewUsers have a random password that nobody knows: passwords cannot be
	// read.
	NewUsers []string
}

// CopyAuth adds to the target the roles, permissions and users that it lacks.
// What it has besides stays, and authentication is not switched on.
func CopyAuth(ctx context.Context, from, to Directory) (sum AuthSummary, err error) {
	roles, _, err := from.AuthRoles(ctx)
	if err != nil {
		return sum, err
	}
	for _, name := range roles {
		if err := copyRole(ctx, from, to, name, &sum); err != nil {
			return sum, err
		}
	}
	users, _, err := from.Users(ctx)
	if err != nil {
		return sum, err
	}
	for _, name := range users {
		if err := copyUser(ctx, from, to, name, &sum); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func copyRole(ctx context.Context, from, to Directory, name string, sum *AuthSummary) error {
	want, _, err := from.AuthRole(ctx, name)
	if err != nil {
		return err
	}
	if _, err := to.AddRole(ctx, name); err != nil && !errors.Is(err, kv.ErrRoleExists) {
		return err
	}
	sum.Roles++
	if name == kv.RootName {
		return nil // it may do everything as it is
	}
	have, _, err := to.AuthRole(ctx, name)
	if err != nil {
		return err
	}
	for _, p := range want.Permissions {
		if slices.ContainsFunc(have.Permissions, func(q kv.Permission) bool {
			return p.Access == q.Access && bytes.Equal(p.Key, q.Key) && bytes.Equal(p.End, q.End)
		}) {
			continue
		}
		if _, err := to.GrantPermission(ctx, name, p); err != nil {
			return err
		}
		sum.Permissions++
	}
	return nil
}

func copyUser(ctx context.Context, from, to Directory, name string, sum *AuthSummary) error {
	want, _, err := from.User(ctx, name)
	if err != nil {
		return err
	}
	_, err = to.AddUser(ctx, kv.NewUser{Name: name, Password: rand.Text()})
	switch {
	case err == nil:
		sum.NewUsers = append(sum.NewUsers, name)
	case !errors.Is(err, kv.ErrUserExists):
		return err
	}
	sum.Users++
	for _, role := range want.Roles {
		if _, err := to.GrantRole(ctx, name, role); err != nil {
			return err
		}
	}
	return nil
}
