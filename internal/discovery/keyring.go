package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

// gossipKey is how many bytes a key of gossip has, for AES-256-GCM.
const gossipKey = 32

func checkGossipKeys(keys [][]byte) error {
	for _, k := range keys {
		if len(k) != gossipKey {
			return fmt.Errorf("a gossip key of %d bytes, not %d", len(k), gossipKey)
		}
	}
	return nil
}

// SetGossipKeys replaces [Config.GossipKeys] while gossip goes on: what is sent
// is encrypted with the first from now on, and what comes is read with any. It
// is an error where there was no key before, or to have none now.
func (d *Discovery) SetGossipKeys(keys [][]byte) error {
	if d.keyring == nil {
		return nil // gossip is off
	}
	if len(keys) == 0 {
		return errors.New("gossip without a key")
	}
	if err := checkGossipKeys(keys); err != nil {
		return err
	}
	return setKeys(d.keyring, keys)
}

// setKeys makes the ring one of these keys, in their order of use. It is called
// by one goroutine at a time.
//
// A key is removed only from the end: memberlist removes others in place, in
// memory that whoever reads at the moment still has. So one that is wanted and
// behind one that is not is away for a moment, which costs a packet at most.
func setKeys(ring *memberlist.Keyring, keys [][]byte) error {
	wanted := func(k []byte) bool {
		return slices.ContainsFunc(keys, func(other []byte) bool { return bytes.Equal(k, other) })
	}
	for _, k := range keys {
		if err := ring.AddKey(k); err != nil {
			return err
		}
	}
	if err := ring.UseKey(keys[0]); err != nil {
		return err
	}
	for slices.ContainsFunc(ring.GetKeys(), func(k []byte) bool { return !wanted(k) }) {
		all := ring.GetKeys()
		if err := ring.RemoveKey(all[len(all)-1]); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if err := ring.AddKey(k); err != nil {
			return err
		}
	}
	return nil
}
