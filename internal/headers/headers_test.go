package headers_test

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/concord-kv/concord/internal/headers"
)

func TestValues(t *testing.T) {
	md := metadata.Pairs("token", "one", "token", "two", "x", "y")
	came := metadata.NewIncomingContext(t.Context(), md)
	tapped, err := headers.Tap(came, &tap.Info{Header: md})
	if err != nil {
		t.Fatal(err)
	}
	later, cancel := context.WithCancel(tapped)
	defer cancel()
	for name, ctx := range map[string]context.Context{"searched": came, "tapped": tapped, "later": later} {
		if got := headers.Values(ctx, "token"); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("%s: %q", name, got)
		}
		if got := headers.Values(ctx, "traceparent"); len(got) != 0 {
			t.Errorf("%s: %q of what is not there", name, got)
		}
		if got, ok := metadata.FromIncomingContext(ctx); !ok || got.Len() != md.Len() {
			t.Errorf("%s: gRPC's own way finds %v", name, got)
		}
	}
	if got := headers.Values(t.Context(), "token"); got != nil {
		t.Errorf("%q without a call", got)
	}
}

// A child's end is that of the context below, without a goroutine for it.
func TestEnd(t *testing.T) {
	below, cancel := context.WithCancel(t.Context())
	tapped, err := headers.Tap(below, &tap.Info{})
	if err != nil {
		t.Fatal(err)
	}
	child, cancelChild := context.WithCancel(tapped)
	defer cancelChild()
	cancel()
	if child.Err() == nil { // at once, which it would not be by a goroutine
		t.Error("the child goes on")
	}
}

func BenchmarkMissing(b *testing.B) {
	md := metadata.Pairs(":authority", "h", "content-type", "application/grpc", "user-agent", "grpc-go", "hasleader", "true", "x-client-api", "3.7")
	came := metadata.NewIncomingContext(b.Context(), md)
	tapped, err := headers.Tap(came, &tap.Info{Header: md})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		ctx  context.Context
	}{{"searched", came}, {"tapped", tapped}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(headers.Values(c.ctx, "traceparent")) > 0 {
					b.Fatal("found")
				}
			}
		})
	}
}
