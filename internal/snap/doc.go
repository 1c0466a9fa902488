// Package snap keeps snapshots of the state on disk and moves them between
// members. A backup file has the same format.
//
// # Byte format, version 1
//
// All numbers are little-endian. A file is a header, chunks and an end.
//
//	header  magic "concord\0snap" (12), version u32, length of the whole header
//	        u32, chunk size u32, index u64, term u64, cluster u64, time i64, hash
//	        u64, length of the configuration u32, configuration, CRC32C u32 of
//	        all before it
//	chunk   length u32, CRC32C u32, that many bytes of state
//	end     0 u32, CRC32C u32, number of chunks u64, bytes of state u64, sum u32
//
// Every chunk but the last has exactly the chunk size, so that chunk i can be
// found without reading the others and a state can be loaded in parallel.
//
// The CRC of a chunk goes on from the header's over the chunk's number (u64), its
// length (u32) and its bytes: a chunk in another place, of another snapshot or
// of another length does not check. The end has the numbers of chunks and bytes
// and a CRC32C over all chunks' CRCs (u32 each); its own CRC is that of a chunk
// with the number 2^64-1. So a file that was cut, also between two chunks, or
// continued is found, and any flipped bit is: each one stands in the header, in
// a chunk's length, checksum or bytes, or in the end.
//
// Magic, version, header length and the place of the header's CRC are the same
// in all versions: an intact header of a newer version is refused by name, a
// damaged one is damage.
//
// The state is not compressed. Restart is what a snapshot is for: zstd at its
// fastest made JSON values 2.9 times smaller, but decoding took 50 times as long
// as reading the file from the page cache, and encoding as long again.
//
// # On disk
//
// A snapshot is written under a temporary name, synced, read back and verified,
// and only then renamed to INDEX.snap (16 hex digits) and the directory synced.
// So a file with that name was whole once; what does not check later is damage.
// Temporary files are removed when the store is opened.
package snap
