//! A real etcd: one process, on loopback, with its defaults.

use crate::grpc::{Channel, Message, Messages, count};
use crate::work::{PREFIX, Subject, VALUE, Watching};
use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections which the clients share.
const CONNECTIONS: usize = 4;
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running etcd; dropping it ends it.
pub(crate) struct Etcd {
    process: Child,
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Etcd {
    /// Starts it on a directory and waits until it answers.
    pub(crate) async fn start(program: &Path, dir: &Path) -> Result<Self, Box<dyn Error>> {
        let [client, peer] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
        let mut process = Command::new(program)
            .arg("--data-dir")
            .arg(dir)
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            // Room for what the rounds write; compaction stays off, as it would only cost it something.
            .args(["--quota-backend-bytes", &(8u64 << 30).to_string(), "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let start = Instant::now();
        let mut channels = Vec::new();
        while channels.len() < CONNECTIONS {
            if let Some(status) = process.try_wait()? {
                return Err(format!("etcd has ended: {status}").into());
            }
            match Channel::connect(&client).await {
                // A read is answered once it has elected itself.
                Ok(channel) if channel.call(RANGE, range("/nothing", 1)).await.is_ok() => channels.push(channel),
                _ if start.elapsed() > PATIENCE => return Err("etcd does not answer".into()),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        Ok(Self { process, channels, next: AtomicUsize::new(0) })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it in good order: kill -9 made version 3.5.1 lose a key here once, as it was known to.
    pub(crate) fn stop(mut self) -> std::io::Result<()> {
        Command::new("kill").arg(self.process.id().to_string()).status()?;
        self.process.wait().map(drop)
    }

    fn channel(&self) -> &Channel {
        &self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()]
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

const RANGE: &str = "etcdserverpb.KV/Range";
const PUT: &str = "etcdserverpb.KV/Put";
const WATCH: &str = "etcdserverpb.Watch/Watch";

/// `RangeRequest` of a prefix: key, range_end, limit.
fn range(prefix: &str, limit: u64) -> Message {
    Message::default().bytes(1, prefix.as_bytes()).bytes(2, &end_of(prefix)).number(3, limit)
}

fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("no prefix is empty") += 1;
    end
}

impl Subject for Etcd {
    async fn put(&self, key: String) {
        // PutRequest: key, value.
        let message = Message::default().bytes(1, key.as_bytes()).bytes(2, &[b'x'; VALUE]);
        self.channel().call(PUT, message).await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn list(&self) -> usize {
        let response = self.channel().call(RANGE, range(PREFIX, 0)).await.unwrap_or_else(|error| panic!("{error}"));
        // RangeResponse: kvs.
        count(&response, 2)
    }

    async fn watch(&self, watchers: usize) -> Watching {
        use futures::StreamExt;
        // WatchRequest of a WatchCreateRequest: key, range_end. All on one stream, as its own client does.
        let creations: Vec<_> = (0..watchers)
            .map(|watcher| {
                let prefix = format!("{PREFIX}{}/", watcher % 10);
                let create = Message::default().bytes(1, prefix.as_bytes()).bytes(2, &end_of(&prefix));
                Message::default().message(1, create)
            })
            .collect();
        let messages = futures::stream::iter(creations).chain(futures::stream::pending());
        let mut answers = self.channel().stream(WATCH, messages).await.unwrap_or_else(|error| panic!("{error}"));
        for _ in 0..watchers {
            answers.next().await.expect("every watch is created");
        }
        let seen = Arc::new(AtomicUsize::new(0));
        let tasks = vec![tokio::spawn(read(answers, seen.clone()))];
        Watching { seen, tasks }
    }
}

async fn read(mut answers: Messages, seen: Arc<AtomicUsize>) {
    while let Some(answer) = answers.next().await {
        // WatchResponse: events.
        seen.fetch_add(count(&answer, 11), Ordering::Relaxed);
    }
}
