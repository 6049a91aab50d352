//! `agnhost connect HOST:PORT`: exits with 0 if a connection can be made, else says why not.

use super::{flags, go_duration};
use crate::program::Container;
use crate::programs::resolver::Resolver;
use crate::programs::stdio::{Outcome, reason};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub(super) async fn run(c: &mut Container) -> Outcome {
    let flags = flags(&c.args[2..]);
    let value = |name: &str| flags.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str());
    let Some(destination) = value("").map(str::to_owned) else {
        c.complain("Error: accepts 1 arg(s), received 0").await;
        return Ok(1);
    };
    let timeout = value("timeout").map_or(Some(Duration::from_secs(1)), go_duration);
    let Some(timeout) = timeout else {
        c.complain("Error: invalid argument for \"--timeout\" flag").await;
        return Ok(1);
    };
    let protocol = value("protocol").unwrap_or("tcp").to_ascii_lowercase();
    let data = value("udp-data").unwrap_or("EHLO\n").to_owned();
    let Some((host, port)) = destination.rsplit_once(':') else {
        c.complain(format!("OTHER: address {destination}: missing port in address")).await;
        return Ok(1);
    };
    let Ok(port) = port.parse::<u16>() else {
        c.complain(format!("OTHER: address {destination}: invalid port")).await;
        return Ok(1);
    };
    let addresses = match Resolver::new(&c.host, &c.files).addresses(host).await {
        Ok(addresses) => addresses,
        Err(error) => {
            c.complain(format!("DNS: lookup {host}: {error}")).await;
            return Ok(1);
        }
    };
    let to = SocketAddr::new(addresses[0], port);
    let attempt = async {
        match protocol.as_str() {
            "tcp" => c.host.tcp_connect(to).await.map(drop),
            "udp" => {
                let socket = c.host.udp_bind(0)?;
                socket.send_to(data.as_bytes(), to).await?;
                let mut buffer = [0; 1024];
                socket.recv_from(&mut buffer).await.map(drop)
            }
            other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("protocol {other} is not supported"))),
        }
    };
    let result = tokio::time::timeout(timeout, attempt).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
    let message = match result {
        Ok(()) => return Ok(0),
        Err(error) => match error.kind() {
            io::ErrorKind::TimedOut => "TIMEOUT".to_owned(),
            io::ErrorKind::ConnectionRefused => "REFUSED".to_owned(),
            _ => format!("OTHER: dial {protocol} {to}: connect: {}", reason(&error).to_lowercase()),
        },
    };
    c.complain(message).await;
    Ok(1)
}
