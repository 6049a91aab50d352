//! `up`, `down` and `status`: a cluster in the foreground, or in a process of its own.

use super::paths::{self, State};
use super::signals::Signals;
use super::{Hint, kubeconfig, print, say};
use anyhow::{Context, Result, bail};
use clap::Args;
use coracle::{Addresses, Builder, Cluster};
use std::io::{BufRead, BufReader, Read, Seek};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// kubectl's users expect it here.
const API_PORT: u16 = 6443;
/// How many ports after it are tried when it is taken.
const PORTS_TRIED: u16 = 20;
/// How long `down` waits for the cluster's process.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// What a detached cluster says on its standard output when it is ready.
const READY: &str = "ready";

/// Start a cluster
#[derive(Clone, Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    cluster: super::ClusterName,
    #[command(flatten)]
    options: super::ClusterOptions,
    /// Keep everything in memory
    #[arg(long)]
    ephemeral: bool,
    /// Where the state is kept [default: $XDG_DATA_HOME/coracle/NAME]
    #[arg(long, conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,
    /// Go on in the background; `coracle down` stops it
    #[arg(long)]
    detach: bool,
    /// Port of the API on 127.0.0.1; 0 takes a free one [default: 6443, or the next that is free]
    #[arg(long)]
    api_port: Option<u16>,
    /// Merge the context into this kubeconfig [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Leave the user's kubeconfig alone
    #[arg(long, conflicts_with = "kubeconfig")]
    no_kubeconfig: bool,
    /// Keep pods from reaching addresses outside the cluster
    #[arg(long)]
    no_outside: bool,
    /// Say nothing on stderr, and "ready" on stdout when ready
    #[arg(long, hide = true)]
    announce: bool,
}

impl Up {
    pub(crate) async fn run(self) -> Result<()> {
        let name = self.cluster.name.clone();
        if let Some(other) = paths::state(&name)? {
            let error = anyhow::Error::new(Hint(format!(
                "stop it with `coracle down --name {name}`, or start another with `--name`"
            )));
            return Err(error.context(format!(
                "a cluster named {name:?} is running already (process {}, API {})",
                other.pid, other.api
            )));
        }
        if self.detach {
            return self.detach();
        }
        let began = Instant::now();
        // From here on a signal is an order to stop and to tidy up, also while the cluster starts.
        let mut signals = Signals::new()?;
        let run_dir = RunDirectory(paths::make_run(&name)?);
        let socket = run_dir.0.join(paths::SOCKET);
        let data = match (&self.data_dir, self.ephemeral) {
            (_, true) => None,
            (Some(dir), _) => Some(dir.clone()),
            (None, _) => Some(paths::data(&name)?),
        };
        let mut builder =
            self.options.builder().unix_socket(&socket).host_ports(true).forward_outside(!self.no_outside);
        if let Some(dir) = &data {
            builder = builder.data_dir(dir);
        }
        let announce = self.announce;
        let tick = move |what: &str| {
            if !announce && what != READY {
                say(&format!("✓ {what:<12} {:>6.1} ms", began.elapsed().as_secs_f64() * 1000.0));
            }
        };
        let cluster = tokio::select! {
            started = start(builder, self.api_port, tick) => started.map_err(super::dns_flags::hint)?,
            _ = signals.next() => return Ok(()),
        };
        let api = cluster.api_address().context("the API has no address")?;
        let context = if name == "coracle" { name.clone() } else { format!("coracle-{name}") };
        let own = cluster.kubeconfig(&context).context("the API has no address")?;
        write_private(&run_dir.0.join(paths::KUBECONFIG), &own)?;
        write_private(&run_dir.0.join(paths::TOKEN), cluster.admin_token())?;
        let merged = self.merge_kubeconfig(&own);
        let state = State {
            name: name.clone(),
            pid: std::process::id(),
            api: format!("https://{api}"),
            socket: socket.clone(),
            dns: cluster.dns_address(),
            data,
            kubeconfig: merged.clone(),
        };
        paths::write_state(&state)?;
        if announce {
            print(&format!("{READY}\n"));
        } else {
            say(&format!("ready in {:.0} ms\n", began.elapsed().as_secs_f64() * 1000.0));
            say(&format!("  API      https://{api}  and  {}", socket.display()));
            if let Some(dns) = cluster.dns_address() {
                let (ip, port) = (dns.ip(), dns.port());
                say(&format!("  DNS      {dns}: dig @{ip} -p {port} kubernetes.default.svc.{}", coracle::ZONE));
            }
            if let Some(device) = cluster.host_device() {
                let Addresses { pods, services, .. } = cluster.addresses();
                say(&format!(
                    "  network  {device}: pods {}/{}, Services {}/{}, DNS {}",
                    pods.0,
                    pods.1,
                    services.0,
                    services.1,
                    cluster.addresses().dns()
                ));
            }
            match &merged {
                Some(path) => {
                    say(&format!("  context  {context} in {}", path.display()));
                    say("\nnext: kubectl get nodes -o wide\n(Ctrl-C stops the cluster)");
                }
                None => {
                    say(&format!(
                        "\nnext: KUBECONFIG={} kubectl get nodes -o wide",
                        run_dir.0.join(paths::KUBECONFIG).display()
                    ));
                    say("(Ctrl-C stops the cluster)");
                }
            }
        }
        let ended = tokio::select! {
            _ = signals.next() => Ok(()),
            why = cluster.store_failed() => Err(anyhow::anyhow!("the store has stopped, so the cluster stops: {why}")),
        };
        if let Some(path) = merged {
            let _ = kubeconfig::remove(&path, &context).inspect_err(|error| say(&format!("warning: {error:#}")));
        }
        tokio::select! {
            () = cluster.stop() => {}
            // Asked twice, it does not wait for pods to end. What was acknowledged is on disk already.
            _ = signals.next() => {}
        }
        ended
    }

