//! The rules of the network, at its edge: hosts, ports, hooks, the gateway.

mod backlog;
mod flow_log;
mod gateway;
mod hosts;
mod policy;
mod publish;
mod raw;
mod sctp;
mod tap;
mod tcp;
mod timeouts;
mod translation;
mod udp;
mod wire;

use netstack::{
    Config, Filter, FiveTuple, Hooks, Host, Network, NewFlow, PortTag, Reason, TcpStream, Translate, Translation,
    Verdict,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

pub(crate) fn network() -> Network {
    Network::new(Config { mtu: 1500, seed: 1 })
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A host at that address; its tag is the last byte of it.
pub(crate) fn host(network: &Network, address: &str) -> Host {
    let ip = ip(address);
    let tag = match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    network.attach_host(&[ip], PortTag(tag.into())).unwrap()
}

/// Hooks from two functions.
pub(crate) struct Rules<T, F>(T, F);

impl<T: Fn(&FiveTuple) -> Translation + Send + Sync + 'static, F: Send + Sync + 'static> Translate for Rules<T, F> {
    fn translate(&self, flow: &FiveTuple, _: PortTag, _: Instant) -> Translation {
        (self.0)(flow)
    }
}

impl<T: Send + Sync + 'static, F: Fn(&NewFlow) -> Verdict + Send + Sync + 'static> Filter for Rules<T, F> {
    fn verdict(&self, flow: &NewFlow) -> Verdict {
        (self.1)(flow)
    }
}

pub(crate) fn install<T, F>(network: &Network, translate: T, filter: F)
where
    T: Fn(&FiveTuple) -> Translation + Send + Sync + 'static,
    F: Fn(&NewFlow) -> Verdict + Send + Sync + 'static,
{
    let rules = Arc::new(Rules(translate, filter));
    network.install(Hooks { translate: rules.clone(), filter: rules });
}

pub(crate) fn pass(_: &FiveTuple) -> Translation {
    Translation::Pass
}

pub(crate) fn accept(_: &NewFlow) -> Verdict {
    Verdict::Accept
}

pub(crate) fn to(destination: &str, snat: Option<&str>) -> Translation {
    Translation::To { dst: at(destination), snat: snat.map(ip) }
}

/// `virtual_address` means `destination`.
pub(crate) fn dnat(
    virtual_address: &'static str,
    destination: &'static str,
    snat: Option<&'static str>,
) -> impl Fn(&FiveTuple) -> Translation + Send + Sync + 'static {
    move |flow| if flow.dst == at(virtual_address) { to(destination, snat) } else { Translation::Pass }
}

pub(crate) const FORBIDDEN: Reason = Reason("FORBIDDEN");

/// Serves on a port: every connection is told its peer's address, then gets back what it sends.
pub(crate) fn serve(host: &Host, port: u16) -> tokio::task::JoinHandle<()> {
    let listener = host.tcp_listen(port).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(format!("{peer}\n").as_bytes()).await?;
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    })
}

/// Reads the line with which [`serve`] begins.
pub(crate) async fn greeting(stream: &mut TcpStream) -> String {
    let mut line = String::new();
    loop {
        match stream.read_u8().await.unwrap() {
            b'\n' => return line,
            byte => line.push(byte.into()),
        }
    }
}

/// Connects to [`serve`] and checks that an echo comes back; what the server sees as its peer.
pub(crate) async fn echo(from: &Host, to: &str) -> std::io::Result<String> {
    let mut stream = from.tcp_connect(at(to)).await?;
    let peer = greeting(&mut stream).await;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert_eq!(answer, "hello");
    Ok(peer)
}

/// Long enough for anything but a real timeout, none of the clock's time when the clock is paused.
pub(crate) const SOON: Duration = Duration::from_secs(5);
