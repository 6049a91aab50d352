//! `coracle up --ephemeral` as a process: how long from its start to "ready", and the memory it then has.

use crate::median;
use crate::table::{Table, Target};
use crate::veth::cpu_of;
use anyhow::{Context, Result, ensure};
use coracle::{Cluster, ZONE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STARTS: u32 = 10;
const IDLE: Duration = Duration::from_secs(2);

pub(crate) fn measure(table: &Table) -> Result<()> {
    let (mut ready, mut busy, mut resident, mut peak) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for index in 0..STARTS {
        let (up, after) = Up::start(index)?;
        ready.push(after.as_secs_f64() * 1e3);
        busy.push(up.cpu().as_secs_f64() * 1e3);
        if index == 0 {
            up.check_nodes()?;
        }
        if index < 3 {
            std::thread::sleep(IDLE);
            resident.push(up.memory("VmRSS")?);
            peak.push(up.memory("VmHWM")?);
        }
    }
    let target = Target { at_least: 300.0, aim: 100.0 };
    let beside = format!("{:.0} ms of CPU; median of {STARTS}", median(busy));
    table.row("up --ephemeral, exec to ready", median(ready), "ms", target, &beside);
    let target = Target { at_least: 60.0, aim: 30.0 };
    let beside = format!("peak {:.1} MB", median(peak));
    table.row("resident memory, idle, two nodes", median(resident), "MB", target, &beside);

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(crate::runtime()?.block_on(in_this_process())?.as_secs_f64() * 1e3);
    }
    table.note("Cluster::builder().start() in a test", median(starts), "ms", "DNS asked at once after it");
    Ok(())
}

/// The process, with directories of its own.
struct Up {
    child: Child,
    run: PathBuf,
    _directory: tempfile::TempDir,
}

impl Up {
    /// Starts it and waits for "ready".
    fn start(index: u32) -> Result<(Up, Duration)> {
        let directory = tempfile::tempdir()?;
        let name = format!("bench-{index}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command
            .args(["up", "--ephemeral", "--announce", "--no-kubeconfig", "--api-port", "0", "--name", &name])
            .env("XDG_RUNTIME_DIR", directory.path())
            .env("XDG_DATA_HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().context("the coracle binary cannot be started")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let up = Up { child, run: directory.path().join("coracle").join(name), _directory: directory };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let after = began.elapsed();
        ensure!(line.trim() == "ready", "coracle up said {line:?}");
        Ok((up, after))
    }

    fn cpu(&self) -> Duration {
        cpu_of(&self.child.id().to_string())
    }

    /// A line of `/proc/PID/status`, in MB.
    fn memory(&self, what: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        let kilobytes: f64 = line.and_then(|line| line.split_whitespace().next()).context("no such line")?.parse()?;
        Ok(kilobytes / 1024.0)
    }

    /// "ready" means so: the API answers, and both nodes are Ready.
    fn check_nodes(&self) -> Result<()> {
        let nodes = self.get("/api/v1/nodes")?;
        let nodes = nodes["items"].as_array().context("no list of nodes")?;
        let conditions = |node: &Value| node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready =
            |node: &&Value| conditions(node).iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let ready = nodes.iter().filter(ready).count();
        ensure!(ready == 2, "{ready} of 2 nodes are Ready after \"ready\"");
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = UnixStream::connect(self.run.join("api.sock"))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        serde_json::from_str(body).with_context(|| format!("GET {path} answered {answer}"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Starts a cluster and asks its DNS, once and at once, for the API's name.
async fn in_this_process() -> Result<Duration> {
    let began = Instant::now();
    let cluster = Cluster::builder().start().await?;
    let after = began.elapsed();
    let socket = cluster.outside().udp_bind(0)?;
    let mut query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in format!("kubernetes.default.svc.{ZONE}").split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(b"\x00\x00\x01\x00\x01");
    socket.send_to(&query, SocketAddr::new(cluster.addresses().dns().into(), 53)).await?;
    let mut answer = [0; 512];
    let received = tokio::time::timeout(Duration::from_secs(1), socket.recv_from(&mut answer)).await;
    let (length, _) = received.context("DNS does not answer after the start")??;
    let address = cluster.addresses().kubernetes().octets();
    ensure!(answer[..length].ends_with(&address), "DNS answered {:02x?}", &answer[..length]);
    cluster.stop().await;
    Ok(after)
}
