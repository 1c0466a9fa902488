package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// authServer is the service etcdserverpb.Auth of a store without users: it says
// that authentication is off. The rest is unimplemented.
type authServer struct {
	*API
	pb.UnimplementedAuthServer
}

// AuthStatus says that authentication is off, at etcd's first revision of it.
func (s *authServer) AuthStatus(context.Context, *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	return &pb.AuthStatusResponse{Header: s.header(s.now(), extensions{}), AuthRevision: 1}, nil
}

// Authenticate answers what etcd does when authentication is off; its clients
// go on without a token then.
func (s *authServer) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}

// AuthDisable has nothing to switch off.
func (s *authServer) AuthDisable(context.Context, *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	return &pb.AuthDisableResponse{Header: s.header(s.now(), extensions{})}, nil
}
