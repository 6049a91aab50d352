//! exec and attach over WebSocket: the `channel.k8s.io` protocols.
//!
//! The first byte of a message is the channel: 0 stdin, 1 stdout, 2 stderr, 3 status, 4 resize, 255 close (client only, v5). In the
//! `base64` variants a message is text: the channel as a digit, the rest in base64. Follows KEP-4006 and upstream's `wsstream`.

use super::remote_command::{Ends, RemoteCommand, outcome, terminal_size};
use super::{HEARTBEAT, LINGER};
use crate::pod_streams::TerminalSize;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The protocols in which exec and attach are spoken.
pub(super) const PROTOCOLS: &[&str] =
    &["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];

/// What a protocol's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    base64: bool,
    /// The end is told as a Status.
    status: bool,
    /// A client can end its stdin without ending all.
    half_close: bool,
}

impl Dialect {
    fn of(protocol: &str) -> Self {
        Dialect {
            base64: protocol.contains("base64"),
            status: protocol.starts_with("v4") || protocol.starts_with("v5"),
            half_close: protocol.starts_with("v5"),
        }
    }
}

/// A message of this channel.
pub(super) fn message(base64: bool, channel: u8, payload: &[u8]) -> Message {
    if base64 {
        let mut text = String::with_capacity(1 + payload.len().div_ceil(3) * 4);
        text.push(char::from(b'0' + channel));
        BASE64_STANDARD.encode_string(payload, &mut text);
        return Message::Text(text.into());
    }
    let mut message = BytesMut::with_capacity(1 + payload.len());
    message.put_u8(channel);
    message.put_slice(payload);
    Message::Binary(message.freeze())
}

/// Channel and payload of a message; `None` of one that has none.
pub(super) fn payload(base64: bool, message: Bytes) -> Option<(u8, Bytes)> {
    let channel = *message.first()?;
    let payload = message.slice(1..);
    if base64 {
        let channel = channel.checked_sub(b'0')?;
        return Some((channel, BASE64_STANDARD.decode(payload).ok()?.into()));
    }
    Some((channel, payload))
}

/// Runs a command over a WebSocket on which `protocol` was agreed, to its end or the client's.
pub(super) async fn run(socket: WebSocket, protocol: &str, command: RemoteCommand) {
    let dialect = Dialect::of(protocol);
    let wanted = command.wanted;
    let (mut sink, mut source) = socket.split();
    let lowest = match wanted {
        _ if wanted.stdout => STDOUT,
        _ if wanted.stderr => STDERR,
        _ => STATUS,
    };
    // Tells the client that the streams are there.
    if sink.send(message(dialect.base64, lowest, b"")).await.is_err() {
        return;
    }
    let (Ends { stdin, stdout, stderr, resized }, running) = command.start();
    let (sender, messages) = mpsc::channel::<Message>(4);
    let output = async {
        let status_sender = sender.clone();
        let copied = async {
            tokio::join!(
                copy_out(stdout, dialect.base64, STDOUT, sender.clone()),
                copy_out(stderr, dialect.base64, STDERR, sender)
            );
        };
        let (result, ()) = tokio::join!(running, copied);
        let status = outcome(result, dialect.status);
        if !status.is_empty() {
            let _ = status_sender.send(message(dialect.base64, STATUS, &status)).await;
        }
        Ok(())
    };
    let sending = send_all(&mut sink, messages);
    let code = tokio::select! {
        // The first failure ends it: the command goes with the client.
        ended = async { tokio::try_join!(output, sending) } => match ended {
            Ok(_) => close_code::NORMAL,
            Err(Gone) => return,
        },
        code = receive(&mut source, dialect, stdin, resized) => code,
    };
    close(&mut sink, &mut source, code, "").await;
}

/// Says the end and waits a while for the client to do the same: closing the connection while it still sends would reset it, and what
/// it has not read yet would be lost.
pub(super) async fn close(
    sink: &mut SplitSink<WebSocket, Message>,
    source: &mut SplitStream<WebSocket>,
    code: u16,
    reason: &str,
) {
    let farewell = async {
        let close = CloseFrame { code, reason: reason.into() };
        if sink.send(Message::Close(Some(close))).await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
}

/// Passes one output on as messages of its channel, until its end.
async fn copy_out(from: Option<DuplexStream>, base64: bool, channel: u8, to: mpsc::Sender<Message>) {
    let Some(mut from) = from else { return };
    loop {
        let mut piece = BytesMut::with_capacity(32 << 10);
        piece.put_u8(channel);
        match from.read_buf(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let whole = if base64 { message(true, channel, &piece[1..]) } else { Message::Binary(piece.freeze()) };
                if to.send(whole).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The client is no longer there.
struct Gone;

/// Sends until there is no more. Unasked pongs (RFC 6455, 5.5.3) show the client that the server
/// lives, even if its pings wait behind input that the command does not read, and show the server when the client has gone.
async fn send_all(sink: &mut SplitSink<WebSocket, Message>, mut messages: mpsc::Receiver<Message>) -> Result<(), Gone> {
    let mut heartbeat = super::heartbeat();
    loop {
        let next = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => message,
                None => return Ok(()),
            },
            _ = heartbeat.tick() => Message::Pong(Bytes::from_static(b"alive")),
        };
        if sink.send(next).await.is_err() {
            return Err(Gone);
        }
        heartbeat.reset_after(HEARTBEAT);
    }
}

/// Takes the client's messages until it has gone; the code with which to close.
async fn receive(
    source: &mut SplitStream<WebSocket>,
    dialect: Dialect,
    mut stdin: Option<DuplexStream>,
    resized: mpsc::Sender<TerminalSize>,
) -> u16 {
    while let Some(message) = source.next().await {
        let data = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(_)) => return close_code::NORMAL,
            Err(_) => return close_code::PROTOCOL,
        };
        match payload(dialect.base64, data) {
            Some((STDIN, payload)) => {
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&payload).await.is_err()
                {
                    // The command reads no more; what the client still sends is dropped.
                    stdin = None;
                }
            }
            Some((RESIZE, payload)) => {
                if let Some(size) = terminal_size(&payload) {
                    let _ = resized.try_send(size);
                }
            }
            Some((CLOSE, payload)) if dialect.half_close && payload.first() == Some(&STDIN) => stdin = None,
            // As upstream: a message on no channel of ours is nothing.
            _ => {}
        }
    }
    close_code::NORMAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        for base64 in [false, true] {
            let bytes = match message(base64, STDERR, b"\0\xffx") {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                other => panic!("{other:?}"),
            };
            assert_eq!(payload(base64, bytes), Some((STDERR, Bytes::from_static(b"\0\xffx"))));
        }
        assert_eq!(message(true, STDOUT, b"hi"), Message::Text("1aGk=".into()));
        assert_eq!(payload(true, Bytes::from_static(b"0%%%")), None);
        assert_eq!(payload(true, Bytes::from_static(b"\x01aGk=")), None);
        assert_eq!(payload(false, Bytes::new()), None);
    }
}
