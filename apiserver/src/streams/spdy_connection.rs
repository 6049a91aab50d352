//! A SPDY/3.1 connection: streams that the client opens, over the connection itself or tunnelled through a WebSocket.
//!
//! [`Connection::run`] moves frames; who handles the streams runs beside it. There is no flow control in the protocol as Kubernetes
//! speaks it, so a stream whose reader is slow holds the connection up once [`WINDOW`] pieces wait, instead of filling memory.

use super::spdy::{self, Decoder, Encoder, Frame, SpdyError};
use super::{HEARTBEAT, LINGER};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// Streams of one client at a time.
const MOST_STREAMS: usize = 2000;
/// Pieces of data waiting for a slow reader, per stream.
const WINDOW: usize = 16;
/// Frames waiting for a slow client.
const QUEUE: usize = 64;

/// The headers of a stream.
pub(super) type Headers = [(String, String)];

/// The value of a header; names are in lower case on the wire, as a rule.
pub(super) fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// What carries the bytes.
pub(super) enum Transport {
    /// Binary messages; where they are cut means nothing.
    Tunnel(Box<WebSocket>),
    /// After `Upgrade: SPDY/3.1`.
    Plain(TokioIo<Upgraded>),
}

impl Transport {
    /// The next bytes; `None` when the client has gone. Nothing is lost when the future is dropped.
    async fn receive(&mut self) -> Option<Bytes> {
        match self {
            Transport::Tunnel(socket) => loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => return Some(bytes),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                }
            },
            Transport::Plain(connection) => {
                let mut buffer = BytesMut::with_capacity(32 << 10);
                match connection.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => None,
                    Ok(_) => Some(buffer.freeze()),
                }
            }
        }
    }

    /// Whether the client is still there.
    async fn send(&mut self, frame: Bytes) -> bool {
        match self {
            Transport::Tunnel(socket) => socket.send(Message::Binary(frame)).await.is_ok(),
            Transport::Plain(connection) => {
                connection.write_all(&frame).await.is_ok() && connection.flush().await.is_ok()
            }
        }
    }

    /// Shows each side that the other lives, even when nothing is read.
    async fn beat(&mut self) -> bool {
        match self {
            Transport::Tunnel(socket) => socket.send(Message::Pong(Bytes::from_static(b"alive"))).await.is_ok(),
            // Even numbers are the server's.
            Transport::Plain(_) => self.send(spdy::ping(2)).await,
        }
    }
}

/// Why a connection has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Gone,
    GoAway,
    Broken(SpdyError),
}

/// A stream the client has opened.
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) headers: Vec<(String, String)>,
    /// What the client sends; ends with its half-close, or with a reset.
    pub(super) input: mpsc::Receiver<Bytes>,
    /// Resolves when the client has reset the stream, or has gone.
    pub(super) reset: oneshot::Receiver<()>,
    pub(super) output: Output,
}

/// The server's direction of a stream.
pub(super) struct Output {
    id: u32,
    frames: mpsc::Sender<Bytes>,
}

impl Output {
    /// Sends; `false` when the connection has ended.
    pub(super) async fn data(&self, data: &[u8]) -> bool {
        self.frames.send(spdy::data(self.id, data, false)).await.is_ok()
    }

    /// Sends the last of it.
    pub(super) async fn finish(self, last: &[u8]) {
        let _ = self.frames.send(spdy::data(self.id, last, true)).await;
    }
}

/// What the connection knows of an open stream.
struct Open {
    input: Option<mpsc::Sender<Bytes>>,
    /// Dropped or used when it is reset; kept until the client has said its last.
    reset: Option<oneshot::Sender<()>>,
}

pub(super) struct Connection {
    transport: Transport,
    decoder: Decoder,
    encoder: Encoder,
    streams: HashMap<u32, Open>,
    last: u32,
    frames: mpsc::Sender<Bytes>,
    outgoing: mpsc::Receiver<Bytes>,
    end: Option<End>,
}

impl Connection {
    pub(super) fn new(transport: Transport) -> Self {
        let (frames, outgoing) = mpsc::channel(QUEUE);
        Connection {
            transport,
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            streams: HashMap::new(),
            last: 0,
            frames,
            outgoing,
            end: None,
        }
    }

