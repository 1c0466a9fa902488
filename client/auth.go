package client

import (
	"context"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/kv"
)

var (
	_ kv.Users = (*Client)(nil)
	_ kv.Roles = (*Client)(nil)
)

// authCall makes a call of the service Auth.
func authCall[Q proto.Message, R interface{ GetHeader() *pb.ResponseHeader }](
	ctx context.Context, c *Client, again repeat, req Q,
	do func(pb.AuthClient, context.Context, Q, ...grpc.CallOption) (R, error),
) (R, kv.Header, error) {
	setUnknown(req, wanted())
	resp, err := call(ctx, c, again, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (R, error) {
		return do(pb.NewAuthClient(conn), ctx, req, opts...)
	})
	if err != nil {
		return resp, kv.Header{}, err
	}
	return resp, c.header(resp.GetHeader()), nil
}

// EnableAuth is that of [kv.Guard].
func (c *Client) EnableAuth(ctx context.Context) (kv.Header, error) {
	_, h, err := authCall(ctx, c, always, new(pb.AuthEnableRequest), pb.AuthClient.AuthEnable)
	return h, err
}

// DisableAuth is that of [kv.Guard].
func (c *Client) DisableAuth(ctx context.Context) (kv.Header, error) {
	_, h, err := authCall(ctx, c, never, new(pb.AuthDisableRequest), pb.AuthClient.AuthDisable)
	return h, err
}

// AuthStatus is that of [kv.Guard].
func (c *Client) AuthStatus(ctx context.Context) (kv.AuthStatus, error) {
	r, h, err := authCall(ctx, c, always, new(pb.AuthStatusRequest), pb.AuthClient.AuthStatus)
	return kv.AuthStatus{Header: h, Enabled: r.GetEnabled(), Revision: r.GetAuthRevision()}, err
}

// Login finds out whether a password is the user's and returns a token for later
// calls, as [Config.Token] takes it. It returns [kv.ErrAuthNotEnabled] while
// there is nothing to log in to.
func (c *Client) Login(ctx context.Context, user, password string) (string, error) {
	r, _, err := authCall(ctx, c, always, &pb.AuthenticateRequest{Name: user, Password: password}, pb.AuthClient.Authenticate)
	return r.GetToken(), err
}

// AddUser implements [kv.Users]. A hash cannot be given over the network.
func (c *Client) AddUser(ctx context.Context, u kv.NewUser) (kv.Header, error) {
	if u.Hash != "" {
		return kv.Header{}, kv.Errorf(kv.Unsupported, "the hash of a password cannot be given over the network: %w", kv.ErrUnsupported)
	}
	req := &pb.AuthUserAddRequest{Name: u.Name, Password: u.Password, Options: &authpb.UserAddOptions{NoPassword: u.NoPassword}}
	_, h, err := authCall(ctx, c, never, req, pb.AuthClient.UserAdd)
	return h, err
}

// User implements [kv.Users]. Whether the user has a password is not told.
func (c *Client) User(ctx context.Context, name string) (kv.User, kv.Header, error) {
	r, h, err := authCall(ctx, c, always, &pb.AuthUserGetRequest{Name: name}, pb.AuthClient.UserGet)
	return kv.User{Name: name, Roles: r.GetRoles()}, h, err
}

// Users implements [kv.Users].
func (c *Client) Users(ctx context.Context) ([]string, kv.Header, error) {
	r, h, err := authCall(ctx, c, always, new(pb.AuthUserListRequest), pb.AuthClient.UserList)
	return r.GetUsers(), h, err
}

// DeleteUser implements [kv.Users].
func (c *Client) DeleteUser(ctx context.Context, name string) (kv.Header, error) {
	_, h, err := authCall(ctx, c, never, &pb.AuthUserDeleteRequest{Name: name}, pb.AuthClient.UserDelete)
	return h, err
}

// SetPassword implements [kv.Users].
func (c *Client) SetPassword(ctx context.Context, name, password string) (kv.Header, error) {
	req := &pb.AuthUserChangePasswordRequest{Name: name, Password: password}
	_, h, err := authCall(ctx, c, never, req, pb.AuthClient.UserChangePassword)
	return h, err
}

// GrantRole implements [kv.Users].
func (c *Client) GrantRole(ctx context.Context, user, role string) (kv.Header, error) {
	_, h, err := authCall(ctx, c, always, &pb.AuthUserGrantRoleRequest{User: user, Role: role}, pb.AuthClient.UserGrantRole)
	return h, err
}

// RevokeRole implements [kv.Users].
func (c *Client) RevokeRole(ctx context.Context, user, role string) (kv.Header, error) {
	_, h, err := authCall(ctx, c, never, &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}, pb.AuthClient.UserRevokeRole)
	return h, err
}

// AddRole implements [kv.Roles].
func (c *Client) AddRole(ctx context.Context, name string) (kv.Header, error) {
	_, h, err := authCall(ctx, c, never, &pb.AuthRoleAddRequest{Name: name}, pb.AuthClient.RoleAdd)
	return h, err
}

// AuthRole implements [kv.Roles].
func (c *Client) AuthRole(ctx context.Context, name string) (kv.AuthRole, kv.Header, error) {
	r, h, err := authCall(ctx, c, always, &pb.AuthRoleGetRequest{Role: name}, pb.AuthClient.RoleGet)
	role := kv.AuthRole{Name: name}
	for _, p := range r.GetPerm() {
		role.Permissions = append(role.Permissions, kv.Permission{Access: kv.Access(p.PermType), Key: p.Key, End: p.RangeEnd})
	}
	return role, h, err
}

// AuthRoles implements [kv.Roles].
func (c *Client) AuthRoles(ctx context.Context) ([]string, kv.Header, error) {
	r, h, err := authCall(ctx, c, always, new(pb.AuthRoleListRequest), pb.AuthClient.RoleList)
	return r.GetRoles(), h, err
}

// DeleteRole implements [kv.Roles].
func (c *Client) DeleteRole(ctx context.Context, name string) (kv.Header, error) {
	_, h, err := authCall(ctx, c, never, &pb.AuthRoleDeleteRequest{Role: name}, pb.AuthClient.RoleDelete)
	return h, err
}

// GrantPermission implements [kv.Roles].
func (c *Client) GrantPermission(ctx context.Context, role string, p kv.Permission) (kv.Header, error) {
	req := &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{
		PermType: authpb.Permission_Type(p.Access), Key: p.Key, RangeEnd: p.End,
	}}
	_, h, err := authCall(ctx, c, always, req, pb.AuthClient.RoleGrantPermission)
	return h, err
}

// RevokePermission implements [kv.Roles].
func (c *Client) RevokePermission(ctx context.Context, role string, key, end []byte) (kv.Header, error) {
	req := &pb.AuthRoleRevokePermissionRequest{Role: role, Key: key, RangeEnd: end}
	_, h, err := authCall(ctx, c, never, req, pb.AuthClient.RoleRevokePermission)
	return h, err
}
