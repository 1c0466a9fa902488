package main

import (
	"context"
	"net/http"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

// asker asks members again and again: it logs in once, keeps its connections,
// and stays with an endpoint for as long as that answers.
type asker struct {
	client  *client.Client
	timeout time.Duration // of one member
}

func (g *globals) newAsker() (*asker, error) {
	c, err := g.connect()
	return &asker{c, g.timeout}, err
}

func (a *asker) close() { _ = a.client.Close() } // nothing is under way

// get asks for what is at path. A member that hangs has its time, and then the
// next one is asked.
func (a *asker) get(ctx context.Context, path string, answer any) (err error) {
	for range a.client.Endpoints() {
		if err = a.try(ctx, path, answer); kv.CodeOf(err) != kv.Unavailable || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (a *asker) try(ctx context.Context, path string, answer any) error {
	if a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	return a.client.Ask(ctx, http.MethodGet, path, nil, answer)
}
