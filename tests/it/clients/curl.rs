//! curl, as the README shows it: its section is run line by line, so that it stays true.

use crate::support::{Terminal, repository};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");

/// A cluster of the binary, as a user starts it; ends with its handle.
async fn up(terminal: &Terminal) -> Child {
    let mut command = terminal.command(CORACLE);
    command
        .args(["up", "--ephemeral", "--api-port", "0", "--no-kubeconfig"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.expect("readable") {
            if line.starts_with("ready in ") {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.expect("ready in time");
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

/// The fenced blocks of the README's section with this heading, as one transcript.
fn section(heading: &str) -> String {
    let readme = std::fs::read_to_string(repository("README.md")).expect("the README");
    let (_, section) = readme.split_once(&format!("\n{heading}\n")).expect("the section");
    let section = section.split("\n#").next().unwrap_or_default();
    let blocks: Vec<&str> = section.split("\n```").skip(1).step_by(2).collect();
    blocks.join("\n")
}

/// Every command of a transcript gets a shell of its own; what one assigns to a variable, the later ones are given too.
fn with_variables(transcript: &str) -> String {
    let mut assigned = String::new();
    let mut lines = Vec::new();
    for line in transcript.lines() {
        let Some(command) = line.strip_prefix("$ ") else {
            lines.push(line.to_owned());
            continue;
        };
        lines.push(format!("$ {assigned}{command}"));
        let name = command.split('=').next().unwrap_or_default();
        if command.contains('=') && name.chars().all(|c| c.is_ascii_lowercase()) {
            assigned.push_str(&format!("{command}; "));
        }
    }
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_lines_for_curl_print_what_it_says() {
    let section = section("### With nothing but curl");
    let commands = section.lines().filter(|line| line.starts_with("$ ")).count();
    assert!(commands > 10, "the README's section has only {commands} commands");
    let terminal = Terminal::new(&[Path::new(CORACLE)]);
    let curl = terminal.sh("curl --version").await;
    assert_eq!(curl.code, 0, "the test needs curl, from https://curl.se or the system's packages: {curl}");
    let mut child = up(&terminal).await;
    terminal.transcript(&with_variables(&section)).await;
    assert_eq!(terminal.sh("coracle down").await.code, 0);
    child.wait().await.expect("it ends");
}
