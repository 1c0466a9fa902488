// Package transport carries messages, streams and calls between the members of
// a cluster over TCP, or over whatever the given listener and dial function
// speak. It knows nothing of Raft.
//
// # Links
//
// To send to a peer a member dials three connections, one for each [Channel],
// that are made together and lost together: a link. Each carries frames one
// way, so a vote or a heartbeat never waits behind an append, and two members
// that talk hold a link each way. On Control the receiver also answers pings,
// which gives the round-trip time and finds peers that were cut off. A stream
// and a call each have a connection of their own.
//
// # Wire format, version 1
//
// Integers are little endian, checksums CRC-32C (Castagnoli).
//
//	hello    magic "cncd" | version u16 | purpose u8 | 0 | cluster u64 | from u64 |
//	         to u64 | incarnation u64 | link u64 | crc u32 of all before
//	welcome  magic "cncd" | version u16 | refusal u8 | 0 | cluster u64 | id u64 |
//	         incarnation u64 | crc u32 of all before
//	frame    length u32 | kind u8 | 0 0 0 | crc u32 of the 8 bytes before and the payload | payload
//
// The dialer says hello and waits for the welcome. The first eight bytes of both
// keep their meaning in every version. An incarnation is a random number for
// the life of a process, a link number grows with each link of a process.
// Nothing is sent before the welcome, and a receiver that meets a newer link
// ends the older one and its deliveries first, so no message of a channel
// overtakes another one.
package transport
