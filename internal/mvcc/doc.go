// Package mvcc is Concord's key space: every key at every revision, until the
// history is compacted, in memory outside the Go heap.
//
// One goroutine writes, any number read without locks, through a [View] or
// [Store.Get]. The package is pure: what it answers depends on what was written
// and compacted, not on when memory was given back. Current and compacted
// revision are state of their own, never derived from keys.
//
// # Layout
//
// Memory is mapped in pages of 2 MiB without Go pointers, so the collector has
// nothing to scan. A ref of 40 bits is a page slot (22 bits) and an offset in
// units of 8 bytes (18 bits); a table of addresses translates slots. Records of
// 256 KiB and more have a mapping and a slot of their own. All words are 8 bytes
// in the machine's order.
//
// Key record (16 bytes and the key, padded to 8). Separators of the tree are key
// records too.
//
//	word 0  newest version (bits 0–39), dead (63); atomic
//	word 1  key length (0–16), separator (17), upper half of the key's hash (32–63)
//	        key
//
// Version record (24 bytes for a delete or a first put, else 40, and the value
// padded to 8; words in brackets are there as the flags say).
//
//	word 0  previous version (0–39), flags (40–47); atomic
//	word 1  key record (0–39), value length (40–63); atomic
//	word 2  mod revision
//	[create revision, version] [lease] [expires] [place in its revision] [value length]
//	        value
//
// List record, for a revision with several changes: flags, 0, revision, count,
// then the refs of its versions in the order they were made.
//
// A hash of words (key ref and 24 bits of hash; open addressing, grown in steps)
// finds a key; a B+ tree orders keys and is touched only when a key is new or
// finally removed; an array from revision to version or list serves watches and
// compaction. A write puts a version before the key's newest; readers walk back
// to their revision, and whoever reads at a revision long before a key's newest
// pays for each version in between.
//
// # Who sees what
//
// A write stores records first and then, atomically, what refers to them, and
// the new revision last; a reader loads the revision first. It passes over
// versions above its revision, so half a transaction is never seen. Nothing that
// a reader may stand on changes, except by single words whose old and new value
// are both right for it:
//
//   - a key's newest version: newer ones are passed over;
//   - the link to the previous version, cut or led to a copy: it is cut only
//     below what every reader may read, see compaction.pendingEpoch;
//   - refs to a record that was moved: both copies say the same.
//
// What was taken out is used again when no reader from before is left (see
// epochs). So a long-lived view holds memory and physical compaction, and nothing
// else; it never stops the writer.
//
// # Giving memory back
//
// [Store.CompactStep] goes through history in order of revision and frees what
// was superseded; a page without living records goes back to the system. When
// more than a seventh of all bytes are dead, the sparsest pages are emptied by
// moving what lives in them, a bounded number of records a step.
package mvcc
