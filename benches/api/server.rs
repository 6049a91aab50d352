//! The server under test: `coracle up` in a process and a directory of its own.

use crate::client::{Address, Connection, get, post};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For what the cluster does by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster that runs, with its state on disk.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: Address,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts it and waits for "ready". `CORACLE_BENCH_BINARY` names another binary than the one just built.
    pub(crate) fn start() -> Result<Server> {
        // Beside the build, since /tmp may be memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let kubeconfig = directory.path().join("kubeconfig");
        let given = std::env::var_os("CORACLE_BENCH_BINARY");
        let binary = given.unwrap_or_else(|| env!("CARGO_BIN_EXE_coracle").into());
        let mut child = Command::new(binary)
            .args(["up", "--announce", "--api-port", "0", "--name", "bench"])
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .env("XDG_RUNTIME_DIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the coracle binary cannot be started")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "coracle up said {line:?}");
        let address = address(&kubeconfig)?;
        Ok(Server { child, address, _directory: directory })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        Connection::new(&self.address).await
    }

    /// A namespace for one part of the benchmark.
    pub(crate) async fn namespace(&self, name: &str) -> Result<()> {
        let body = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        let answer = self.connect().await?.exchange(&post("/api/v1/namespaces", &body)).await?;
        ensure!(answer.code == 201, "the namespace {name}: {}", answer.code);
        // Controllers write into it first; who counts what comes afterwards must not count that.
        let path = format!("/api/v1/namespaces/{name}/configmaps/kube-root-ca.crt");
        let (mut connection, deadline) = (self.connect().await?, Instant::now() + PATIENCE);
        while connection.exchange(&get(&path)).await?.code != 200 {
            ensure!(Instant::now() < deadline, "{path} has not been written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Duration {
        crate::veth::cpu_of(&self.child.id().to_string())
    }

    /// Resident memory in MB.
    pub(crate) fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: f64 = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?.parse()?;
        Ok(kilobytes / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// What the kubeconfig says about where and who.
fn address(kubeconfig: &Path) -> Result<Address> {
    let kubeconfig: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig)?)?;
    let (cluster, user) = (&kubeconfig["clusters"][0]["cluster"], &kubeconfig["users"][0]["user"]);
    let pem = |data: &Value| -> Result<String> {
        Ok(String::from_utf8(STANDARD.decode(data.as_str().context("no certificate data")?)?)?)
    };
    let socket = cluster["server"].as_str().and_then(|url| url.strip_prefix("https://")).context("no server")?;
    Address::new(
        socket.parse()?,
        &pem(&cluster["certificate-authority-data"])?,
        &pem(&user["client-certificate-data"])?,
        &pem(&user["client-key-data"])?,
    )
}
