// Package wal keeps Raft's entries, hard state and snapshot mark on disk: a
// segmented log that is written ahead, with one pwrite and one fdatasync for
// any number of batches.
//
// # Byte format, version 1
//
// All numbers are little-endian. The log is DIR/N.wal, N being the segment's
// number in 16 hex digits, counted from 1 without gaps. The file is allocated
// and synced before it gets its name and is zero but for its header. It is an
// array of sectors of 512 bytes:
//
//	payload 504, CRC32C u32, low 24 bits of the write's number u24, mark u8
//
// The mark is never 0: header, first, middle or last sector of a write, or the
// only one. The CRC starts from a hash (splitmix64's finalizer) of the segment's
// random key, the write's number, the sector's number in the file and the mark,
// so that a sector checks only in its file, in its place and as part of its
// write. Old bytes of the disk or of another log never do.
//
// Sector 0 is the header (key, write and sector number 0): magic
// "concord\0log\0", version u32, segment number u64, log id u64, key u64. Magic,
// version and checksum are in their places in all versions: an intact header
// of another version is refused by name, a damaged one is damage.
//
// A write is all batches of one Append. Writes are numbered from 1 without gaps
// over all segments. A write starts on a sector of its own and lies in one
// segment. Its payloads, strung together, are records and then zeros:
//
//	kind u8, length of the body u32, body
//
//	1 begin     write number u64, chain u64
//	2 base      index u64, term u64, segment u64, last u64: the log holds what
//	            follows index up to last; segments below segment are not needed
//	3 reset     index u64, term u64: a mark; all entries are dropped
//	4 position  index u64, term u64: of the entry that comes next; entries from
//	            index on are dropped. An entry without it follows on the one
//	            before it in the write, with the same term
//	5 entry     type u8, data
//	6 mark      index u64, term u64
//	7 state     term u64, vote u64, commit u64
//	8 commit    sectors of the write u64, chain u64: the last record
//
// The chain is a 64-bit fold over the CRCs of all sectors of all writes. A begin
// record has its value before the write, a commit record that before the sector
// in which the record starts. So each write vouches for all that were before it.
//
// The first write of a segment begins with base, mark and state: older segments
// can go, and what their loss would mean can be told.
//
// # What a crash leaves, and what damage is
//
// Append returns after the fdatasync, and the next write starts after that. So
// when the machine stops, all writes but the last one are whole on disk, and
// that one is there in any selection of its sectors, each one old (zeros) or
// new. Recovery must cut such a write, and must never cut one that was
// acknowledged. The rule:
//
//   - A sector whose last byte is zero was never written. (To its end: a write
//     that stopped between two bytes of a sector is met, too.)
//   - A sector whose last byte is not zero must check, as a part of the write
//     that is expected there. If it does not, it is damaged.
//   - The log ends before the first write N that has a sector which was never
//     written. Every sector from there to the end of the last segment must then
//     be never written, or check as a part of write N.
//   - All else is a *CorruptError, and nothing is changed on disk.
//
// A flipped bit never makes a log shorter: the marks differ from zero and from
// each other in four bits, so no one, two or three flips in a byte make a
// written sector look unwritten, and a sector that was written must check. This
// holds for the last acknowledged write as for any other, in lengths, commit
// records and padding alike, and when the payload is all zeros: the mark and
// the CRC are not. That is why the proof of having been written is in each
// sector, and not in a bitmap in the commit record, which a flip may hit.
//
// A lost write is found: sectors of an acknowledged write that read as zeros
// are followed by sectors of the next, which do not check as parts of the first
// (their CRC starts from another number), in this segment or a later one. The
// same finds a segment that is missing or is from an older copy. Only the loss
// of all or part of the very last write, on a disk that had confirmed it, looks
// like a torn tail: no log can tell these two apart. Bytes behind the end of a
// file that is too short count as never written.
//
// A torn tail is left as it is. The log goes on in the next segment, whose first
// write has the number of the one that was cut, and proves by its chain that the
// log before it is whole. Zeroing the tail instead would rest on a sync of those
// zeros: if that failed and the process came back, the page cache would show
// zeros, and after a power cut the old sectors behind new writes.
//
// For the same reason Open writes the last write's bytes once more and syncs
// them before it returns: they came from the page cache, which after a failed
// sync or a killed process may be all that has them.
//
// # Failures
//
// The first write or sync that fails ends the log for good: the kernel drops
// the pages and may say of the next sync that it succeeded. (Rebello et al.,
// "Can Applications Recover from fsync Failures?", USENIX ATC 2020.) A full disk
// is no such failure: it is met when a segment is prepared, a whole segment
// before the space is needed, and NoSpace tells. What was prepared and the
// reserve file can still be written. When they are used up too, Append returns
// ErrNoSpace and nothing has happened.
//
// # Padding
//
// A write of one entry of 100 bytes takes 512. It costs nothing: the disk and
// the page cache write 4 KiB in any case. In return no sector that holds
// acknowledged bytes is ever written again, but for the last write at Open, with
// the same bytes.
package wal
