//! SPDY/3.1 frames, as far as Kubernetes speaks them: streams, data, pings, the end. Who moves them is [`super::spdy_connection`].
//!
//! Follows the SPDY Protocol Draft 3.1. No flow control (no WINDOW_UPDATE, no SETTINGS): Kubernetes' clients use none here, the
//! connection beneath has its own. A decoder never panics and never buffers more than [`LARGEST_FRAME`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Draft 3, section 2.6.10.1: the dictionary of header compression.
const DICTIONARY: &[u8] = include_bytes!("spdy3.dictionary");

/// A frame longer than this ends the connection. Clients send data in pieces of 32 KiB.
pub(super) const LARGEST_FRAME: usize = 1 << 20;
/// Decompressed headers longer than this end the connection.
const LONGEST_HEADERS: usize = 64 << 10;

/// Status of a RST_STREAM: the stream was not taken (section 2.6.3).
pub(super) const REFUSED_STREAM: u32 = 3;

const VERSION: u16 = 0x8003;
const FIN: u8 = 1;

/// What the other side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        stream: u32,
        headers: Vec<(String, String)>,
        fin: bool,
    },
    Data {
        stream: u32,
        data: Bytes,
        fin: bool,
    },
    Reset {
        stream: u32,
    },
    Ping(u32),
    GoAway,
    /// Known, and of no consequence here.
    Other,
}

/// The other side does not speak SPDY/3.1.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum SpdyError {
    #[error("SPDY version {0:#06x}: only 3.1 is spoken here")]
    Version(u16),
    #[error("a SPDY frame of {0} bytes: at most {LARGEST_FRAME} are allowed")]
    TooLarge(usize),
    #[error("a SPDY header block cannot be read")]
    Headers,
    #[error("a SPDY frame is too short for its type")]
    Short,
    #[error("SPDY stream {0} cannot be opened: a client's are odd, each higher than the last")]
    StreamId(u32),
}

/// Bytes in, frames out.
pub(super) struct Decoder {
    buffer: BytesMut,
    headers: Decompress,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder { buffer: BytesMut::new(), headers: Decompress::new(true) }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub(super) fn frame(&mut self) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = self.buffer.first_chunk::<8>() else { return Ok(None) };
        let (word, flags) = (u32::from_be_bytes([head[0], head[1], head[2], head[3]]), head[4]);
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if length > LARGEST_FRAME {
            return Err(SpdyError::TooLarge(length));
        }
        let control = word >> 31 == 1;
        if control && (word >> 16) as u16 != VERSION {
            return Err(SpdyError::Version((word >> 16) as u16));
        }
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        let mut payload = self.buffer.split_to(length).freeze();
        if !control {
            return Ok(Some(Frame::Data { stream: word, data: payload, fin: flags & FIN != 0 }));
        }
        let number = |payload: &mut Bytes| payload.try_get_u32().map_err(|_| SpdyError::Short);
        let frame = match word as u16 {
            1 => {
                let stream = number(&mut payload)? & 0x7fff_ffff;
                number(&mut payload)?; // associated stream
                payload.try_get_u16().map_err(|_| SpdyError::Short)?; // priority and slot
                let headers = self.headers(&payload)?;
                Frame::SynStream { stream, headers, fin: flags & FIN != 0 }
            }
            // A SYN_REPLY or HEADERS block moves the shared compression state on, so it has to be read.
            2 | 8 => {
                number(&mut payload)?;
                self.headers(&payload)?;
                Frame::Other
            }
            3 => Frame::Reset { stream: number(&mut payload)? },
            6 => Frame::Ping(number(&mut payload)?),
            7 => Frame::GoAway,
            _ => Frame::Other,
        };
        Ok(Some(frame))
    }

    fn headers(&mut self, mut compressed: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        let mut plain: Vec<u8> = Vec::with_capacity(1024);
        while !compressed.is_empty() {
            if plain.len() > LONGEST_HEADERS {
                return Err(SpdyError::Headers);
            }
            plain.reserve(1024);
            let (before, produced) = (self.headers.total_in(), plain.len());
            let result = self.headers.decompress_vec(compressed, &mut plain, FlushDecompress::Sync);
            let read = (self.headers.total_in() - before) as usize;
            compressed = &compressed[read..];
            match result {
                Ok(_) if read == 0 && plain.len() == produced => return Err(SpdyError::Headers),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.headers.set_dictionary(DICTIONARY).map_err(|_| SpdyError::Headers)?;
                }
                Err(_) => return Err(SpdyError::Headers),
            }
        }
        let mut plain = Bytes::from(plain);
        let text = |plain: &mut Bytes| -> Option<String> {
            let length = plain.try_get_u32().ok()? as usize;
            (length <= plain.len()).then(|| String::from_utf8_lossy(&plain.split_to(length)).into_owned())
        };
        let count = plain.try_get_u32().map_err(|_| SpdyError::Headers)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let (Some(name), Some(value)) = (text(&mut plain), text(&mut plain)) else {
                return Err(SpdyError::Headers);
            };
            headers.push((name, value));
        }
        Ok(headers)
    }
}

