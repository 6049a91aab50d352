//! SOCKS version 5 (RFC 1928): CONNECT without authentication, by IPv4 or IPv6 address or by name.

use super::{Dialler, NotConnected, PATIENCE, SOCKS5, Stream, carry};
use anyhow::{Result, bail};
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHODS: u8 = 0xFF;
const CONNECT: u8 = 1;

/// REP of a reply (section 6).
#[derive(Clone, Copy)]
#[repr(u8)]
enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TtlExpired = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

/// Serves one client.
pub(super) async fn serve(mut client: impl Stream, dialler: &Dialler) -> Result<()> {
    let (host, port) = match tokio::time::timeout(PATIENCE, negotiate(&mut client)).await?? {
        Ok(wanted) => wanted,
        Err(reply) => return answer(&mut client, reply).await,
    };
    match dialler.connect(&host, port).await {
        Ok(stream) => {
            answer(&mut client, Reply::Succeeded).await?;
            Ok(carry(client, stream).await?)
        }
        Err(why) => {
            tracing::debug!(host, port, why = why.text(), "not connected");
            let reply = match why {
                NotConnected::NoHost(_) => Reply::HostUnreachable,
                NotConnected::Refused(_) => Reply::ConnectionRefused,
                // Of the replies there are, the one for packets that go nowhere.
                NotConnected::TimedOut(_) => Reply::TtlExpired,
                NotConnected::Failed(_) => Reply::GeneralFailure,
            };
            answer(&mut client, reply).await
        }
    }
}

/// Sections 3 and 4: the method, then the request. Where the client wants to go, or why it will not.
async fn negotiate(client: &mut impl Stream) -> Result<Result<(String, u16), Reply>> {
    let (version, count) = (client.read_u8().await?, client.read_u8().await?);
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods).await?;
    if version != SOCKS5 || !methods.contains(&NO_AUTHENTICATION) {
        client.write_all(&[SOCKS5, NO_ACCEPTABLE_METHODS]).await?;
        bail!("SOCKS {version} with methods {methods:?}: only version 5 without authentication is spoken");
    }
    client.write_all(&[SOCKS5, NO_AUTHENTICATION]).await?;
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != SOCKS5 {
        bail!("a request of SOCKS version {version}");
    }
    let host = match kind {
        1 => Ipv4Addr::from(client.read_u32().await?).to_string(),
        3 => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            match String::from_utf8(name) {
                Ok(name) if !name.is_empty() => name,
                _ => return Ok(Err(Reply::HostUnreachable)),
            }
        }
        4 => Ipv6Addr::from(client.read_u128().await?).to_string(),
        _ => return Ok(Err(Reply::AddressTypeNotSupported)),
    };
    let port = client.read_u16().await?;
    Ok(if command == CONNECT { Ok((host, port)) } else { Err(Reply::CommandNotSupported) })
}

async fn answer(client: &mut impl Stream, reply: Reply) -> Result<()> {
    // BND.ADDR and BND.PORT mean nothing here: 0.0.0.0:0.
    client.write_all(&[SOCKS5, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(client.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn negotiated(bytes: &[u8]) -> (Option<Result<(String, u16), u8>>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(bytes).await.expect("written");
        theirs.shutdown().await.expect("shut down");
        let outcome = negotiate(&mut ours).await.ok().map(|wanted| wanted.map_err(|reply| reply as u8));
        drop(ours);
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.expect("read");
        (outcome, said)
    }

    #[tokio::test]
    async fn a_request_says_where_to_go() {
        let greeting = [5, 2, 0, 2];
        let name = [&greeting[..], &[5, 1, 0, 3, 3], b"api", &[0, 80]].concat();
        assert_eq!(negotiated(&name).await, (Some(Ok(("api".into(), 80))), vec![5, 0]));
        let v4 = [&greeting[..], &[5, 1, 0, 1, 10, 96, 0, 1, 1, 187]].concat();
        assert_eq!(negotiated(&v4).await.0, Some(Ok(("10.96.0.1".into(), 443))));
        let mut v6 = [&greeting[..], &[5, 1, 0, 4]].concat();
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend([0, 80]);
        assert_eq!(negotiated(&v6).await.0, Some(Ok(("::1".into(), 80))));
    }

    #[tokio::test]
    async fn what_is_not_spoken_is_refused_as_the_rfc_says() {
        let bind = [5, 1, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(negotiated(&bind).await.0, Some(Err(Reply::CommandNotSupported as u8)));
        let strange = [5, 1, 0, 5, 1, 0, 9];
        assert_eq!(negotiated(&strange).await.0, Some(Err(Reply::AddressTypeNotSupported as u8)));
        let password_only = [5, 1, 2];
        assert_eq!(negotiated(&password_only).await, (None, vec![5, 0xFF]));
        assert_eq!(negotiated(&[5, 1]).await.0, None);
    }
}
