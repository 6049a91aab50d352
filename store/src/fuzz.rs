//! Doors for fuzzers: every decoder of bytes that may come from a damaged disk or from somebody else.
//!
//! Each takes anything, and must neither panic nor allocate more than a small multiple of what it was given. Checksums
//! would keep a fuzzer out, so the payload is also decoded without one, and inside a frame whose checksum is right.

use crate::codec::{self, Decoder};
use crate::segment::{HEADER, SegmentReader, Tail};
use crate::{Revision, archive, sled_checkpoint};

/// A log segment, header and all.
pub fn segment(bytes: &[u8]) {
    let first = bytes.get(16..24).map_or(0, |first| u64::from_le_bytes(first.try_into().expect("8 bytes")));
    if let Ok(mut reader) = SegmentReader::of(bytes.to_vec(), Revision(first)) {
        while let Some(frame) = reader.next_frame() {
            let _ = frame.transactions();
        }
        assert!(reader.offset() <= bytes.len().next_multiple_of(8));
        if let Tail::Damaged { next } = reader.tail() {
            assert!(next > reader.offset() && next < bytes.len());
        }
    }
}

/// A frame's payload: alone, and in a segment where its checksum is right.
pub fn transactions(payload: &[u8]) {
    let mut decoder = Decoder(payload);
    while !decoder.0.is_empty() && decoder.records().is_ok() {}
    let bytes = crate::segment::with_payload(Revision(1), payload);
    let mut reader = SegmentReader::of(bytes, Revision(1)).expect("the header is right");
    let frame = reader.next_frame().expect("the checksum is right");
    let _ = frame.transactions();
    assert!(reader.offset() > HEADER && reader.tail() == Tail::Clean);
}

/// An entry and the summary of a checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    if let Ok(key) = codec::key(bytes.get(..8).unwrap_or(bytes)) {
        let _ = Decoder(bytes).state(key);
    }
    sled_checkpoint::decode_summary(bytes);
}

/// An archive, whatever its checksum.
pub fn archive(mut bytes: &[u8]) {
    if let Ok(state) = archive::decode(&mut bytes) {
        // What was read can be written, and read again.
        let written: Vec<u8> = archive::Archive::new(state.clone()).flat_map(Vec::from).collect();
        let again = archive::decode(&mut &written[..written.len() - 32]).expect("it was just written");
        assert!(again.keys == state.keys && again.revision == state.revision);
    }
}
