package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"

	"github.com/concord-kv/concord/kv"
)

// local are the calls that the asked member answers by what it has applied: they
// are refused as soon as it has applied the revocation, which the others tell it
// with what they send next.
func local(r *row) bool {
	switch _, method, _ := strings.Cut(strings.TrimPrefix(r.method, "/"), "/"); method {
	case "Status", "MemberList", "Alarm", "LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseKeepAlive", "LeaseLeases":
		return true
	default:
		return strings.Contains(r.body, "serializable")
	}
}

// openWatch opens a watch, and returns how it ends.
func (f *castle) openWatch(p *post, secret string) (ended func() string) {
	f.t.Helper()
	ctx := metadata.AppendToOutgoingContext(f.t.Context(), rpctypes.TokenFieldNameGRPC, secret)
	stream, err := pb.NewWatchClient(p.conn).Watch(ctx)
	f.must(stream, err)
	f.must(nil, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte("in/"), RangeEnd: []byte("in0"),
	}}}))
	r, err := stream.Recv()
	if f.must(r, err); !r.Created || r.Canceled {
		f.t.Fatalf("instead of a watch: %v", r)
	}
	end := make(chan string, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				end <- err.Error()
				return
			}
			if r.Canceled {
				end <- r.CancelReason
				_ = stream.CloseSend()
				return
			}
		}
	}()
	return func() string {
		select {
		case reason := <-end:
			return reason
		case <-time.After(matrixPatience):
			return "not at all"
		}
	}
}

// TestRevoked uses an access token on every member right after another one has
// acknowledged its revocation: the first call is refused, and watches have ended.
func TestRevoked(t *testing.T) {
	f := newCastle(t)
	for by := range castleMembers {
		var asked []row
		for _, r := range rows() {
			if r.need != nothing && r.need != outside && !r.once && !local(&r) && !strings.Contains(r.method, "Auth/Auth") {
				asked = append(asked, r)
			}
		}
		if len(asked) < 40 {
			t.Fatalf("only %d calls", len(asked))
		}
		for i := range asked {
			// Those that ask what root may do are asked with root's rights.
			secret := f.token(kv.NewAccessToken{Name: fmt.Sprint("t", by, i), Roles: []string{kv.RootName}})
			r := &asked[i]
			for _, p := range f.posts {
				if got := f.ask(p, r, secret); got != "" {
					t.Fatalf("%s %s before: %q", r.method, r.body, got)
				}
			}
			f.revoke(by, secret)
			for m, p := range f.posts {
				if got := f.ask(p, r, secret); got != badToken {
					t.Errorf("%s %s of n%d, revoked by n%d: %q", r.method, r.body, m+1, by+1, got)
				}
			}
		}
		f.revokedLocally(by)
		f.revokedBeforeElection(by, asked)
	}
}

// revokedBeforeElection has another member lead right after a revocation.
func (f *castle) revokedBeforeElection(by int, asked []row) {
	f.t.Helper()
	secret := f.token(kv.NewAccessToken{Roles: []string{kv.RootName}})
	leader := f.cluster.Leader()
	f.revoke(by, secret)
	f.must(nil, f.cluster.Node(leader).MoveLeader(f.t.Context(), 0))
	for i := range asked {
		for m, p := range f.posts {
			if got := f.ask(p, &asked[i], secret); got != badToken {
				f.t.Errorf("%s of n%d, revoked by n%d before an election: %q", asked[i].method, m+1, by+1, got)
			}
		}
	}
}

// revokedLocally does the same with the calls that members answer by themselves,
// and with watches.
func (f *castle) revokedLocally(by int) {
	f.t.Helper()
	secret := f.token(kv.NewAccessToken{Roles: []string{"inside"}})
	var ends []func() string
	for _, p := range f.posts {
		ends = append(ends, f.openWatch(p, secret))
	}
	f.revoke(by, secret)
	for m, p := range f.posts {
		if got := ends[m](); !strings.Contains(got, badToken) {
			f.t.Errorf("the watch of n%d, revoked by n%d, ended with %q", m+1, by+1, got)
		}
		for _, r := range rows() {
			if !local(&r) || r.once {
				continue
			}
			if got := f.ask(p, &r, secret); got != badToken {
				f.t.Errorf("%s of n%d, revoked by n%d, after its watch has ended: %q", r.method, m+1, by+1, got)
			}
		}
	}
}

// TestExpired ends a token by its time: calls are refused on every member, and its
// watch ends.
func TestExpired(t *testing.T) {
	f := newCastle(t)
	secret := f.token(kv.NewAccessToken{Roles: []string{"inside"}, TTL: time.Minute})
	var ends []func() string
	for _, p := range f.posts {
		ends = append(ends, f.openWatch(p, secret))
	}
	read := rows()[0]
	for _, p := range f.posts {
		if got := f.ask(p, &read, secret); got != "" {
			t.Errorf("before: %q", got)
		}
	}
	f.cluster.Advance(time.Minute)
	for m, p := range f.posts {
		if got := f.ask(p, &read, secret); got != badToken {
			t.Errorf("n%d: %q", m+1, got)
		}
		if got := ends[m](); !strings.Contains(got, badToken) {
			t.Errorf("the watch of n%d ended with %q", m+1, got)
		}
	}
}
