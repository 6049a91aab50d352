//! Clients of the stream protocols as bytes on a connection in memory: WebSocket frames (RFC 6455) and SPDY/3.1 frames, written here once
//! more so that the server's own reading is checked against another's.

use axum::Router;
use axum::body::Body;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// One connection to a server.
pub(crate) struct Client {
    stream: DuplexStream,
}

impl Client {
    pub(crate) fn new(router: &Router) -> Client {
        let router = router.clone();
        let (stream, theirs) = duplex(64 << 10);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                tower::ServiceExt::oneshot(router.clone(), request.map(Body::new))
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(TokioIo::new(theirs), service).with_upgrades().await;
        });
        Client { stream }
    }

    /// Sends a request with these headers; status line and headers of the answer, in lower case.
    pub(crate) async fn request(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {uri} HTTP/1.1\r\nhost: api\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes()).await.expect("the request is sent");
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(self.stream.read_u8().await.expect("the head of the answer"));
        }
        String::from_utf8(read).expect("text").to_ascii_lowercase()
    }

    /// Asks for a WebSocket.
    pub(crate) async fn websocket(&mut self, uri: &str, protocols: &str) -> String {
        let mut headers = vec![
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        if !protocols.is_empty() {
            headers.push(("sec-websocket-protocol", protocols));
        }
        self.request("GET", uri, &headers).await
    }

    /// Asks for SPDY.
    pub(crate) async fn spdy(&mut self, uri: &str, protocols: &str) -> String {
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", protocols),
            ("content-length", "0"),
        ];
        self.request("POST", uri, &headers).await
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// Everything until the server closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
        rest
    }

    /// Sends a message to a channel.
    pub(crate) async fn say(&mut self, channel: u8, payload: &[u8]) {
        self.send(&message(2, &[&[channel], payload].concat())).await;
    }

    /// The next WebSocket frame that is no pong: opcode and payload.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let head = self.stream.read_u16().await.ok()?;
            let length = match head & 0x7f {
                126 => u64::from(self.stream.read_u16().await.ok()?),
                127 => self.stream.read_u64().await.ok()?,
                length => u64::from(length),
            };
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            let opcode = (head >> 8) as u8 & 0xf;
            if opcode != 10 {
                return Some((opcode, payload));
            }
        }
    }

    /// All messages until the server's close frame: what came on each channel, and the close code.
    pub(crate) async fn channels(&mut self) -> (Vec<String>, u16) {
        let mut heard = vec![String::new(); 8];
        while let Some((opcode, payload)) = self.frame().await {
            if opcode == 8 {
                return (heard, u16::from_be_bytes([payload[0], payload[1]]));
            }
            heard[usize::from(payload[0])].push_str(&String::from_utf8_lossy(&payload[1..]));
        }
        panic!("no close frame after {heard:?}");
    }
}

/// A client's frame; the mask is zero, so that the payload stands there as it is.
pub(crate) fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ ..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A SPDY frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Reply(u32),
    Data(u32, Vec<u8>, bool),
    Reset(u32),
    Ping(u32),
    GoAway(u32),
}

/// Writes and reads SPDY on a client's connection.
pub(crate) struct Spdy {
    pub(crate) client: Client,
    deflate: Compress,
    inflate: Decompress,
    next: u32,
}

const DICTIONARY: &[u8] = include_bytes!("../../src/streams/spdy3.dictionary");

impl Spdy {
    pub(crate) fn new(client: Client) -> Spdy {
        let mut deflate = Compress::new(Compression::fast(), true);
        deflate.set_dictionary(DICTIONARY).expect("a new stream");
        Spdy { client, deflate, inflate: Decompress::new(true), next: 1 }
    }

    /// The bytes that open a stream.
    pub(crate) fn syn_stream(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut block = Vec::with_capacity(4096);
        self.deflate.compress_vec(&plain, &mut block, FlushCompress::Sync).expect("compressed");
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend((10 + block.len() as u32).to_be_bytes());
        frame.extend(stream.to_be_bytes());
        frame.extend([0; 6]);
        frame.extend(block);
        frame
    }

    /// Opens a stream.
    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let frame = self.syn_stream(stream, headers);
        self.client.send(&frame).await;
        stream
    }

    pub(crate) async fn data(&mut self, stream: u32, data: &[u8], fin: bool) {
        let mut frame = stream.to_be_bytes().to_vec();
        frame.extend((u32::from(fin) << 24 | data.len() as u32).to_be_bytes());
        frame.extend(data);
        self.client.send(&frame).await;
    }

    pub(crate) async fn control(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![0x80, 3, 0, kind, 0, 0, 0, payload.len() as u8];
        frame.extend(payload);
        self.client.send(&frame).await;
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let stream = &mut self.client.stream;
        let (word, rest) = (stream.read_u32().await.ok()?, stream.read_u32().await.ok()?);
        let mut payload = vec![0; (rest & 0xff_ffff) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        if word >> 31 == 0 {
            return Some(Frame::Data(word, payload, rest >> 24 & 1 == 1));
        }
        assert_eq!(word >> 16, 0x8003);
        let number = u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
        Some(match word & 0xffff {
            2 => {
                let mut plain = Vec::with_capacity(1024);
                while let Err(error) = self.inflate.decompress_vec(&payload[4..], &mut plain, FlushDecompress::Sync) {
                    assert!(error.needs_dictionary().is_some(), "a header block");
                    self.inflate.set_dictionary(DICTIONARY).expect("the dictionary");
                    // The zlib header has been read.
                    payload.drain(4..10);
                }
                Frame::Reply(number)
            }
            3 => Frame::Reset(number),
            6 => Frame::Ping(number),
            7 => Frame::GoAway(number),
            other => panic!("a frame of type {other}"),
        })
    }

    /// The next frame that is neither a reply nor the server's own ping.
    pub(crate) async fn news(&mut self) -> Option<Frame> {
        loop {
            match self.frame().await {
                Some(Frame::Reply(_) | Frame::Ping(2)) => {}
                frame => return frame,
            }
        }
    }

    /// Everything that comes on a stream until its FIN; other streams are passed over.
    pub(crate) async fn read(&mut self, wanted: u32) -> Vec<u8> {
        let mut read = Vec::new();
        loop {
            match self.news().await {
                Some(Frame::Data(stream, data, fin)) if stream == wanted => {
                    read.extend(data);
                    if fin {
                        return read;
                    }
                }
                Some(Frame::Data(..)) => {}
                other => panic!("{other:?} instead of data on stream {wanted}, after {} bytes", read.len()),
            }
        }
    }
}
