package concord

import "github.com/concord-kv/concord/kv"

// Image returns everything this member has applied, history included, as it
// stands at this moment. It asks nobody, so it also works without a leader, and
// may then lack what others have acknowledged. Close it, soon: what it shows
// stays in memory until then.
func (n *Node) Image() kv.Image {
	img := n.machine.Image()
	img.Scratch = n.cfg.dir
	return img
}
