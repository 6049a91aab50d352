//! As much of gRPC and Protocol Buffers as a few calls to etcd need: no generated code, no compiler of it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::Stream;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::error::Error;
use tokio::net::TcpStream;

type Body = BoxBody<Bytes, Infallible>;

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub(crate) struct Channel {
    sender: SendRequest<Body>,
    authority: String,
}

impl Channel {
    /// Connects without TLS.
    pub(crate) async fn connect(authority: &str) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(16 << 20).initial_connection_window_size(64 << 20).max_frame_size(1 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, authority: authority.to_owned() })
    }

    /// A call with one message each way.
    pub(crate) async fn call(&self, method: &str, message: Message) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
        let response = self.send(method, Full::new(message.frame()).boxed()).await?;
        let mut body = response.into_body().collect().await?;
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
        if status.is_none_or(|status| status != "0") {
            return Err(format!("{method}: {:?}", body.trailers()).into());
        }
        let mut bytes = std::mem::take(&mut body).to_bytes();
        bytes.advance(HEAD);
        Ok(bytes)
    }

    /// A call whose messages go on for as long as it lives.
    pub(crate) async fn stream(
        &self,
        method: &str,
        messages: impl Stream<Item = Message> + Send + Sync + 'static,
    ) -> Result<Messages, Box<dyn Error + Send + Sync>> {
        use futures::StreamExt;
        let frames = messages.map(|message| Ok(Frame::data(message.frame())));
        let response = self.send(method, BodyExt::boxed(StreamBody::new(frames))).await?;
        Ok(Messages { body: response.into_body(), buffer: BytesMut::new() })
    }

    async fn send(&self, method: &str, body: Body) -> Result<Response<Incoming>, hyper::Error> {
        let request = Request::post(format!("http://{}/{method}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body);
        self.sender.clone().send_request(request.expect("a method is a path")).await
    }
}

/// Length of what stands before every message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// What comes in.
pub(crate) struct Messages {
    body: Incoming,
    buffer: BytesMut,
}

impl Messages {
    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(head) = self.buffer.get(..HEAD) {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.buffer.len() >= HEAD + length {
                    let mut message = self.buffer.split_to(HEAD + length).freeze();
                    message.advance(HEAD);
                    return Some(message);
                }
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.put_slice(&data);
            }
        }
    }
}

/// A message in the making.
#[derive(Default)]
pub(crate) struct Message(BytesMut);

impl Message {
    /// A field of bytes, text or a message.
    pub(crate) fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.put_slice(value);
        self
    }

    /// A field with a number.
    pub(crate) fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// A field with a message.
    pub(crate) fn message(self, field: u64, value: Message) -> Self {
        self.bytes(field, &value.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }

    fn frame(self) -> Bytes {
        let mut frame = BytesMut::with_capacity(HEAD + self.0.len());
        frame.put_u8(0);
        frame.put_u32(self.0.len() as u32);
        frame.put_slice(&self.0);
        frame.freeze()
    }
}

/// How often `field`, of length-delimited type, stands in a message.
pub(crate) fn count(mut message: &[u8], field: u64) -> usize {
    let mut found = 0;
    while message.has_remaining() {
        let tag = varint(&mut message);
        match tag & 7 {
            0 => {
                varint(&mut message);
            }
            2 => {
                let length = varint(&mut message) as usize;
                message.advance(length);
                found += usize::from(tag >> 3 == field);
            }
            other => panic!("wire type {other} is not in etcd's messages"),
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = message.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}
