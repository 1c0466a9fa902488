// Package headers looks up the headers of a gRPC call. The metadata package of
// gRPC searches all of them, in any case of letters, for one that is not there, as
// most of those are that a server asks for. HTTP/2 has only lower case, so here it
// is a look in a map: a fifth of the time (BenchmarkMissing).
package headers

import (
	"context"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"
)

// arrived is a call's context with its headers, as they came.
type arrived struct {
	context.Context
	headers metadata.MD
}

type key struct{}

// Value implements [context.Context].
func (c *arrived) Value(k any) any {
	if k == (key{}) {
		return c
	}
	return c.Context.Value(k)
}

// Tap lets [Values] find the headers of a server's calls: give it to
// [google.golang.org/grpc.InTapHandle].
func Tap(ctx context.Context, call *tap.Info) (context.Context, error) {
	return &arrived{ctx, call.Header}, nil
}

// Values are those of a header, whose name is in lower case; none where the call
// does not have it. They must not be changed. Without [Tap] they are searched for.
func Values(ctx context.Context, name string) []string {
	if c, ok := ctx.Value(key{}).(*arrived); ok {
		return c.headers[name]
	}
	return metadata.ValueFromIncomingContext(ctx, name)
}
