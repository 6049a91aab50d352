//! A thousand watchers of one kind while it is written.
//!
//! On two cores a thousand readers of everything cannot follow writers at full speed: that would be gigabytes of ciphertext a second.
//! So the writer is paced for the watchers that are told everything, and goes at full speed beside watchers that, like a thousand
//! kubelets, select what is not being written.

use crate::client::{Connection, Lines, Until, closed_loop, get, post};
use crate::server::Server;
use crate::table::{Table, Target};
use crate::{CLIENTS, config_map, median};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, LocalSet};

const WATCHERS: usize = 1000;
const PATH: &str = "/api/v1/namespaces/watched/configmaps";
/// Writes of the paced writer, and how many a second.
const PACED: usize = 300;
const PACE: u64 = 50;
/// Writes of a round at full speed.
const COUNT: u64 = 10_000;
const ROUNDS: usize = 3;

pub(crate) async fn measure(table: &Table) -> Result<()> {
    LocalSet::new().run_until(all(table)).await
}

async fn all(table: &Table) -> Result<()> {
    let target = Target { at_least: 50.0, aim: 5.0 };
    for over in [Over::Http1, Over::Http2] {
        let server = Server::start()?;
        server.namespace("watched").await?;
        let seen = Seen::new(PACED);
        let watchers = watch(&server, over, "", &seen).await?;
        let (p50, p99) = paced(&server, &seen).await?;
        let beside = format!(
            "p50 {p50:.2} ms; {PACE} writes/s, {} told/s; counted from sending the write",
            PACE as usize * WATCHERS
        );
        table.row(&format!("1,000 watchers{}, write to the last, p99", over.name()), p99, "ms", target, &beside);
        drop(watchers);
    }

    let server = Server::start()?;
    server.namespace("watched").await?;
    let (mut alone, mut beside_watchers) = (Vec::new(), Vec::new());
    let seen = Seen::new(0);
    for round in 0..ROUNDS {
        alone.push(full_speed(&server, &format!("alone-{round}")).await?);
        let watchers = watch(&server, Over::Http1, "&labelSelector=node%3Dother", &seen).await?;
        beside_watchers.push(full_speed(&server, &format!("watched-{round}")).await?);
        drop(watchers);
    }
    let losses = alone.iter().zip(&beside_watchers).map(|(alone, watched)| (1.0 - watched / alone) * 100.0).collect();
    let (alone, watched) = (median(alone), median(beside_watchers));
    let beside = format!("{alone:.0} /s alone, {watched:.0} /s watched by 1,000 who select other objects");
    table.row("the same, loss of write rate", median(losses), "%", Target { at_least: 25.0, aim: 5.0 }, &beside);

    let told = Rc::new(Cell::new(0_u64));
    let seen = Seen { told: told.clone(), ..Seen::new(0) };
    let watchers = watch(&server, Over::Http1, "", &seen).await?;
    let start = Instant::now();
    let rate = full_speed(&server, "told").await?;
    let each = told.get() as f64 / start.elapsed().as_secs_f64();
    drop(watchers);
    table.note("writes by 64 while 1,000 are told all of them", rate, "/s", &format!("{each:.0} events told/s"));
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Over {
    Http1,
    Http2,
}

impl Over {
    fn name(self) -> &'static str {
        match self {
            Over::Http1 => "",
            Over::Http2 => " on 10 HTTP/2",
        }
    }
}

/// Of one event, how many watchers have it and when the last of them got it.
#[derive(Clone, Copy)]
struct Told {
    count: usize,
    last: Instant,
}

/// What the watchers have been told, in order.
#[derive(Clone)]
struct Seen {
    events: Rc<RefCell<Vec<Told>>>,
    told: Rc<Cell<u64>>,
}

impl Seen {
    fn new(events: usize) -> Seen {
        Seen {
            events: Rc::new(RefCell::new(vec![Told { count: 0, last: Instant::now() }; events])),
            told: Rc::default(),
        }
    }

