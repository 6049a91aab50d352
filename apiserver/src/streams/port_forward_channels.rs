//! port-forward as the Python client and kube-rs do it: `v4.channel.k8s.io` with two channels per port.
//!
//! `?ports=80,443`: channel 2i is the data of the i-th port, 2i+1 its errors; the first message on each says the port (little-endian).

use super::Streams;
use crate::pod_streams::ContainerRef;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const WINDOW: usize = 16;
/// Channel numbers are one byte.
const MOST_PORTS: usize = 120;

pub(super) async fn run(socket: WebSocket, streams: Streams, container: ContainerRef, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (sender, mut outgoing) = mpsc::channel::<Bytes>(64);
    let mut inputs = Vec::new();
    let mut connections = JoinSet::new();
    for (index, port) in ports.into_iter().take(MOST_PORTS).enumerate() {
        let channel = (2 * index) as u8;
        for channel in [channel, channel + 1] {
            let [low, high] = port.to_le_bytes();
            if sink.send(Message::Binary(Bytes::copy_from_slice(&[channel, low, high]))).await.is_err() {
                return;
            }
        }
        let (input, receiver) = mpsc::channel(WINDOW);
        inputs.push(input);
        connections.spawn(forward(streams.clone(), container.clone(), port, channel, receiver, sender.clone()));
    }
    drop(sender);
    loop {
        tokio::select! {
            frame = outgoing.recv() => match frame {
                Some(frame) => if sink.send(Message::Binary(frame)).await.is_err() { return },
                None => break,
            },
            message = source.next() => match message {
                Some(Ok(Message::Binary(data))) => {
                    let Some((channel, payload)) = data.split_first() else { continue };
                    if let Some(input) = inputs.get(usize::from(*channel) / 2).filter(|_| channel % 2 == 0) {
                        let sending = input.send(Bytes::copy_from_slice(payload));
                        tokio::pin!(sending);
                        loop {
                            tokio::select! {
                                _ = &mut sending => break,
                                Some(frame) = outgoing.recv() => if sink.send(Message::Binary(frame)).await.is_err() { return },
                            }
                        }
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        }
    }
    let close = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
    let _ = sink.send(Message::Close(Some(close))).await;
}

fn message(channel: u8, payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + payload.len());
    message.put_u8(channel);
    message.put_slice(payload);
    message.freeze()
}

async fn forward(
    streams: Streams,
    container: ContainerRef,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<Bytes>,
) {
    let connection = match streams.port_forward(&container, port).await {
        Ok(connection) => connection,
        Err(status) => {
            let text = format!("error forwarding port {port} to pod {}: {}", container.pod, status.message);
            let _ = output.send(message(channel + 1, text.as_bytes())).await;
            return;
        }
    };
    let (mut reader, mut writer) = tokio::io::split(connection);
    let inward = async {
        while let Some(data) = input.recv().await {
            if writer.write_all(&data).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
        std::future::pending::<()>().await
    };
    let outward = async {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(length) = reader.read(&mut buffer).await {
            if length == 0 || output.send(message(channel, &buffer[..length])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