    /// Moves frames until the client ends it. Streams whose headers `accept` takes go to `opened`, others are reset.
    pub(super) async fn run(&mut self, accept: fn(&Headers) -> bool, opened: mpsc::UnboundedSender<Stream>) {
        let mut heartbeat = super::heartbeat();
        loop {
            let received = tokio::select! {
                Some(frame) = self.outgoing.recv() => {
                    if !self.transport.send(frame).await {
                        return self.ended(End::Gone);
                    }
                    continue;
                }
                bytes = self.transport.receive() => bytes,
                _ = heartbeat.tick() => {
                    if !self.transport.beat().await {
                        return self.ended(End::Gone);
                    }
                    continue;
                }
            };
            let Some(bytes) = received else { return self.ended(End::Gone) };
            self.decoder.feed(&bytes);
            loop {
                match self.decoder.frame() {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if let Err(end) = self.take(frame, accept, &opened).await {
                            return self.ended(end);
                        }
                    }
                    Err(error) => return self.ended(End::Broken(error)),
                }
            }
            heartbeat.reset_after(HEARTBEAT);
        }
    }

    fn ended(&mut self, end: End) {
        self.end = Some(end);
        self.streams.clear();
    }

    async fn send(&mut self, frame: Bytes) -> Result<(), End> {
        self.transport.send(frame).await.then_some(()).ok_or(End::Gone)
    }

    async fn take(
        &mut self,
        frame: Frame,
        accept: fn(&Headers) -> bool,
        opened: &mpsc::UnboundedSender<Stream>,
    ) -> Result<(), End> {
        match frame {
            Frame::SynStream { stream, headers, fin } => {
                // Section 2.3.2: the client's are odd, and each is higher than the last.
                if stream % 2 == 0 || stream <= self.last {
                    return Err(End::Broken(SpdyError::StreamId(stream)));
                }
                self.last = stream;
                if self.streams.len() >= MOST_STREAMS || !accept(&headers) {
                    return self.send(spdy::reset(stream, spdy::REFUSED_STREAM)).await;
                }
                let reply = self.encoder.syn_reply(stream);
                self.send(reply).await?;
                let (input, receiver) = mpsc::channel(WINDOW);
                let (reset, is_reset) = oneshot::channel();
                self.streams.insert(stream, Open { input: (!fin).then_some(input), reset: Some(reset) });
                let output = Output { id: stream, frames: self.frames.clone() };
                let _ = opened.send(Stream { id: stream, headers, input: receiver, reset: is_reset, output });
            }
            Frame::Data { stream, data, fin } => {
                if !data.is_empty() {
                    self.deliver(stream, data).await?;
                }
                if fin && let Some(open) = self.streams.get_mut(&stream) {
                    open.input = None;
                }
                self.forget_finished();
            }
            Frame::Reset { stream } => {
                if let Some(reset) = self.streams.remove(&stream).and_then(|open| open.reset) {
                    let _ = reset.send(());
                }
            }
            // An even one is the answer to ours.
            Frame::Ping(id) if id % 2 == 1 => self.send(spdy::ping(id)).await?,
            Frame::GoAway => return Err(End::GoAway),
            Frame::Ping(_) | Frame::Other => {}
        }
        Ok(())
    }

    /// Streams that nobody handles any more and on which the client has said its last.
    fn forget_finished(&mut self) {
        self.streams
            .retain(|_, open| open.input.is_some() || open.reset.as_ref().is_some_and(|reset| !reset.is_closed()));
    }

    /// Hands data to a stream's reader, sending on meanwhile what comes back: who only writes cannot block one that reads.
    async fn deliver(&mut self, stream: u32, data: Bytes) -> Result<(), End> {
        let Some(input) = self.streams.get(&stream).and_then(|open| open.input.clone()) else { return Ok(()) };
        let sending = input.send(data);
        tokio::pin!(sending);
        let mut heartbeat = super::heartbeat();
        loop {
            tokio::select! {
                // Whoever reads no more does not care.
                _ = &mut sending => return Ok(()),
                Some(frame) = self.outgoing.recv() => {
                    if !self.transport.send(frame).await {
                        return Err(End::Gone);
                    }
                }
                _ = heartbeat.tick() => {
                    if !self.transport.beat().await {
                        return Err(End::Gone);
                    }
                }
            }
        }
    }

    /// Sends what waits, says the end, and waits a while for the client to do the same: closing the connection while it still sends would
    /// reset it, and what it has not read yet would be lost.
    pub(super) async fn close(mut self) {
        self.streams.clear();
        let farewell = async {
            if self.end == Some(End::Gone) {
                return;
            }
            while let Ok(frame) = self.outgoing.try_recv() {
                if !self.transport.send(frame).await {
                    return;
                }
            }
            let (code, reason) = match &self.end {
                Some(End::Broken(error)) => (close_code::PROTOCOL, error.to_string()),
                _ => (close_code::NORMAL, String::new()),
            };
            let status = if code == close_code::NORMAL { 0 } else { 1 };
            if !self.transport.send(spdy::go_away(self.last, status)).await {
                return;
            }
            match &mut self.transport {
                Transport::Tunnel(socket) => {
                    let close = CloseFrame { code, reason: reason.into() };
                    if socket.send(Message::Close(Some(close))).await.is_err() {
                        return;
                    }
                }
                Transport::Plain(connection) => {
                    if connection.shutdown().await.is_err() {
                        return;
                    }
                }
            }
            while self.transport.receive().await.is_some() {}
        };
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}
