//! How tests run programs: a container on a host of a network of its own.

use super::builtins;
use super::stdio::{pipe, read_all};
use crate::files::Files;
use crate::program::{Container, ExitStatus, Program};
use futures::FutureExt;
use netstack::{Config, Host, Network, PortTag};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A machine with files that programs run on.
pub(crate) struct Machine {
    pub(crate) host: Host,
    pub(crate) files: Files,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) hostname: String,
    /// Kept, so that the network lives.
    _network: Network,
}

/// What a program did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn network() -> Network {
    Network::new(Config { mtu: 1500, seed: 1 })
}

impl Machine {
    pub(crate) fn new() -> Machine {
        Machine::at(&network(), "10.0.0.1")
    }

    /// A machine of a network with others.
    pub(crate) fn at(network: &Network, address: &str) -> Machine {
        let address: IpAddr = address.parse().expect("an address");
        let host = network.attach_host(&[address], PortTag(1)).expect("a free address");
        let files = Files::new();
        files.mount(
            "/etc/hosts",
            format!("127.0.0.1\tlocalhost\n{address}\tweb-0.web.default.svc.cluster.local\tweb-0\n"),
            0o644,
        );
        Machine {
            host,
            files,
            env: vec![("HOME".to_owned(), "/root".to_owned())],
            hostname: "web-0".to_owned(),
            _network: network.clone(),
        }
    }

    /// Runs a program to its end.
    pub(crate) async fn run(&self, args: &[&str], stdin: &str) -> Ran {
        let (never, signals) = watch::channel(0);
        let ran = self.run_with(args, stdin, signals).await;
        drop(never);
        ran
    }

    pub(crate) async fn run_with(&self, args: &[&str], stdin: &str, signals: watch::Receiver<i32>) -> Ran {
        let program = builtins().program(args[0]).expect("a built-in program");
        let (stdout, out) = pipe();
        let (stderr, err) = pipe();
        let container = Container {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: self.env.clone(),
            cwd: "/".to_owned(),
            stdin: Box::new(std::io::Cursor::new(stdin.as_bytes().to_vec())),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            tty: false,
            window: watch::channel(Default::default()).1,
            host: self.host.clone(),
            files: self.files.clone(),
            hostname: self.hostname.clone(),
            programs: builtins(),
            signals,
        };
        let (status, stdout, stderr) = tokio::join!(program.run(container), read_all(out), read_all(err));
        let text = |bytes: std::io::Result<Vec<u8>>| String::from_utf8_lossy(&bytes.expect("read")).into_owned();
        Ran { status, stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs a program on a terminal where `keys` are typed one after the other, each when nothing else is left to do; what
    /// appears on the screen.
    pub(crate) async fn at_terminal(&self, args: &[&str], keys: &[&str]) -> Ran {
        let program = builtins().program(args[0]).expect("a built-in program");
        let (mut keyboard, stdin) = tokio::io::duplex(1024);
        let (screen, out) = pipe();
        let (signal, signals) = watch::channel(0);
        let container = Container {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: self.env.clone(),
            cwd: "/".to_owned(),
            stdin: Box::new(stdin),
            stdout: Box::new(screen.clone()),
            stderr: Box::new(screen),
            tty: true,
            window: watch::channel(Default::default()).1,
            host: self.host.clone(),
            files: self.files.clone(),
            hostname: self.hostname.clone(),
            programs: builtins(),
            signals,
        };
        let typing = async {
            for key in keys {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                // Whoever brings a terminal sends the signal, too.
                if *key == "\x03" {
                    signal.send_replace(2);
                }
                keyboard.write_all(key.as_bytes()).await.expect("typed");
            }
            std::future::pending::<()>().await;
        };
        let running = async { tokio::join!(program.run(container), read_all(out)) };
        let (status, screen) = tokio::select! {
            ended = running => ended,
            () = typing => unreachable!("typing never ends"),
        };
        let stdout = String::from_utf8_lossy(&screen.expect("read")).into_owned();
        Ran { status, stdout, stderr: String::new() }
    }

    /// Runs a script with `sh -c`.
    pub(crate) async fn sh(&self, script: &str) -> Ran {
        self.run(&["sh", "-c", script], "").await
    }
}

/// Keeps a program running on a machine until dropped. It listens before anything else runs.
pub(crate) fn serving(machine: &Machine, args: &[&str]) -> AbortOnDropHandle<()> {
    serving_program(builtins().program(args[0]).expect("a built-in program"), machine, args)
}

/// As [`serving`], for a program without a name.
pub(crate) fn serving_program(program: Arc<dyn Program>, machine: &Machine, args: &[&str]) -> AbortOnDropHandle<()> {
    let (never, signals) = watch::channel(0);
    let container = Container {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: machine.env.clone(),
        cwd: "/".to_owned(),
        stdin: Box::new(tokio::io::empty()),
        stdout: Box::new(tokio::io::sink()),
        stderr: Box::new(tokio::io::sink()),
        tty: false,
        window: watch::channel(Default::default()).1,
        host: machine.host.clone(),
        files: machine.files.clone(),
        hostname: machine.hostname.clone(),
        programs: builtins(),
        signals,
    };
    let mut running = Box::pin(async move {
        program.run(container).await;
        drop(never);
    });
    // Polled once, so that its ports are open when this returns.
    let _ = (&mut running).now_or_never();
    AbortOnDropHandle::new(tokio::spawn(running))
}