    /// A kubeconfig that cannot be written does not keep the cluster from running.
    fn merge_kubeconfig(&self, own: &str) -> Option<PathBuf> {
        if self.no_kubeconfig {
            return None;
        }
        let path = match &self.kubeconfig {
            Some(path) => Ok(path.clone()),
            None => kubeconfig::default_path(),
        };
        let merged = path.and_then(|path| kubeconfig::merge(&path, own).map(|()| path));
        merged.inspect_err(|error| say(&format!("warning: the context is not merged: {error:#}"))).ok()
    }

    /// Starts the same in a process of its own and waits until that is ready.
    fn detach(&self) -> Result<()> {
        use std::os::unix::process::CommandExt;
        let run_dir = paths::make_run(&self.cluster.name)?;
        let log = run_dir.join("log");
        let opened = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&log);
        let mut file = opened.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        // The same options, in the same directory.
        command.args(std::env::args_os().skip(1).filter(|argument| argument != "--detach")).arg("--announce");
        // A group of its own: the terminal's Ctrl-C is not for it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?);
        let mut child = command.spawn().context("cannot start the cluster's process")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.trim() != READY {
            let status = child.wait()?;
            // The file's name went with the run directory; what it holds did not.
            let mut said = String::new();
            file.rewind().and_then(|()| file.read_to_string(&mut said)).context("cannot read what it said")?;
            bail!("the cluster's process ended ({status}):\n{}", said.trim_end());
        }
        let state = paths::running(&self.cluster.name)?;
        let dns = state.dns.map(|address| format!(", DNS at {address}")).unwrap_or_default();
        say(&format!(
            "ready: {}{dns} (process {}); `coracle down --name {}` stops it",
            state.api, state.pid, state.name
        ));
        Ok(())
    }
}

/// Starts on the wanted port, or on the first free one from the usual port on.
async fn start(builder: Builder, port: Option<u16>, tick: impl Fn(&str)) -> Result<Cluster> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = port {
        return match builder.api(at(port)).start_with(tick).await {
            Err(error) if port_taken(&error) => {
                let hint = Hint(
                    "another cluster may be running; choose a port with `--api-port`, 0 takes a free one".to_owned(),
                );
                Err(anyhow::Error::new(hint).context(format!("{error:#}")))
            }
            result => result,
        };
    }
    for port in API_PORT..API_PORT + PORTS_TRIED {
        match builder.clone().api(at(port)).start_with(&tick).await {
            Err(error) if port_taken(&error) => say(&format!("port {port} is taken, trying the next")),
            result => return result,
        }
    }
    builder.api(at(0)).start_with(tick).await
}

fn port_taken(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::AddrInUse)
        && !error.is::<coracle::DnsPortError>()
}

/// Removed with everything in it when the cluster ends.
struct RunDirectory(PathBuf);

impl Drop for RunDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Stops a running cluster and waits until its process has gone.
pub(crate) async fn down(name: &str) -> Result<()> {
    let state = paths::running(name)?;
    let pid =
        i32::try_from(state.pid).ok().and_then(rustix::process::Pid::from_raw).context("the process id is none")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("cannot signal the cluster's process")?;
    let deadline = Instant::now() + STOP_TIMEOUT;
    // Not a child of ours, so there is nothing to wait for but its disappearance.
    // It removes its run directory last. A process without it has only its parent to wait for, which may take its time.
    while paths::alive(state.pid) && paths::run(name).exists() {
        if Instant::now() > deadline {
            bail!("process {} has not ended after {} s", state.pid, STOP_TIMEOUT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say(&format!("stopped {name}"));
    Ok(())
}

/// Says which clusters run; of the named one, if only that runs, more.
pub(crate) async fn status(name: &str) -> Result<()> {
    let mut states = Vec::new();
    for known in paths::names() {
        states.extend(paths::state(&known).ok().flatten());
    }
    if states.is_empty() {
        return Err(paths::running(name).err().unwrap_or_else(|| anyhow::anyhow!("no cluster is running")));
    }
    let mut text = format!("{:<16} {:<8} {:<26} {:<10} {:<16} SOCKET\n", "NAME", "PID", "API", "STATE", "DNS");
    for state in states {
        let dns = state.dns.map_or("<none>".to_owned(), |address| address.to_string());
        let kept = if state.data.is_some() { "on disk" } else { "in memory" };
        text.push_str(&format!(
            "{:<16} {:<8} {:<26} {kept:<10} {dns:<16} {}\n",
            state.name,
            state.pid,
            state.api,
            state.socket.display()
        ));
    }
    print(&text);
    Ok(())
}
