//! `base64` and the digests.

use super::Tool;
use super::options::{Options, Order};
use super::stdio::{Outcome, reason};
use super::system::refuse;
use super::text::{or_stdin, print_lines};
use crate::program::Container;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::Digest;
use std::io;
use tokio::io::AsyncReadExt;

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("base64", |c| Box::pin(base64(c))),
    Tool::new("md5sum", |c| Box::pin(digest::<md5::Md5>(c))),
    Tool::new("sha256sum", |c| Box::pin(digest::<sha2::Sha256>(c))),
];

async fn base64(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "d|decode w:|wrap: i", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let operand = options.operands.first().cloned().unwrap_or_else(|| "-".to_owned());
    let bytes = match c.content(&operand).await {
        Ok(bytes) => bytes,
        Err(error) => return refuse(c, format!("can't open '{operand}': {}", reason(&error)), 1).await,
    };
    if options.has("d") {
        let text: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return match BASE64_STANDARD.decode(text) {
            Ok(decoded) => {
                c.print(decoded).await?;
                Ok(0)
            }
            Err(_) => refuse(c, "truncated input", 1).await,
        };
    }
    let wrap = options.value("w").and_then(|width| width.parse::<usize>().ok()).unwrap_or(76);
    let text = BASE64_STANDARD.encode(bytes);
    if wrap == 0 {
        c.print(text).await?;
        return Ok(0);
    }
    print_lines(c, text.as_bytes().chunks(wrap).map(<[u8]>::to_vec)).await?;
    Ok(0)
}

async fn digest<D: Digest>(c: &mut Container) -> Outcome {
    let operands: Vec<String> =
        c.args[1..].iter().filter(|arg| !arg.starts_with('-') || *arg == "-").cloned().collect();
    let mut status = 0;
    for operand in or_stdin(&operands) {
        match sum::<D>(c, &operand).await {
            Ok(digest) => {
                let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                c.print(format!("{digest}  {operand}\n")).await?;
            }
            Err(error) => {
                refuse(c, format!("can't open '{operand}': {}", reason(&error)), 1).await?;
                status = 1;
            }
        }
    }
    Ok(status)
}

/// The digest of an operand, read piece by piece: a file may be larger than what a program may hold.
async fn sum<D: Digest>(c: &mut Container, operand: &str) -> io::Result<Vec<u8>> {
    let mut input = c.open(operand)?;
    let mut digest = D::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match input.read(&mut buffer).await? {
            0 => return Ok(digest.finalize().to_vec()),
            length => digest.update(&buffer[..length]),
        }
        tokio::task::coop::consume_budget().await;
    }
}
