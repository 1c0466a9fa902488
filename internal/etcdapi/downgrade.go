package etcdapi

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/kv"
)

// Downgrade checks, announces and calls off that the cluster is taken to the
// version before, as etcd does. Concord has no older layout of its data to go
// back to: nothing follows from it but that the status shows it.
func (s *maintenanceServer) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	upkeep, ok := s.cluster.(kv.Upkeep)
	if !ok {
		return nil, rpctypes.ErrGRPCNotCapable
	}
	switch r.Action {
	case pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE:
		target, ok := clusterVersion(r.Version)
		if !ok {
			return nil, rpctypes.ErrGRPCWrongDowngradeVersionFormat
		}
		if _, err := s.cluster.Members(ctx); err != nil { // what is applied then is current
			return nil, toStatus(err)
		}
		if target != versionBefore() {
			return nil, rpctypes.ErrGRPCInvalidDowngradeTargetVersion
		}
		if upkeep.Downgrade() != "" {
			return nil, rpctypes.ErrGRPCDowngradeInProcess
		}
		if r.Action == pb.DowngradeRequest_VALIDATE {
			break
		}
		if err := upkeep.SetDowngrade(ctx, target); err != nil {
			return nil, toStatus(err)
		}
	case pb.DowngradeRequest_CANCEL:
		if err := upkeep.SetDowngrade(ctx, ""); err != nil { // no error where there is none, as in etcd
			return nil, toStatus(err)
		}
	default:
		return nil, status.Error(codes.Unknown, "etcdserver: unknown method")
	}
	// Here etcd's version is x.y.
	return &pb.DowngradeResponse{Header: s.header(s.now(), extensions{}), Version: strings.TrimSuffix(minorVersion(), ".0")}, nil
}

// downgradeInfo is what the status shows.
func downgradeInfo(cluster kv.Cluster) *pb.DowngradeInfo {
	info := &pb.DowngradeInfo{}
	if upkeep, ok := cluster.(kv.Upkeep); ok {
		info.TargetVersion = upkeep.Downgrade()
		info.Enabled = info.TargetVersion != ""
	}
	return info
}

// clusterVersion reads x.y.z or x.y and leaves z out, as etcd does.
func clusterVersion(text string) (version string, ok bool) {
	for _, text := range [...]string{text, text + ".0"} {
		text, _, _ = strings.Cut(text, "+")
		text, _, _ = strings.Cut(text, "-")
		parts := strings.SplitN(text, ".", 3)
		var n [3]int64
		good := len(parts) == len(n)
		for i := range parts {
			var err error
			n[i], err = strconv.ParseInt(parts[i], 10, 64)
			good = good && err == nil
		}
		if good {
			return fmt.Sprintf("%d.%d.0", n[0], n[1]), true
		}
	}
	return "", false
}

// versionBefore is the minor version before the one that is served.
func versionBefore() string {
	parts := strings.Split(Version, ".")
	minor, _ := strconv.Atoi(parts[1]) // Version is x.y.z
	return fmt.Sprintf("%s.%d.0", parts[0], minor-1)
}
