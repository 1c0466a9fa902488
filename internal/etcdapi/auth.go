package etcdapi

import (
	"cmp"
	"context"
	"errors"
	"math"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concord-kv/concord/kv"
)

// authServer is the service etcdserverpb.Auth. Of a store that is no
// [kv.Authority] it says that authentication is off.
type authServer struct {
	*API
	pb.UnsafeAuthServer
}

// AuthStatus says whether authentication is on, and at which revision.
func (s *authServer) AuthStatus(ctx context.Context, r *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	st := kv.AuthStatus{Header: s.now(), Revision: 1}
	if s.authority == nil {
		x, err := extensionsOf(r)
		return &pb.AuthStatusResponse{Header: s.header(st.Header, x), AuthRevision: st.Revision}, err
	}
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (_ kv.Header, err error) {
		st, err = a.AuthStatus(ctx)
		return st.Header, err
	})
	return &pb.AuthStatusResponse{Header: h, Enabled: st.Enabled, AuthRevision: st.Revision}, err
}

// Authenticate gives who knows a password a token. Whoever does not, learns
// nothing about the users that there are.
func (s *authServer) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if s.authority == nil {
		return nil, rpctypes.ErrGRPCAuthNotEnabled
	}
	if id, err := kv.ParseSecretToken(r.Password); err == nil {
		h, err := s.accessToken(ctx, id)
		if err != nil {
			return nil, toStatus(err)
		}
		return &pb.AuthenticateResponse{Header: s.header(h, x), Token: r.Password}, nil
	}
	done, err := s.opts.Callers.Attempt(ctx, r.Name)
	if err != nil {
		return nil, toStatus(err)
	}
	for {
		rev, err := s.authority.CheckPassword(ctx, r.Name, r.Password)
		done(!errors.Is(err, kv.ErrAuthFailed))
		if errors.Is(err, kv.ErrAuthFailed) {
			return nil, rpctypes.ErrGRPCAuthFailed
		}
		if err != nil {
			return nil, toStatus(err)
		}
		token, h, err := s.issueToken(ctx, kv.Caller{User: r.Name, AuthRevision: rev})
		switch {
		case errors.Is(err, kv.ErrAuthOldRevision): // users changed meanwhile
		case err != nil:
			return nil, toStatus(err)
		default:
			return &pb.AuthenticateResponse{Header: s.header(h, x), Token: token}, nil
		}
	}
}

// accessToken returns nil when an access token is good, that somebody has given
// for a password: a client that knows nothing but names and passwords can use one
// so, under any name.
func (s *authServer) accessToken(ctx context.Context, id kv.TokenID) (kv.Header, error) {
	st, err := s.authority.AuthStatus(kv.WithoutCaller(ctx))
	switch {
	case err != nil:
		return kv.Header{}, err
	case !st.Enabled:
		return kv.Header{}, kv.ErrAuthNotEnabled
	}
	_, err = s.authority.TokenCaller(ctx, id)
	if errors.Is(err, kv.ErrInvalidAuthToken) {
		err = &kv.Error{Code: kv.Unauthenticated, Message: "authentication failed: the access token that was given as the password is unknown, revoked or has expired", Err: kv.ErrAuthFailed}
	}
	return st.Header, err
}

// change makes a change in the name of whoever calls, or asks in that name.
func (s *authServer) change(ctx context.Context, r protoreflect.ProtoMessage, do func(context.Context, kv.Authority) (kv.Header, error)) (*pb.ResponseHeader, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if s.authority == nil {
		return nil, rpctypes.ErrGRPCNotCapable
	}
	if ctx, err = s.identify(ctx); err != nil {
		return nil, toStatus(err)
	}
	h, err := do(ctx, s.authority)
	if err != nil {
		return nil, toStatus(err)
	}
	return s.header(h, x), nil
}

// AuthEnable switches authentication on.
func (s *authServer) AuthEnable(ctx context.Context, r *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) { return a.EnableAuth(ctx) })
	return &pb.AuthEnableResponse{Header: h}, err
}

// AuthDisable switches authentication off.
func (s *authServer) AuthDisable(ctx context.Context, r *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	if s.authority == nil { // as where it is off already
		x, err := extensionsOf(r)
		return &pb.AuthDisableResponse{Header: s.header(s.now(), x)}, err
	}
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) {
		if s.opts.AuthRequired {
			return kv.Header{}, cmp.Or(a.Authorize(ctx, kv.ManageAuth), error(errAuthStaysOn))
		}
		return a.DisableAuth(ctx)
	})
	return &pb.AuthDisableResponse{Header: h}, err
}

