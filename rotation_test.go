package concord

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/secret"
	"github.com/concord-kv/concord/internal/transport"
)

// rotating is a flock whose processes have a file with the secret each.
type rotating struct {
	*flock
	files []string
}

func newRotating(t *testing.T, first string) *rotating {
	r := &rotating{flock: newFlock(t, 3, 3)}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for i := range r.nodes {
		r.files = append(r.files, filepath.Join(t.TempDir(), "secret"))
		r.write(i, first)
	}
	for i := range r.nodes {
		group.Go(func() {
			pace := func(c *config) {
				c.group.secret = ""
				c.group.pace = secretPace{every: 5 * time.Millisecond, grace: time.Second}
			}
			// Only a lost connection makes somebody campaign, not a slow machine.
			n, err := r.tryOpen(ctx, i, pace, SecretFile(r.files[i]), Timing(100*time.Millisecond, 20*time.Second))
			if err == nil {
				r.nodes[i] = n
				err = n.Ready(ctx)
			}
			if err != nil {
				t.Errorf("process %d: %v", i+1, err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return r
}

// write replaces a process's file, in one step.
func (r *rotating) write(i int, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.files[i]+".new", []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(r.files[i]+".new", r.files[i]); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rotating) await(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// provedBy tells whether all connections of a member, both ways with both others,
// were made with these secrets.
func provedBy(n *Node, ring *secret.Ring) bool {
	conns := n.cfg.peerTLS.conns.list()
	for _, c := range conns {
		if state := c.ConnectionState(); !state.HandshakeComplete || !ring.Accepts(&state) {
			return false
		}
	}
	return len(conns) >= 12
}

// TestSecretChanges: the secret of a cluster is changed while it takes writes at
// every member: none fails, no member is lost, nobody leads anew, and in the end
// nothing stands that was made with the old one.
func TestSecretChanges(t *testing.T) {
	old, next := NewSecret(), NewSecret()
	r := newRotating(t, old)
	r.put(0, "before")
	lead, term := r.nodes[0].Status().Leader, r.nodes[0].Status().Term

	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var writes [3]atomic.Int64
	for i, n := range r.nodes {
		writers.Go(func() {
			for ctx.Err() == nil {
				if _, err := n.Put(t.Context(), fmt.Sprintf("key-%d", i), fmt.Sprint(writes[i].Load())); err != nil {
					t.Errorf("a write at process %d: %v", i+1, err)
					return
				}
				writes[i].Add(1)
			}
		})
	}
	ring := func(secrets string) *secret.Ring {
		k, err := secret.NewRing("test", secrets)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for step, text := range []string{old + "\n" + next + "\n", next + "\n" + old + "\n", next + "\n"} {
		for i, n := range r.nodes {
			r.write(i, text)
			want := fmt.Sprint(ring(text).Names())
			r.await("the file to be read", func() bool { return fmt.Sprint(n.cfg.group.keys.Names()) == want })
			before := writes[i].Load()
			r.await("writes", func() bool { return writes[i].Load() > before+20 || t.Failed() })
		}
		if step == 2 { // before it, who moved first has connections to who had not yet
			for _, n := range r.nodes {
				r.await("new connections", func() bool { return provedBy(n, ring(next)) })
			}
		}
	}
	stop()
	writers.Wait()
	if s := r.nodes[0].Status(); s.Leader != lead || s.Term != term {
		t.Errorf("%v led in term %d, and now %v in term %d", lead, term, s.Leader, s.Term)
	}
	for i := range r.nodes {
		r.has(i, "before", "key-0", "key-1", "key-2")
	}
	// Who has the old secret is a stranger.
	r.dirs = append(r.dirs, filepath.Join(t.TempDir(), "data"))
	r.addrs = append(r.addrs, r.reserve())
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if n, err := r.tryOpen(short, 3, Secret(old)); err == nil {
		t.Errorf("%v was let in with the old secret", n.id)
	}
}

// TestOldConnectionsAreCut: a connection that was made with a secret that was
// removed since ends.
func TestOldConnectionsAreCut(t *testing.T) {
	old, next := NewSecret(), NewSecret()
	r := newRotating(t, next+"\n"+old)
	intruder, err := secret.NewRing("test", old+"\n"+next)
	if err != nil {
		t.Fatal(err)
	}
	node := r.nodes[0]
	link := transport.New(transport.Config{
		ID: 999, Cluster: uint64(node.Status().Cluster), Listener: newPeerlessListener(t), Handler: newPeerHandler(),
		Dial: (&config{peerTLS: peerTLS{client: intruder.Client}}).dialPeer,
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- link.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	link.SetPeer(uint64(node.id), r.addrs[0])
	r.await("the intruder", func() bool { return link.Peers()[0].Connected })
	for i := range r.nodes {
		r.write(i, next)
	}
	r.await("the end of the intruder", func() bool { return !link.Peers()[0].Connected && link.Peers()[0].Err != nil })
	r.put(1, "after")
}

func newPeerlessListener(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestSecretFileThatIsBad: what cannot be read, or is no secret, leaves the old
// ones in use.
func TestSecretFileThatIsBad(t *testing.T) {
	good := NewSecret()
	r := newRotating(t, good)
	names := fmt.Sprint(r.nodes[0].cfg.group.keys.Names())
	for _, text := range []string{"", "short", "\n\n"} {
		r.write(0, text)
		if changed, err := r.nodes[0].readSecret(); changed || err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if err := os.Remove(r.files[0]); err != nil {
		t.Fatal(err)
	}
	if changed, err := r.nodes[0].readSecret(); changed || err == nil {
		t.Error("no file is as good as one")
	}
	if got := fmt.Sprint(r.nodes[0].cfg.group.keys.Names()); got != names {
		t.Errorf("%s is in use, not %s", got, names)
	}
	r.put(0, "a")
	for what, opts := range map[string][]Option{
		"both": {Secret(good), SecretFile(r.files[1])},
		"none": {SecretFile(filepath.Join(t.TempDir(), "nowhere"))},
	} {
		if n, err := Open(t.Context(), t.TempDir(), append(opts, Cluster("c"))...); err == nil {
			t.Errorf("%s: %v", what, n.Close())
		}
	}
}