/// Frames out.
pub(super) struct Encoder {
    headers: Compress,
}

impl Encoder {
    pub(super) fn new() -> Self {
        let mut headers = Compress::new(Compression::fast(), true);
        // It cannot fail on a stream that has compressed nothing yet; without it the other side could not read us.
        let _ = headers.set_dictionary(DICTIONARY);
        Encoder { headers }
    }

    /// Accepts a stream; no headers.
    pub(super) fn syn_reply(&mut self, stream: u32) -> Bytes {
        let mut block = Vec::with_capacity(64);
        let _ = self.headers.compress_vec(&0u32.to_be_bytes(), &mut block, FlushCompress::Sync);
        let mut frame = control(2, 4 + block.len());
        frame.put_u32(stream);
        frame.put_slice(&block);
        frame.freeze()
    }

    #[cfg(test)]
    fn syn_stream(&mut self, stream: u32, headers: &[(&str, &str)]) -> Bytes {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(1024);
        let _ = self.headers.compress_vec(&plain, &mut block, FlushCompress::Sync);
        let mut frame = control(1, 10 + block.len());
        frame.put_u32(stream);
        frame.put_u32(0);
        frame.put_u16(0);
        frame.put_slice(&block);
        frame.freeze()
    }
}

fn control(kind: u16, length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(8 + length);
    frame.put_u16(VERSION);
    frame.put_u16(kind);
    frame.put_u32(length as u32); // flags 0 and 24 bits of length
    frame
}

/// Data on a stream; `fin` is the last of this side.
pub(super) fn data(stream: u32, data: &[u8], fin: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + data.len());
    frame.put_u32(stream);
    frame.put_u32(u32::from(fin) << 24 | data.len() as u32);
    frame.put_slice(data);
    frame.freeze()
}

/// The answer to a PING is the same PING.
pub(super) fn ping(id: u32) -> Bytes {
    let mut frame = control(6, 4);
    frame.put_u32(id);
    frame.freeze()
}

/// Ends a stream in both directions at once.
pub(super) fn reset(stream: u32, status: u32) -> Bytes {
    let mut frame = control(3, 8);
    frame.put_u32(stream);
    frame.put_u32(status);
    frame.freeze()
}

/// The end of the connection; 0 is a good one, 1 a protocol error.
pub(super) fn go_away(last: u32, status: u32) -> Bytes {
    let mut frame = control(7, 8);
    frame.put_u32(last);
    frame.put_u32(status);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let mut encoder = Encoder::new();
        let mut wire = encoder.syn_stream(1, &[("streamtype", "error"), ("port", "80")]).to_vec();
        wire.extend_from_slice(&encoder.syn_stream(3, &[("streamtype", "data"), ("port", "80")]));
        wire.extend_from_slice(&data(3, b"hello", true));
        wire.extend_from_slice(&ping(7));
        let header =
            |kind: &str| vec![("streamtype".to_owned(), kind.to_owned()), ("port".to_owned(), "80".to_owned())];
        let expected = [
            Frame::SynStream { stream: 1, headers: header("error"), fin: false },
            Frame::SynStream { stream: 3, headers: header("data"), fin: false },
            Frame::Data { stream: 3, data: Bytes::from_static(b"hello"), fin: true },
            Frame::Ping(7),
        ];
        for size in [1, 3, 7, 1000] {
            let mut decoder = Decoder::new();
            let mut frames = Vec::new();
            for piece in wire.chunks(size) {
                decoder.feed(piece);
                while let Some(frame) = decoder.frame().expect("well-formed") {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        use proptest::prelude::*;
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..200))| {
            let mut decoder = Decoder::new();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.frame() {}
            // The same behind a valid head of a SYN_STREAM.
            let mut decoder = Decoder::new();
            decoder.feed(&[0x80, 3, 0, 1, 0, 0, 0, bytes.len() as u8]);
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.frame() {}
        });
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_before_it_is_buffered() {
        let mut decoder = Decoder::new();
        decoder.feed(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.frame(), Err(SpdyError::TooLarge(0xff_ffff)));
    }
}
