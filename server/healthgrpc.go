package server

import (
	"context"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/concord-kv/concord/kv"
)

// healthEvery is how often readiness is found out for those that watch it,
// besides after each change of leadership.
const healthEvery = time.Second

// healthService is gRPC's health service: each service of the server, and the
// server as a whole under the empty name, is as ready as the member. The health
// service itself is always well, so that it can be asked whether the process
// lives.
type healthService struct {
	*health.Server
	ready *readiness

	// follow are the services that are as ready as the member. Set before Run,
	// then read only.
	follow map[string]bool
	// ended ends what asks when the service ends.
	ended context.Context
	end   context.CancelFunc

	// asking has those that ask at one time share an answer.
	asking singleflight.Group
}

func newHealthService(ready *readiness) *healthService {
	h := &healthService{Server: health.NewServer(), ready: ready, follow: map[string]bool{"": true}}
	h.ended, h.end = context.WithCancel(context.Background())
	h.set(false)
	return h
}

// cover takes in the services of a server.
func (h *healthService) cover(services map[string]grpc.ServiceInfo) {
	for name := range services {
		h.follow[name] = true
	}
	own := healthpb.Health_ServiceDesc.ServiceName
	delete(h.follow, own)
	h.SetServingStatus(own, healthpb.HealthCheckResponse_SERVING)
	h.set(false)
}

func (h *healthService) set(ready bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for name := range h.follow {
		h.SetServingStatus(name, state)
	}
}

// refresh finds out how the member is now, once for all that ask meanwhile.
func (h *healthService) refresh(ctx context.Context) error {
	answer := h.asking.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(h.ended, checkTimeout)
		defer cancel()
		_, ready := runChecks(ctx, h.ready.ready)
		h.set(ready)
		return nil, nil
	})
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Check implements [healthpb.HealthServer].
func (h *healthService) Check(ctx context.Context, in *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if h.follow[in.Service] {
		if err := h.refresh(ctx); err != nil {
			return nil, err
		}
	}
	return h.Server.Check(ctx, in)
}

// List implements [healthpb.HealthServer].
func (h *healthService) List(ctx context.Context, in *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	if err := h.refresh(ctx); err != nil {
		return nil, err
	}
	return h.Server.List(ctx, in)
}

// run keeps the state fresh for watchers until ctx ends, and then says that
// nothing is served any more.
func (h *healthService) run(ctx context.Context, cluster kv.Cluster) {
	changes := make(chan struct{}, 1)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		if overseer, ok := cluster.(kv.Overseer); ok {
			for range overseer.Follow(ctx) {
				select {
				case changes <- struct{}{}:
				default:
				}
			}
		}
	}()
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		_ = h.refresh(ctx) // which fails when ctx ends
		select {
		case <-tick.C:
		case <-changes:
		case <-ctx.Done():
		}
	}
	h.ready.stopping.Store(true)
	h.Shutdown()
	h.end()
	<-followed
}
