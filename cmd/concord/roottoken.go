package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/certs"
	"github.com/concord-kv/concord/kv"
)

// rootTokenName is where a member leaves the root token that it has made, in its
// data directory.
const rootTokenName = "root.token"

// readRootToken reads the id of the token in a file that nobody else may read.
func readRootToken(path string) (id kv.TokenID, err error) {
	if err := certs.CheckSecret(path); err != nil {
		return id, usagef("the root token: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return id, fmt.Errorf("the root token: %w", err)
	}
	if id, err = kv.ParseSecretToken(strings.TrimSpace(string(data))); err != nil {
		return id, usagef("the root token in %s: %w", path, err)
	}
	return id, nil
}

// founderOfAuth has authentication be on in a cluster where nobody has set it up
// yet, as --env prod needs it.
type founderOfAuth struct {
	node  *concord.Node
	file  string // of --root-token-file; empty without
	own   string // where a token is left that this member makes
	log   *slog.Logger
	asked bool // the log was told that it is a person's turn
}

// authPause is how long a member waits before it looks again whether it leads
// and authentication is on.
const authPause = 100 * time.Millisecond

// run returns when authentication is on and the token of the file is good, or
// ctx or the member ends.
func (f *founderOfAuth) run(ctx context.Context) {
	tick := time.NewTicker(authPause)
	defer tick.Stop()
	for {
		done, err := f.step(ctx)
		if done {
			return
		}
		if err != nil && ctx.Err() == nil {
			f.log.Warn("authentication is not set up yet; this member tries again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.node.Done():
			return
		case <-tick.C:
		}
	}
}

func (f *founderOfAuth) step(ctx context.Context) (done bool, err error) {
	if err := f.node.Ready(ctx); err != nil {
		return false, nil // without a majority there is nothing to be done
	}
	if f.node.Auth().Enabled {
		return true, f.keep(ctx)
	}
	if s := f.node.Status(); s.Leader != s.Member || f.asked {
		return false, nil // whoever leads does it; what was made by hand stays so
	}
	id, path, made, err := f.token()
	if err != nil {
		return false, err
	}
	set, err := f.node.Bootstrap(ctx, id)
	if err != nil {
		return false, err
	}
	// A call before may have done it, and its answer was lost.
	_, unknown := f.node.TokenCaller(ctx, id)
	switch {
	case unknown == nil && path == f.own:
		f.log.Info("authentication is on, and the token in this file is root: copy it to a safe place, and remove it here", "file", path)
		return true, nil
	case unknown == nil:
		f.log.Info("authentication is on, and the token of --root-token-file is root", "file", path)
		return true, nil
	case made:
		err = os.Remove(path) // another member was first: this one is of no use
	}
	if !set && !f.node.Auth().Enabled && !f.asked {
		f.asked = true
		f.log.Error("authentication is off, and users or tokens were made by hand: nobody is served with --env prod; start the members with --env dev, run 'concord auth enable', and start them with --env prod again")
	}
	return false, err
}

// keep makes the token of the file good, should it not be.
func (f *founderOfAuth) keep(ctx context.Context) error {
	if f.file == "" {
		return nil
	}
	id, err := readRootToken(f.file)
	if err != nil {
		return err
	}
	if _, err := f.node.TokenCaller(ctx, id); err == nil {
		return nil
	}
	f.log.Warn("the root token of --root-token-file is not known to the cluster; it is made root", "file", f.file, "token", id)
	return f.node.EnsureRootToken(ctx, id)
}

// token is the one that is to be root: of --root-token-file, or one that was left
// in the data directory before, or else a new one, which is on the disk before
// anybody hears of it.
func (f *founderOfAuth) token() (id kv.TokenID, path string, made bool, err error) {
	if f.file != "" {
		id, err = readRootToken(f.file)
		return id, f.file, false, err
	}
	id, err = readRootToken(f.own)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, f.own, false, err
	}
	secret := kv.NewSecretToken()
	if err := certs.WriteNew(f.own, []byte(secret+"\n"), 0o600); err != nil {
		return id, f.own, false, fmt.Errorf("write the root token: %w", err)
	}
	id, err = kv.ParseSecretToken(secret)
	return id, f.own, true, err
}

// setUpAuth runs, with --env prod, until authentication is on. What it returns
// ends it.
func (s *serveSettings) setUpAuth(ctx context.Context, node *concord.Node, log *slog.Logger) (stop func()) {
	if !s.prod() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	f := &founderOfAuth{node: node, file: s.Auth.RootTokenFile, own: filepath.Join(s.DataDir, rootTokenName), log: log}
	go func() {
		defer close(ended)
		f.run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}
