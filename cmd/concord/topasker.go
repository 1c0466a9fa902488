package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

// asker asks members again and again: it logs in once, keeps its connections,
// and stays with an endpoint for as long as that answers.
type asker struct {
	client    *client.Client
	cfg       client.Config
	endpoints []*httpEndpoint
	at        int // the endpoint that answered last
	token     string
	known     bool // the token, or that none is needed
}

func (g *globals) newAsker() (*asker, error) {
	c, cfg, err := g.connectWith()
	if err != nil {
		return nil, err
	}
	a := &asker{client: c, cfg: cfg}
	for _, endpoint := range cfg.Endpoints {
		a.endpoints = append(a.endpoints, newHTTPEndpoint(endpoint, cfg))
	}
	return a, nil
}

func (a *asker) close() {
	for _, e := range a.endpoints {
		e.client.CloseIdleConnections()
	}
	_ = a.client.Close() // nothing is under way
}

// get asks for what is at path, with a new login where the old one is over.
func (a *asker) get(ctx context.Context, path string, answer any) error {
	for again := false; ; again = true {
		if !a.known {
			token, err := login(ctx, a.client, a.cfg)
			if err != nil {
				return err
			}
			a.token, a.known = token, true
		}
		err := a.try(ctx, path, answer)
		if err == nil || again || kv.CodeOf(err) != kv.Unauthenticated {
			return err
		}
		a.known = false
	}
}

// try asks each endpoint, beginning with the one that answered last.
func (a *asker) try(ctx context.Context, path string, answer any) error {
	var missed []string
	for i := range a.endpoints {
		at := (a.at + i) % len(a.endpoints)
		text, status, err := a.askOne(ctx, at, path)
		if err == nil {
			a.at = at
			return decodeAnswer(a.cfg.Endpoints[at], text, status, answer)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		missed = append(missed, a.cfg.Endpoints[at]+": "+cause(err).Error())
	}
	return kv.Errorf(kv.Unavailable, "no endpoint can be reached: %s", strings.Join(missed, "; "))
}

func (a *asker) askOne(ctx context.Context, at int, path string) ([]byte, int, error) {
	if a.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.cfg.Timeout)
		defer cancel()
	}
	return a.endpoints[at].do(ctx, http.MethodGet, path, a.token, nil)
}