    /// What one watcher calls for each of its events.
    fn watcher(&self) -> impl FnMut() + use<> {
        let (seen, mut next) = (self.clone(), 0);
        move || {
            seen.told.set(seen.told.get() + 1);
            if let Some(event) = seen.events.borrow_mut().get_mut(next) {
                event.count += 1;
                event.last = Instant::now();
            }
            next += 1;
        }
    }
}

/// Starts the watches; they end with what is returned.
async fn watch(server: &Server, over: Over, selector: &str, seen: &Seen) -> Result<JoinSet<Result<()>>> {
    let version = newest(server).await?;
    let path = format!("{PATH}?watch=true&resourceVersion={version}{selector}");
    let mut watchers = JoinSet::new();
    let begun = Rc::new(Cell::new(0));
    match over {
        Over::Http1 => {
            for _ in 0..WATCHERS {
                let (connection, path, begun) = (server.connect().await?, path.clone(), begun.clone());
                let event = seen.watcher();
                watchers
                    .spawn_local(async move { connection.watch(&path, || begun.set(begun.get() + 1), event).await });
            }
        }
        Over::Http2 => {
            for _ in 0..10 {
                let stream = TokioIo::new(server.address.http2().await?);
                let (sender, connection) =
                    hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream).await?;
                watchers.spawn_local(async move { Ok(connection.await?) });
                for _ in 0..WATCHERS / 10 {
                    let (mut sender, path, begun) = (sender.clone(), path.clone(), begun.clone());
                    let mut event = seen.watcher();
                    watchers.spawn_local(async move {
                        let request = http::Request::get(format!("https://localhost{path}")).body(Empty::new())?;
                        let mut body = sender.send_request(request).await?.into_body();
                        begun.set(begun.get() + 1);
                        let mut lines = Lines::default();
                        while let Some(frame) = body.frame().await {
                            if let Ok(data) = frame?.into_data() {
                                lines.feed(&data, &mut event);
                            }
                        }
                        Ok(())
                    });
                }
            }
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while begun.get() < WATCHERS {
        if let Some(ended) = watchers.try_join_next() {
            ended??;
        }
        ensure!(Instant::now() < deadline, "{} of {WATCHERS} watches have begun", begun.get());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(watchers)
}

/// The newest resourceVersion.
async fn newest(server: &Server) -> Result<u64> {
    let mut connection = server.connect().await?;
    let text = connection.text(&get(&format!("{PATH}?limit=1"))).await?;
    let list: serde_json::Value = serde_json::from_str(&text)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list without resourceVersion")?;
    Ok(version.parse()?)
}

/// Writes at a steady pace; p50 and p99 in ms of the time from sending a write to the last watcher that is told.
async fn paced(server: &Server, seen: &Seen) -> Result<(f64, f64)> {
    let mut connection: Connection = server.connect().await?;
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / PACE));
    let mut sent = Vec::new();
    for number in 0..PACED {
        ticks.tick().await;
        let request = post(PATH, &config_map(&format!("paced-{number}"), 720));
        sent.push(Instant::now());
        ensure!(connection.exchange(&request).await?.code == 201, "a paced write was refused");
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while seen.events.borrow().iter().any(|event| event.count < WATCHERS) {
        ensure!(Instant::now() < deadline, "not every watcher was told everything");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let events = seen.events.borrow();
    let mut times = Vec::new();
    for (event, sent) in events.iter().zip(sent) {
        let time = event.last.checked_duration_since(sent).context("an event was told before it was written")?;
        times.push(time.as_nanos() as u64);
    }
    let [p50, p99] = crate::veth::percentiles(times);
    Ok((p50 / 1e3, p99 / 1e3))
}

async fn full_speed(server: &Server, names: &str) -> Result<f64> {
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(server.connect().await?);
    }
    let request = |number| post(PATH, &config_map(&format!("{names}-{number}"), 720));
    Ok(closed_loop(&mut connections, Until::Count(COUNT), 201, request).await?.per_second)
}
