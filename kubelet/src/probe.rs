//! Probes: one attempt of an HTTP, TCP, gRPC or exec check, and the counting that turns attempts into a verdict.
//!
//! Network probes come from the node's own address, which policies never keep out (SEMANTICS 11.10).

use crate::virtual_runtime::Instance;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netstack::Host;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Where a probe finds what it checks.
pub(crate) struct Target<'a> {
    pub(crate) container: &'a core::Container,
    pub(crate) instance: &'a Arc<Instance>,
    pub(crate) node: &'a Host,
    pub(crate) pod_ip: IpAddr,
}

/// A probe's verdict after enough attempts in a row.
pub(crate) enum Outcome {
    Success,
    Failure(String),
}

/// Why an attempt failed.
struct Unhealthy {
    why: String,
    /// Nobody listens there (yet).
    refused: bool,
}

impl From<String> for Unhealthy {
    fn from(why: String) -> Self {
        Unhealthy { why, refused: false }
    }
}

/// The first pause before another attempt at a port on which nobody listens yet.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Attempts `probe` over and over and calls `report` whenever a threshold has been reached, until `report` says to stop.
/// Every failed attempt is told to `failed`, for events.
///
/// Unlike the real kubelet, a port that refuses at first is tried again soon, and more and more slowly until a period has passed: a
/// program needs a moment to listen, and no pod should be late by a whole period for that.
pub(crate) async fn watch(
    probe: &core::Probe,
    target: &Target<'_>,
    mut failed: impl FnMut(&str),
    mut report: impl FnMut(Outcome) -> bool,
) {
    let seconds = |value: Option<i32>, default: i32| Duration::from_secs(value.unwrap_or(default).max(0) as u64);
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let (needed, allowed) = (probe.success_threshold.unwrap_or(1).max(1), probe.failure_threshold.unwrap_or(3).max(1));
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let (mut successes, mut failures) = (0, 0);
    let mut pause = FIRST_PAUSE;
    loop {
        let attempt = tokio::time::timeout(timeout, attempt(probe, target)).await;
        let result =
            attempt.unwrap_or_else(|_| Err(format!("context deadline exceeded after {} s", timeout.as_secs()).into()));
        let outcome = match result {
            Err(Unhealthy { refused: true, .. }) if pause < period / 2 => {
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            }
            Ok(()) => {
                pause = period;
                (successes, failures) = (successes + 1, 0);
                (successes == needed).then_some(Outcome::Success)
            }
            Err(Unhealthy { why, .. }) => {
                pause = period;
                failed(&why);
                (successes, failures) = (0, failures + 1);
                (failures == allowed).then_some(Outcome::Failure(why))
            }
        };
        if outcome.is_some_and(&mut report) {
            return;
        }
        tokio::time::sleep(period).await;
    }
}

async fn attempt(probe: &core::Probe, target: &Target<'_>) -> Result<(), Unhealthy> {
    if let Some(get) = &probe.http_get {
        return http_get(get, target).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let address = SocketAddr::new(host(tcp.host.as_deref(), target), port(&tcp.port, target.container)?);
        return dial(target, address).await.map(drop);
    }
    if let Some(exec) = &probe.exec {
        let (_keep, signals) = watch::channel(0);
        let (input, output) = (Box::new(tokio::io::empty()), Box::new(tokio::io::sink()));
        let command = exec.command.clone().unwrap_or_default();
        let code = target.instance.exec(command, input, output, Box::new(tokio::io::sink()), None, signals).await;
        return if code == 0 { Ok(()) } else { Err(format!("command exited with status {code}").into()) };
    }
    if let Some(grpc) = &probe.grpc {
        // The health service itself is not asked: that the port accepts is what is checked.
        let address = SocketAddr::new(target.pod_ip, grpc.port as u16);
        return dial(target, address).await.map(drop);
    }
    Ok(())
}

async fn dial(target: &Target<'_>, address: SocketAddr) -> Result<netstack::TcpStream, Unhealthy> {
    let dialled = target.node.tcp_connect(address).await;
    dialled.map_err(|error| Unhealthy {
        why: format!("dial tcp {address}: {error}"),
        refused: error.kind() == std::io::ErrorKind::ConnectionRefused,
    })
}

async fn http_get(get: &core::HTTPGetAction, target: &Target<'_>) -> Result<(), Unhealthy> {
    let address = SocketAddr::new(host(get.host.as_deref(), target), port(&get.port, target.container)?);
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let url = format!("http://{address}{path}");
    let fail = |error: &dyn std::fmt::Display| Unhealthy::from(format!("Get {url:?}: {error}"));
    let dialled = dial(target, address).await;
    let stream =
        dialled.map_err(|error| Unhealthy { why: format!("Get {url:?}: {}", error.why), refused: error.refused })?;
    if get.scheme.as_deref() == Some("HTTPS") {
        // As the kubelet does not verify certificates either, an open port is taken for an answer.
        return Ok(());
    }
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| fail(&error))?;
    let mut request =
        hyper::Request::get(&path).header("Host", address.to_string()).header("User-Agent", "kube-probe/1.36");
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| fail(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        // The body is read to its end, so that the server sees no broken connection.
        let _ = response.into_body().collect().await;
        Ok::<_, hyper::Error>(status)
    };
    // The connection's future must be driven while the exchange runs; it may end first.
    let exchange = std::pin::pin!(exchange);
    let status = match futures::future::select(exchange, std::pin::pin!(connection)).await {
        futures::future::Either::Left((status, _)) => status,
        futures::future::Either::Right((_, exchange)) => exchange.await,
    };
    match status {
        Ok(status) if (200..400).contains(&status.as_u16()) => Ok(()),
        Ok(status) => Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()).into()),
        Err(error) => Err(fail(&error)),
    }
}

fn host(given: Option<&str>, target: &Target<'_>) -> IpAddr {
    given.and_then(|host| host.parse().ok()).unwrap_or(target.pod_ip)
}

fn port(port: &IntOrString, container: &core::Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    let number = number.ok_or_else(|| format!("no container port is named {port:?}"))?;
    u16::try_from(number).map_err(|_| format!("port {number} is out of range"))
}
