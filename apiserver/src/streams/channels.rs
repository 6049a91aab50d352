//! exec and attach over WebSocket: the `v5.channel.k8s.io` protocol, and `v4` which is the same without half-close.
//!
//! Binary messages; the first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3 status, 4 resize, 255 close (client only).
//! Follows KEP-4006.

use super::Streams;
use crate::pod_streams::{ContainerRef, ExecStreams, TerminalSize};
use crate::request::Query;
use crate::status::Status;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Bytes in flight per stream before a writer waits for a slow reader.
const WINDOW: usize = 64 << 10;

/// Upgrades the connection and runs `command` (or attaches, without one).
pub(super) fn answer(
    upgrade: WebSocketUpgrade,
    streams: Streams,
    container: ContainerRef,
    command: Option<Vec<String>>,
    query: &Query,
) -> Response {
    let wanted = Wanted {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
    };
    let upgrade = upgrade.protocols(["v5.channel.k8s.io", "v4.channel.k8s.io"]);
    upgrade.on_upgrade(move |socket| async move {
        run(socket, streams, container, command, wanted).await;
    })
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

async fn run(
    socket: WebSocket,
    streams: Streams,
    container: ContainerRef,
    command: Option<Vec<String>>,
    wanted: Wanted,
) {
    let (mut sink, source) = socket.split();
    let lowest = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        STATUS
    };
    // Tells the client that the streams are there.
    if sink.send(Message::Binary(Bytes::copy_from_slice(&[lowest]))).await.is_err() {
        return;
    }
    let pipe = |is_wanted: bool| is_wanted.then(|| tokio::io::duplex(WINDOW)).unzip();
    let (stdin_end, stdin) = pipe(wanted.stdin);
    let (stdout_end, stdout) = pipe(wanted.stdout);
    // With a terminal both outputs are one.
    let (stderr_end, stderr) = pipe(wanted.stderr && !wanted.tty);
    let (resized, resize) = mpsc::channel(8);
    let exec = ExecStreams {
        stdin: stdin.map(|stdin| Box::new(stdin) as _),
        stdout: stdout.map(|stdout| Box::new(stdout) as _),
        stderr: stderr.map(|stderr| Box::new(stderr) as _),
        tty: wanted.tty,
        resize,
    };
    let running = async {
        match command {
            Some(command) => streams.exec(&container, command, exec).await,
            None => streams.attach(&container, exec).await,
        }
    };
    let (sender, messages) = mpsc::channel::<Bytes>(4);
    let output = async {
        let status_sender = sender.clone();
        let copied = async {
            tokio::join!(copy_out(stdout_end, STDOUT, sender.clone()), copy_out(stderr_end, STDERR, sender));
        };
        let (result, ()) = tokio::join!(running, copied);
        let mut status = vec![STATUS];
        status.extend_from_slice(outcome(result).to_string().as_bytes());
        let _ = status_sender.send(status.into()).await;
    };
    let send = send_all(&mut sink, messages);
    tokio::select! {
        ((), ()) = async { tokio::join!(output, send) } => {}
        () = receive(source, stdin_end, resized) => return, // The client has gone: dropping the future ends the command.
    }
    let close = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
    let _ = sink.send(Message::Close(Some(close))).await;
    let _ = sink.close().await;
}

/// Passes one output on as messages of its channel, until its end.
async fn copy_out(from: Option<DuplexStream>, channel: u8, to: mpsc::Sender<Bytes>) {
    let Some(mut from) = from else { return };
    loop {
        let mut message = BytesMut::with_capacity(32 << 10);
        message.put_u8(channel);
        match from.read_buf(&mut message).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if to.send(message.freeze()).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn send_all(sink: &mut SplitSink<WebSocket, Message>, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if sink.send(Message::Binary(message)).await.is_err() {
            return;
        }
    }
}

/// Takes the client's messages until it has gone.
async fn receive(
    mut source: SplitStream<WebSocket>,
    mut stdin: Option<DuplexStream>,
    resized: mpsc::Sender<TerminalSize>,
) {
    while let Some(Ok(message)) = source.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Some((channel, payload)) = data.split_first() else { continue };
        match *channel {
            STDIN => {
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(payload).await.is_err()
                {
                    // The command reads no more; what the client still sends is dropped.
                    stdin = None;
                }
            }
            RESIZE => {
                if let Ok(size) = serde_json::from_slice::<Value>(payload) {
                    let number = |field: &str| size[field].as_u64().and_then(|number| u16::try_from(number).ok());
                    if let (Some(width), Some(height)) = (number("Width"), number("Height")) {
                        let _ = resized.try_send(TerminalSize { width, height });
                    }
                }
            }
            CLOSE if payload.first() == Some(&STDIN) => stdin = None,
            _ => {}
        }
    }
}

/// The message of the status channel.
fn outcome(result: Result<i32, Status>) -> Value {
    match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({"metadata": {}, "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"), "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}}),
        Err(status) => status.to_json(),
    }
}
