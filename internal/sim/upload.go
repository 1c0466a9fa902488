package sim

import (
	"fmt"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

// stagedBytes is from which size on a value is staged in pieces here.
const stagedBytes = 40

// upload puts a value that was staged in pieces, with small ones beside it.
func (c *client) upload() {
	c.seq++
	id := machine.UploadID{}
	copy(id[:], fmt.Sprintf("up-%d-%d", c.id, c.seq))
	value := append(c.value(), make([]byte, 200)...)
	key := c.w.key()
	t := &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte(key), Value: value}}, ID: kv.RequestID{Client: c.uuid(), Seq: c.seq}}
	const pieceBytes = 70
	var next func(offset int)
	next = func(offset int) {
		if offset >= len(value) || c.w.load.is(0.05) { // sometimes it comes too early
			c.send(&command{txn: t, upload: id}, []asked{{kind: opPut, key: key, value: string(value)}})
			return
		}
		end := min(offset+pieceBytes, len(value))
		p := &piece{machine.Piece{Upload: id, Offset: int64(offset), Total: int64(len(value))}, value[offset:end]}
		c.ask(&command{piece: p}, func(bool) { next(end) })
	}
	next(0)
}

// stage takes a piece of a large value.
func (m *model) stage(p *piece) {
	if m.uploads[p.Upload] == nil {
		m.uploads[p.Upload] = map[int64]int64{}
	}
	m.uploads[p.Upload][p.Offset] = int64(len(p.data))
}

// whole ends the upload that a command names, and reports whether all that it
// needs is there.
func (m *model) whole(c *command) bool {
	if c.upload == (machine.UploadID{}) {
		return true
	}
	total := int64(0)
	for _, n := range m.uploads[c.upload] {
		total += n
	}
	delete(m.uploads, c.upload)
	return total == int64(len(c.txn.Success[0].Value))
}
