//! agnhost: the test image of Kubernetes' own end-to-end tests, as far as networking and pods' lives go.
//!
//! One subcommand per file or family: [`netexec`] (the server most tests talk to), [`servers`] (the smaller ones), [`connect`] (one
//! connection, judged) and here what prints and waits. Output and exit statuses are those of agnhost 2.53.

mod connect;
mod netexec;
mod servers;

#[cfg(test)]
mod tests;

use super::resolver::Resolver;
use super::stdio::{Outcome, SharedOutput};
use super::{Tool, clock};
use crate::program::Container;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

pub(super) const TOOLS: &[Tool] = &[Tool::watching("agnhost", |c| Box::pin(agnhost(c)))];

/// Runs the subcommand; the ones that do not watch signals end at the first one, with the status of death by it.
async fn agnhost(c: &mut Container) -> Outcome {
    let mut signals = c.signals.clone();
    let name = c.args.get(1).cloned().unwrap_or_default();
    let watches = matches!(name.as_str(), "netexec" | "pause");
    let ended = async {
        match signals.wait_for(|signal| matches!(signal, 1 | 2 | 15)).await.map(|signal| *signal) {
            Ok(signal) => signal,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        outcome = subcommand(c, &name) => outcome,
        signal = ended, if !watches => Ok(128 + signal),
    }
}

async fn subcommand(c: &mut Container, name: &str) -> Outcome {
    match name {
        "netexec" => netexec::run(c).await,
        "serve-hostname" => servers::serve_hostname(c).await,
        "porter" => servers::porter(c).await,
        "liveness" => servers::liveness(c).await,
        "test-webserver" => servers::test_webserver(c).await,
        "connect" => connect::run(c).await,
        "pause" => pause(c).await,
        "dns-suffix" => {
            let search = Resolver::new(&c.host, &c.files).config().search;
            c.print(search.join(",")).await?;
            Ok(0)
        }
        "dns-server-list" => {
            let servers = Resolver::new(&c.host, &c.files).config().nameservers;
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            c.print(servers.join(",")).await?;
            Ok(0)
        }
        "etc-hosts" => {
            let hosts = c.files.read("/etc/hosts")?;
            c.print(hosts).await?;
            Ok(0)
        }
        "entrypoint-tester" => {
            let text = format!("[{}]\n", c.args.join(" "));
            c.print(text).await?;
            Ok(0)
        }
        "logs-generator" => logs_generator(c).await,
        "--version" => {
            c.print("app version 2.53\n").await?;
            Ok(0)
        }
        "" | "help" | "--help" | "-h" => {
            c.print(USAGE).await?;
            Ok(0)
        }
        unknown => {
            c.complain(format!("Error: unknown command \"{unknown}\" for \"app\"\nRun 'app --help' for usage.")).await;
            Ok(1)
        }
    }
}

/// Waits for SIGINT or SIGTERM.
async fn pause(c: &mut Container) -> Outcome {
    c.print("Paused\n").await?;
    let mut signals = c.signals.clone();
    if signals.wait_for(|signal| matches!(signal, 2 | 15)).await.is_err() {
        std::future::pending::<()>().await;
    }
    Ok(0)
}

/// Lines that look like an API server's log.
async fn logs_generator(c: &mut Container) -> Outcome {
    let options = flags(&c.args[2..]);
    let total: u32 = number(&options, "log-lines-total").unwrap_or(0);
    let seconds =
        options.iter().find(|(name, _)| name == "run-duration").and_then(|(_, value)| super::options::duration(value));
    let (Some(span), true) = (seconds, total > 0) else {
        c.complain("F1124 logs_generator.go: Invalid duration or total number of lines").await;
        return Ok(255);
    };
    let delay = span / total;
    let methods = ["GET", "PUT", "POST"];
    let namespaces = ["default", "kube-system", "ns"];
    for at in 0..total {
        let code = super::stdio::seed((at, &c.hostname));
        let line = format!(
            "{}logs_generator.go:76] {at} {} /api/v1/namespaces/{}/pods/{:04x} {}\n",
            klog_prefix(),
            methods[code as usize % 3],
            namespaces[(code >> 8) as usize % 3],
            (code >> 16) as u16,
            200 + (code >> 32) % 300,
        );
        c.print(line).await?;
        tokio::time::sleep(delay).await;
    }
    Ok(0)
}

fn klog_prefix() -> String {
    clock::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("I%m%d %H:%M:%S%.6f       1 ").to_string()
}

/// Flags as Go reads them: `--name=value`, `--name value`, `--name` for true. Positional arguments have an empty name.
fn flags(args: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = args.iter().peekable();
    while let Some(arg) = rest.next() {
        let Some(flag) = arg.strip_prefix("--").or(arg.strip_prefix('-')).filter(|flag| !flag.is_empty()) else {
            found.push((String::new(), arg.clone()));
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match rest.next_if(|next| !next.starts_with("--") && !BOOLEAN.contains(&flag)) {
                Some(value) => (flag, value.clone()),
                None => (flag, "true".to_owned()),
            },
        };
        found.push((name.to_owned(), value));
    }
    found
}

/// Flags that never take the next argument.
const BOOLEAN: [&str; 4] = ["tcp", "udp", "http", "close"];

fn number<T: std::str::FromStr>(flags: &[(String, String)], name: &str) -> Option<T> {
    flags.iter().rev().find(|(flag, _)| flag == name).and_then(|(_, value)| value.parse().ok())
}

/// A log as Go's `log` package writes it, shared by all who serve.
#[derive(Clone)]
struct Log(SharedOutput);

impl Log {
    /// Takes the container's standard error.
    fn of(c: &mut Container) -> Log {
        let errors = SharedOutput::new(std::mem::replace(&mut c.stderr, Box::new(tokio::io::sink())));
        c.stderr = Box::new(errors.clone());
        Log(errors)
    }

    async fn line(&self, text: impl AsRef<str>) {
        let time = clock::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y/%m/%d %H:%M:%S");
        let line = format!("{time} {}\n", text.as_ref());
        let mut output = self.0.clone();
        let _ = output.write_all(line.as_bytes()).await;
    }
}

/// Go's durations: `1.5s`, `300ms`, `2m`.
fn go_duration(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    super::options::duration(text)
}

const USAGE: &str = "Usage:
  app [command]

Available Commands:
  connect           Attempts to open a TCP, UDP or SCTP connection
  dns-server-list   Prints the list of DNS servers
  dns-suffix        Prints the list of DNS suffixes
  entrypoint-tester Prints the args it's passed and exits
  etc-hosts         Prints the host's /etc/hosts file
  help              Help about any command
  liveness          Starts a server that is alive for 10 seconds
  logs-generator    Outputs lines of logs to stdout uniformly
  netexec           Creates HTTP(S), UDP, and (optionally) SCTP servers with various endpoints
  pause             Pauses
  porter            Serves requested data on ports specified in ENV variables
  serve-hostname    Serves the hostname
  test-webserver    Starts a simple HTTP fileserver
";