// UserAdd adds a user. The password is hashed here; a hash that a client sends
// is not looked at, as in etcd.
func (s *authServer) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	user := kv.NewUser{Name: r.Name, NoPassword: r.GetOptions().GetNoPassword()}
	if !user.NoPassword {
		user.Password = r.Password
	}
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) { return a.AddUser(ctx, user) })
	return &pb.AuthUserAddResponse{Header: h}, err
}

// UserGet tells a user's roles.
func (s *authServer) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	var user kv.User
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (h kv.Header, err error) {
		user, h, err = a.User(ctx, r.Name)
		return h, err
	})
	return &pb.AuthUserGetResponse{Header: h, Roles: user.Roles}, err
}

// UserList lists the users.
func (s *authServer) UserList(ctx context.Context, r *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	var users []string
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (h kv.Header, err error) {
		users, h, err = a.Users(ctx)
		return h, err
	})
	return &pb.AuthUserListResponse{Header: h, Users: users}, err
}

// UserDelete deletes a user.
func (s *authServer) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) { return a.DeleteUser(ctx, r.Name) })
	return &pb.AuthUserDeleteResponse{Header: h}, err
}

// UserChangePassword gives a user another password.
func (s *authServer) UserChangePassword(ctx context.Context, r *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) {
		return a.SetPassword(ctx, r.Name, r.Password)
	})
	return &pb.AuthUserChangePasswordResponse{Header: h}, err
}

// UserGrantRole gives a user a role.
func (s *authServer) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) {
		return a.GrantRole(ctx, r.User, r.Role)
	})
	return &pb.AuthUserGrantRoleResponse{Header: h}, err
}

// UserRevokeRole takes a role from a user.
func (s *authServer) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) {
		return a.RevokeRole(ctx, r.Name, r.Role)
	})
	return &pb.AuthUserRevokeRoleResponse{Header: h}, err
}

// RoleAdd adds a role.
func (s *authServer) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) { return a.AddRole(ctx, r.Name) })
	return &pb.AuthRoleAddResponse{Header: h}, err
}

// RoleGet tells a role's permissions.
func (s *authServer) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	var role kv.AuthRole
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (h kv.Header, err error) {
		role, h, err = a.AuthRole(ctx, r.Role)
		return h, err
	})
	resp := &pb.AuthRoleGetResponse{Header: h}
	for _, p := range role.Permissions {
		resp.Perm = append(resp.Perm, &authpb.Permission{
			PermType: authpb.Permission_Type(p.Access), Key: p.Key, RangeEnd: p.End,
		})
	}
	return resp, err
}

// RoleList lists the roles.
func (s *authServer) RoleList(ctx context.Context, r *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	var roles []string
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (h kv.Header, err error) {
		roles, h, err = a.AuthRoles(ctx)
		return h, err
	})
	return &pb.AuthRoleListResponse{Header: h, Roles: roles}, err
}

// RoleDelete deletes a role.
func (s *authServer) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) { return a.DeleteRole(ctx, r.Role) })
	return &pb.AuthRoleDeleteResponse{Header: h}, err
}

// RoleGrantPermission lets those with a role do something with some keys.
func (s *authServer) RoleGrantPermission(ctx context.Context, r *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) {
		if r.Perm == nil { // nothing to propose, but not everybody is told so
			if err := a.Authorize(ctx, kv.ManageAuth); err != nil {
				return kv.Header{}, err
			}
			return kv.Header{}, kv.ErrPermissionNotGiven
		}
		return a.GrantPermission(ctx, r.Name, kv.Permission{
			Access: kv.Access(min(uint32(r.Perm.PermType), math.MaxUint8)), Key: r.Perm.Key, End: r.Perm.RangeEnd,
		})
	})
	return &pb.AuthRoleGrantPermissionResponse{Header: h}, err
}

// RoleRevokePermission takes back what was granted with that key and end.
func (s *authServer) RoleRevokePermission(ctx context.Context, r *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	h, err := s.change(ctx, r, func(ctx context.Context, a kv.Authority) (kv.Header, error) {
		return a.RevokePermission(ctx, r.Role, r.Key, r.RangeEnd)
	})
	return &pb.AuthRoleRevokePermissionResponse{Header: h}, err
}
