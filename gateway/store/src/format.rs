//! The store on disk, version 1. Numbers are little-endian, lengths and offsets are in bytes.
//!
//! ```text
//! <dir>/
//!   lock                                     its lock is the claim of the running process
//!   keys/<key id, 8 hex>.{a,b}.key           a data key, wrapped, in two copies
//!   journal/<sequence>-<ordinal>.segment     16 hex digits each: the first sequence and the
//!                                            first record in it (two segments can begin with the
//!                                            same sequence when one holds only changes)
//!   journal/spare, journal/reserve           zero-filled or used files that become segments
//!   journal/taken                            one of them while it is made a segment
//!   shadow/<the same name>                   the same bytes, never synced
//!   journal/restored.new                     a missing segment that is made again from a copy
//!   quarantine/<name>.<number>.damaged       damaged files as they were found
//!   kept/<segment>.<ordinal>.cut             an unfinished write that was cut while the keyed store
//!                                            could not be asked whether it was one; a number before
//!                                            `.cut` where something else was cut there before
//!   kept/ahead-<number>/                     a keyed store that was further than the journal, or had
//!                                            its end otherwise
//!   sled/                                    the keyed store
//! ```
//!
//! # Segment
//! All segments have the same length, given by the options, and are written before use so that
//! `fdatasync` has no metadata to commit. The first page (4,096 bytes):
//!
//! | offset | length | content |
//! |---|---|---|
//! | 0 | 8 | `VGSEGM`, 0, version 1 |
//! | 8 | 8 | segment id, random |
//! | 16 | 8 | first sequence |
//! | 24 | 8 | first ordinal |
//! | 32 | 8 | newest trusted wall clock in Unix milliseconds; the smallest number while the clock is not set |
//! | 40 | 4 | data key id |
//! | 44 | 4 | length of the wrapped key, at most 256 |
//! | 48 | | the wrapped key; zeros up to 4,092 |
//! | 4,092 | 4 | CRC32C of all bytes before |
//!
//! Records follow, each starting at a multiple of 64, the first one a snapshot of the state.
//! Behind the last record lie zeros, or, in a segment that was used before, records of another
//! segment id. The end is where no record continues the chain of ordinals and links.
//!
//! # Record
//!
//! | offset | length | content |
//! |---|---|---|
//! | 0 | 4 | `VGR`, version 1 |
//! | 4 | 4 | CRC32C of everything from offset 8 to the end of the body |
//! | 8 | 8 | segment id |
//! | 16 | 8 | ordinal: 1 for the first record ever, then without gaps |
//! | 24 | 8 | first sequence; without entries the one that the next entry takes |
//! | 32 | 8 | run: drawn at random at each opening and for each segment |
//! | 40 | 8 | link: the first 8 bytes of the tag of the record before; 0 for a segment's first |
//! | 48 | 4 | number of entries, 0 for changes and snapshots |
//! | 52 | 4 | length of the sealed body with its tag |
//! | 56 | 4 | data key id |
//! | 60 | 1 | kind: 1 entries, 2 changes, 3 snapshot; bit 7: first record of a group |
//! | 61 | 1 | 0 |
//! | 62 | 2 | how many records of the same group follow |
//! | 64 | | body, sealed with AES-256-GCM, tag at the end |
//!
//! The nonce is the run (8 bytes) and the lower 32 bits of the ordinal; the header with a zero
//! checksum is the associated data. Ordinals do not repeat within a run, and a write that may have
//! reached the disk is never followed by another one of the same run.
//!
//! A *group* is what one commit wrote with one `write` and one `fdatasync`. At opening, a group
//! that is not whole was acknowledged only if a later group was begun, if its shadow is whole, or
//! if the keyed store has it; otherwise it is cut.
//!
//! # Bodies
//! CBOR without field names. Entries: lists `[texts, receptions, subjects, kinds, readings, dead
//! letters, device events]`, where entries name shared texts, receptions and subjects by place and
//! `kinds` is a byte string that gives the order. Changes: CBOR items one after the other (RFC
//! 8742); one that is unknown is passed over and reported. Snapshot: `[settled by destination, recent readings by device,
//! unresolved, newest wall clock, destinations written to by conditional create]`. A number that is out of range, an unknown kind
//! and anything left over is refused.
//!
//! Earlier snapshots are read too, told by their shape: one without the last field, and one with
//! 16 bytes a recent reading and a list before the newest wall clock. A later layout begins with its
//! number, which no list of destinations can be taken for.
//!
//! # Key file
//! `VGKEY`, 0, 0, version 2; key id (4); when it was made in Unix milliseconds, or the smallest number
//! (8); length (4); wrapped key; CRC32C of all before (4). Version 1 has no moment.
