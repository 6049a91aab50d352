//! GETs of single objects beside a server that does not think; lists of 6,500 objects, and pages of them.

use crate::client::{Connection, Until, closed_loop, get, post};
use crate::fixed::Fixed;
use crate::server::Server;
use crate::table::{Table, Target};
use crate::{CLIENTS, ROUNDS, config_map, median, yardstick};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::cell::Cell;
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_millis(1500);
const OBJECTS: u64 = 6500;
const LISTS: usize = 20;
const PAGES: usize = 200;

async fn filled(server: &Server, namespace: &str, objects: u64) -> Result<()> {
    server.namespace(namespace).await?;
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(server.connect().await?);
    }
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let request = |number| post(&path, &config_map(&format!("c{number}"), 720));
    closed_loop(&mut connections, Until::Count(objects), 201, request).await?;
    Ok(())
}

pub(crate) async fn gets(table: &Table) -> Result<()> {
    const NAMES: u64 = 1000;
    let server = Server::start()?;
    filled(&server, "gets", NAMES).await?;
    let path = |number: u64| format!("/api/v1/namespaces/gets/configmaps/c{}", number % NAMES);
    let length = server.connect().await?.exchange(&get(&path(7))).await?.length;
    let fixed = Fixed::start(length)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        ours.push(server.connect().await?);
        theirs.push(Connection::new(&fixed.address).await?);
    }
    let (mut rates, mut bounds, mut ratios, mut cpu, mut p99, mut http2) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let request = |number| get(&path(number));
        let busy = server.cpu();
        let achieved = closed_loop(&mut ours, Until::Elapsed(RUN), 200, request).await?;
        cpu.push((server.cpu() - busy).as_secs_f64() * 1e6 / (achieved.per_second * RUN.as_secs_f64()));
        let bound = closed_loop(&mut theirs, Until::Elapsed(RUN), 200, request).await?.per_second;
        rates.push(achieved.per_second);
        p99.push(achieved.latency[1] / 1e3);
        bounds.push(bound);
        ratios.push(achieved.per_second / bound);
        http2.push(over_http2(&server, &path).await?);
    }
    let rate = median(rates);
    let beside = format!(
        "{:.1} × kube-apiserver's; {:.2} of a server that answers a constant ({:.0} /s); p99 {:.2} ms; {:.0} µs of CPU each",
        rate / yardstick::GETS_64,
        median(ratios),
        median(bounds),
        median(p99),
        median(cpu)
    );
    table.row("GET, 64 clients", rate, "/s", Target { at_least: 15_000.0, aim: 40_000.0 }, &beside);
    table.note(
        "the same over HTTP/2, 4 connections",
        median(http2),
        "/s",
        "64 requests at a time; the client is hyper",
    );
    Ok(())
}

/// The same number of requests at a time, on few connections.
async fn over_http2(server: &Server, path: &impl Fn(u64) -> String) -> Result<f64> {
    const CONNECTIONS: usize = 4;
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TokioIo::new(server.address.http2().await?);
        let (sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    let (count, start) = (Cell::new(0_u64), Instant::now());
    let clients = (0..CLIENTS).map(|client| {
        let (mut sender, count) = (senders[client % CONNECTIONS].clone(), &count);
        async move {
            while start.elapsed() < RUN {
                count.set(count.get() + 1);
                let uri = format!("https://localhost{}", path(count.get()));
                let answer = sender.send_request(http::Request::get(uri).body(Empty::new())?).await?;
                ensure!(answer.status() == 200, "answered with {}", answer.status());
                answer.into_body().collect().await?;
            }
            Ok(())
        }
    });
    futures::future::try_join_all(clients).await?;
    Ok(count.get() as f64 / start.elapsed().as_secs_f64())
}

pub(crate) async fn lists(table: &Table) -> Result<()> {
    let server = Server::start()?;
    filled(&server, "lists", OBJECTS).await?;
    let mut connection = server.connect().await?;
    let all = "/api/v1/namespaces/lists/configmaps";
    let page = format!("{all}?limit=500");
    let length = connection.exchange(&get(all)).await?.length;
    ensure!(length > OBJECTS as usize * 900, "a list of {length} bytes");
    let fixed = Fixed::start(length)?;
    let mut constant = Connection::new(&fixed.address).await?;
    let (mut whole, mut bound, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        whole.push(once(&mut connection, all, LISTS).await?);
        bound.push(once(&mut constant, all, LISTS).await?);
        pages.push(once(&mut connection, &page, PAGES).await?);
    }
    let (whole, bound, pages) = (median(whole), median(bound), median(pages));
    let beside = format!(
        "{:.1} × as fast as kube-apiserver; {:.1} MB; a server that answers a constant of that size: {bound:.2} ms",
        yardstick::LIST / whole,
        length as f64 / 1e6
    );
    table.row("list of 6,500", whole, "ms", Target { at_least: 15.0, aim: 3.0 }, &beside);
    let beside = format!("{:.1} × as fast as kube-apiserver", yardstick::PAGE / pages);
    table.row("page of 500 of them", pages, "ms", Target { at_least: 2.0, aim: 0.3 }, &beside);
    Ok(())
}

/// The median time of a request, in ms.
async fn once(connection: &mut Connection, path: &str, times: usize) -> Result<f64> {
    let request = get(path);
    let mut samples = Vec::new();
    for _ in 0..times {
        let sent = Instant::now();
        let answer = connection.exchange(&request).await.context(path.to_owned())?;
        ensure!(answer.code == 200, "{path}: {}", answer.code);
        samples.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(samples))
}
