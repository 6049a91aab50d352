//! The yardstick for what the wire and the load allow: the same HTTP library, the same TLS settings and as many threads, in a process
//! of its own, answering every request with the same bytes.

use crate::client::Address;
use anyhow::{Context, Result};
use apiserver::certs::{CertificateAuthority, Identity, ServingCertificate};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// What makes the benchmark be that server.
pub(crate) const ARGUMENT: &str = "fixed-server";

/// What the server is told on its standard input.
#[derive(Serialize, Deserialize)]
struct Order {
    length: usize,
    authority: (String, String),
    serving: (String, String),
}

/// The process.
pub(crate) struct Fixed {
    child: Child,
    pub(crate) address: Address,
}

impl Fixed {
    /// Starts it; every answer will have a body of `length` bytes.
    pub(crate) fn start(length: usize) -> Result<Fixed> {
        let authority = CertificateAuthority::generate()?;
        let serving = authority.serving(&["localhost"], &[Ipv4Addr::LOCALHOST.into()])?;
        let client = authority.client("kubernetes-admin", &["system:masters"])?;
        let identity = authority.identity();
        let order = Order {
            length,
            authority: (identity.certificate, identity.key),
            serving: (serving.certificate, serving.key),
        };
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the fixed server cannot be started")?;
        let mut input = child.stdin.take().context("no standard input")?;
        writeln!(input, "{}", serde_json::to_string(&order)?)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let socket = line.trim().parse().with_context(|| format!("the fixed server said {line:?}"))?;
        let address = Address::new(socket, authority.certificate(), &client.certificate, &client.key)?;
        Ok(Fixed { child, address })
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the server, for ever.
pub(crate) fn serve() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let Order { length, authority, serving } = serde_json::from_str(&line)?;
    let identity = |(certificate, key)| Identity { certificate, key };
    let serving = Arc::new(ServingCertificate::from_pem(&identity(serving))?);
    let tls = CertificateAuthority::from_pem(&identity(authority))?.tls(serving)?.config();
    let body = Bytes::from(vec![b'v'; length]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        let acceptor = TlsAcceptor::from(tls);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, body) = (acceptor.clone(), body.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = hyper::service::service_fn(move |_| {
                    let answer = hyper::Response::new(Full::new(body.clone()));
                    async move { Ok::<_, Infallible>(answer) }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    })
}
