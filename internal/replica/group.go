package replica

import "encoding/binary"

// Group is commands that came in together on one member, and travel, are
// appended and are applied together.
type Group struct {
	// Seq numbers the groups of one life of a member, from 1 and growing.
	Seq uint64
	// Term, when not 0, makes the group one that only this member may append
	// and only as leader of that term.
	Term uint64
	// Count is how many commands Data has.
	Count int
	// Data is the commands, each after its length as a uvarint.
	Data []byte

	lengths int // bytes of Data that are lengths
	// Owned by the core.
	term   uint64 // under which it was handed to a leader; 0: not
	stream uint64 // its number on the stream to that leader
}

// Add appends a copy of cmd.
func (g *Group) Add(cmd []byte) {
	n := len(g.Data)
	g.Data = binary.AppendUvarint(g.Data, uint64(len(cmd)))
	g.lengths += len(g.Data) - n
	g.Data = append(g.Data, cmd...)
	g.Count++
}
