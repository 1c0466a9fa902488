package discovery

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv has a test start its own program as a process that finds others.
const childEnv = "CONCORD_DISCOVERY_CHILD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := child(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Probes of memberlist that wait for an answer end by themselves, within a
	// second of its shutdown.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// childSpec is what a child is told, as JSON.
type childSpec struct {
	ID      uint64
	Cluster string
	Secret  byte
	Port    int // of multicast
	Survey  time.Duration
	Mute    bool // no multicast
	Gossip  string
}

// childEvent is what a child tells, as a line of JSON.
type childEvent struct {
	Found    *Sighting     `json:",omitempty"`
	Stranger *Stranger     `json:",omitempty"`
	Conflict *Conflict     `json:",omitempty"`
	Gossip   string        `json:",omitempty"`
	After    time.Duration `json:",omitempty"`
	Findings *struct {
		Known     []Sighting
		Strangers []Stranger
	} `json:",omitempty"`
}

// testKey is a cipher for tests; those of one number understand each other.
func testKey(n byte) cipher.AEAD {
	key := make([]byte, 32)
	key[0] = n
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// child finds others until its input ends.
func child(text string) error {
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	cfg := Config{
		Cluster: spec.Cluster, Seal: testKey(spec.Secret), GossipKeys: [][]byte{append(make([]byte, 31), spec.Secret)},
		Multicast: Multicast{Off: spec.Mute, Port: spec.Port}, Gossip: Gossip{Addr: cmp.Or(spec.Gossip, ":0")},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("child", spec.ID),
	}
	out := &teller{enc: json.NewEncoder(os.Stdout), began: time.Now()}
	if spec.Survey > 0 {
		f, err := Survey(context.Background(), cfg, spec.Survey)
		e := childEvent{}
		e.Findings = &struct {
			Known     []Sighting
			Strangers []Stranger
		}{f.Known, f.Strangers}
		out.tell(e)
		return err
	}
	cfg.Handler = out
	cfg.Self = func() Announcement {
		return Announcement{ID: spec.ID, Name: fmt.Sprint("n", spec.ID), Incarnation: 1, PeerAddrs: []string{"10.0.0.1:2380"}}
	}
	d, err := New(cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the parent
		stop()
	}()
	go func() {
		for last := ""; ctx.Err() == nil; {
			if addr := d.GossipAddr(); addr != last && addr != "" {
				last = addr
				out.tell(childEvent{Gossip: addr})
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return d.Run(ctx)
}

// teller writes what a child hears.
type teller struct {
	mu    sync.Mutex
	enc   *json.Encoder
	began time.Time
}

func (o *teller) tell(e childEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.After = time.Since(o.began)
	_ = o.enc.Encode(e) // the parent is gone, and so is who would be told
}

func (o *teller) Found(s Sighting)    { o.tell(childEvent{Found: &s}) }
func (o *teller) Conflict(c Conflict) { o.tell(childEvent{Conflict: &c}) }
func (o *teller) Stranger(s Stranger) { o.tell(childEvent{Stranger: &s}) }
