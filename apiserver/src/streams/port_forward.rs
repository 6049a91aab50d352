//! port-forward as kubectl does it: SPDY/3.1 inside the binary messages of a WebSocket (`SPDY/3.1+portforward.k8s.io`).
//!
//! Per forwarded connection the client opens two streams, told apart by headers: `error` (on which a failure is said) and `data`.
//! Follows KEP-4006. For the other protocol see [`super::port_forward_channels`].

use super::spdy::{self, Decoder, Encoder, Frame};
use super::{Streams, port_forward_channels};
use crate::pod_streams::ContainerRef;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Streams of one client at a time.
const MOST_STREAMS: usize = 2000;
/// Pieces of data waiting for a slow port, per stream.
const WINDOW: usize = 16;

/// Upgrades the connection and forwards.
pub(super) fn answer(
    upgrade: WebSocketUpgrade,
    streams: Streams,
    container: ContainerRef,
    ports: Vec<u16>,
) -> Response {
    let upgrade = upgrade.protocols([TUNNEL, "v4.channel.k8s.io"]);
    upgrade.on_upgrade(move |socket| async move {
        if socket.protocol().is_some_and(|protocol| protocol.as_bytes() == TUNNEL.as_bytes()) {
            run(socket, streams, container).await;
        } else {
            port_forward_channels::run(socket, streams, container, ports).await;
        }
    })
}

/// A connection whose streams have not all been opened yet, by `requestid`.
#[derive(Debug, Default)]
struct Pair {
    error: Option<u32>,
    data: Option<(u32, u16)>,
}

async fn run(socket: WebSocket, streams: Streams, container: ContainerRef) {
    let (mut sink, mut source) = socket.split();
    let (sender, mut outgoing) = mpsc::channel::<Bytes>(64);
    let mut decoder = Decoder::new();
    let mut encoder = Encoder::new();
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut inputs: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let message = tokio::select! {
            Some(frame) = outgoing.recv() => {
                if sink.send(Message::Binary(frame)).await.is_err() { return }
                continue;
            }
            Some(ended) = connections.join_next() => {
                if let Ok(stream) = ended { inputs.remove(&stream); }
                continue;
            }
            message = source.next() => message,
        };
        match message {
            Some(Ok(Message::Binary(bytes))) => decoder.feed(&bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_))) => continue,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return,
        }
        loop {
            let frame = match decoder.frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    let close =
                        CloseFrame { code: axum::extract::ws::close_code::PROTOCOL, reason: error.to_string().into() };
                    let _ = sink.send(Message::Close(Some(close))).await;
                    return;
                }
            };
            match frame {
                Frame::SynStream { stream, headers, .. } => {
                    if inputs.len() + pairs.len() > MOST_STREAMS {
                        return;
                    }
                    if sink.send(Message::Binary(encoder.syn_reply(stream))).await.is_err() {
                        return;
                    }
                    let header = |name: &str| {
                        headers
                            .iter()
                            .find(|(known, _)| known.eq_ignore_ascii_case(name))
                            .map(|(_, value)| value.clone())
                    };
                    let id = header("requestid").unwrap_or_default();
                    let pair = pairs.entry(id.clone()).or_default();
                    match header("streamtype").as_deref() {
                        Some("error") => pair.error = Some(stream),
                        _ => pair.data = Some((stream, header("port").and_then(|port| port.parse().ok()).unwrap_or(0))),
                    }
                    if let Pair { error: Some(error), data: Some((stream, port)) } = *pair {
                        pairs.remove(&id);
                        let (input, receiver) = mpsc::channel(WINDOW);
                        inputs.insert(stream, input);
                        let connection =
                            Connection { streams: streams.clone(), container: container.clone(), error, stream, port };
                        connections.spawn(connection.run(receiver, sender.clone()));
                    }
                }
                Frame::Data { stream, data, fin } => {
                    if let Some(input) = inputs.get(&stream)
                        && !data.is_empty()
                        && !forward(input, data, &mut outgoing, &mut sink).await
                    {
                        inputs.remove(&stream);
                    }
                    if fin {
                        inputs.remove(&stream);
                    }
                }
                Frame::Reset { stream } => {
                    inputs.remove(&stream);
                }
                Frame::Ping(id) => {
                    if sink.send(Message::Binary(spdy::ping(id))).await.is_err() {
                        return;
                    }
                }
                Frame::GoAway => {
                    let close = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
                    let _ = sink.send(Message::Close(Some(close))).await;
                    return;
                }
                Frame::Other => {}
            }
        }
    }
}

/// Hands data to a connection, sending on meanwhile what comes back: a port that only writes cannot block one that reads.
async fn forward(
    input: &mpsc::Sender<Bytes>,
    data: Bytes,
    outgoing: &mut mpsc::Receiver<Bytes>,
    sink: &mut (impl futures::Sink<Message> + Unpin),
) -> bool {
    let sending = input.send(data);
    tokio::pin!(sending);
    loop {
        tokio::select! {
            sent = &mut sending => return sent.is_ok(),
            Some(frame) = outgoing.recv() => {
                if sink.send(Message::Binary(frame)).await.is_err() {
                    return false;
                }
            }
        }
    }
}

struct Connection {
    streams: Streams,
    container: ContainerRef,
    error: u32,
    stream: u32,
    port: u16,
}

impl Connection {
    /// Forwards until both sides have ended; returns the data stream.
    async fn run(self, mut input: mpsc::Receiver<Bytes>, output: mpsc::Sender<Bytes>) -> u32 {
        let forwarded = match self.streams.port_forward(&self.container, self.port).await {
            Ok(port) => {
                let (mut reader, mut writer) = tokio::io::split(port);
                let inward = async {
                    while let Some(data) = input.recv().await {
                        if writer.write_all(&data).await.is_err() {
                            break;
                        }
                    }
                    let _ = writer.shutdown().await;
                };
                let outward = async {
                    let mut buffer = vec![0; 32 << 10];
                    loop {
                        match reader.read(&mut buffer).await {
                            Ok(0) | Err(_) => break,
                            Ok(length) => {
                                if output.send(spdy::data(self.stream, &buffer[..length], false)).await.is_err() {
                                    break;
                                }
                            }
                        }
                    }
                    let _ = output.send(spdy::data(self.stream, b"", true)).await;
                };
                tokio::join!(inward, outward);
                Ok(())
            }
            Err(status) => Err(status),
        };
        let text = match forwarded {
            Ok(()) => String::new(),
            Err(status) => {
                let _ = output.send(spdy::data(self.stream, b"", true)).await;
                format!("error forwarding port {} to pod {}: {}", self.port, self.container.pod, status.message)
            }
        };
        let _ = output.send(spdy::data(self.error, text.as_bytes(), true)).await;
        self.stream
    }
}
