package discovery

import (
	"bytes"
	"slices"
	"testing"

	"github.com/hashicorp/memberlist"
)

func gossipKeys(of ...byte) (out [][]byte) {
	for _, b := range of {
		out = append(out, append(make([]byte, gossipKey-1), b))
	}
	return out
}

// TestSetKeys: from any ring to any other, with readers at it.
func TestSetKeys(t *testing.T) {
	sets := [][]byte{{1}, {1, 2}, {2, 1}, {2}, {1, 2, 3}, {1, 3}, {3, 2, 1}, {4, 5}}
	for _, from := range sets {
		for _, to := range sets {
			ring, err := memberlist.NewKeyring(gossipKeys(from...), gossipKeys(from...)[0])
			if err != nil {
				t.Fatal(err)
			}
			done, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				for {
					for _, k := range ring.GetKeys() {
						_ = bytes.Equal(k, nil)
					}
					select {
					case <-done:
						return
					default:
					}
				}
			}()
			if err := setKeys(ring, gossipKeys(to...)); err != nil {
				t.Errorf("%v to %v: %v", from, to, err)
			}
			close(done)
			<-ended
			got, want := ring.GetKeys(), gossipKeys(to...)
			if !bytes.Equal(got[0], want[0]) || len(got) != len(want) {
				t.Errorf("%v to %v: %x", from, to, got)
			}
			for _, k := range want {
				if !slices.ContainsFunc(got, func(other []byte) bool { return bytes.Equal(k, other) }) {
					t.Errorf("%v to %v: %x is missing in %x", from, to, k, got)
				}
			}
		}
	}
}

// TestGossipKeysRotate: processes that change from one key to another one step
// after the other stay in touch all the time, and who has only the old key is
// heard no more.
func TestGossipKeysRotate(t *testing.T) {
	p := &peers{}
	hub := live(t, 1, gossiping(p, 1))
	eventually(t, "gossip", func() bool { return hub.GossipAddr() != "" })
	p.add("10.0.0.1:2380", hub.Self)
	all := []*listener{hub, live(t, 2, gossiping(p, 1, "10.0.0.1")), live(t, 3, gossiping(p, 1, "10.0.0.1"))}
	together := func(l *listener) bool {
		for _, s := range l.sources {
			if g, ok := s.(*gossip); ok {
				return g.count() == len(all)
			}
		}
		return false
	}
	for _, l := range all {
		eventually(t, "all others", func() bool { return len(l.Known()) == 2 && together(l) })
	}
	round := uint64(0)
	for _, step := range [][]byte{{1, 2}, {2, 1}, {2}} {
		for _, l := range all {
			if err := l.SetGossipKeys(gossipKeys(step...)); err != nil {
				t.Fatal(err)
			}
			// Each change, at each point of a step, is heard by all.
			round++
			all[0].speaker.change(func(a *Announcement) { a.Name = string('a' + rune(round)) })
			all[0].Announce()
			for _, other := range all[1:] {
				eventually(t, "what has changed", func() bool {
					return slices.ContainsFunc(other.Known(), func(s Sighting) bool { return s.ID == 1 && s.Name == string('a'+rune(round)) })
				})
			}
		}
		for _, l := range all {
			if !together(l) {
				t.Errorf("step %v: one was lost", step)
			}
		}
	}
	late := live(t, 4, gossiping(p, 1, "10.0.0.1"))
	eventually(t, "gossip", func() bool { return late.GossipAddr() != "" })
	eventually(t, "a failure", func() bool {
		return slices.ContainsFunc(late.Problems(), func(p Problem) bool { return p.Source == "gossip" && p.Target != "" })
	})
	if slices.ContainsFunc(hub.Known(), func(s Sighting) bool { return s.ID == 4 }) {
		t.Error("who has the old key is known")
	}
	for _, bad := range [][][]byte{nil, {make([]byte, 16)}} {
		if hub.SetGossipKeys(bad) == nil {
			t.Errorf("%x was taken", bad)
		}
	}
}
