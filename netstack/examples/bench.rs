//! Measures the data plane beside the kernel's, in the same run on the same machine.
//!
//! In process: host → address that DNAT turns into another → host, over real TCP. Beside it two network namespaces joined by a veth
//! pair, with nothing else between them, when root and `ip` are there; both are removed afterwards. Bulk is Gbit/s per
//! CPU core used by everybody involved, RR a 1-byte request and response, CRR connect, one byte each way, close.
//!
//! ```text
//! cargo run --release -p netstack --example bench
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

use netstack::{
    Config, Filter, FiveTuple, Hooks, Host, Network, NewFlow, PortTag, TcpStream, Translate, Translation, Verdict,
};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RUN: Duration = Duration::from_secs(2);
const CHUNK: usize = 128 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("kernel-server") => kernel::server(),
        Some("kernel-client") => kernel::client(&arguments[2], arguments[3].parse().expect("an address")),
        Some("in-process") => {
            println!("{HEADINGS}");
            println!("{}", in_process(one_thread()).row("netstack, DNAT, one thread"));
            one_thread().block_on(memory());
        }
        _ => compare(),
    }
}

const HEADINGS: &str =
    "                                    Gbit/s   cores Gbit/s/core    RR p50    RR p99       CRR/s  CRR/s/core";

fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What one set-up achieved.
#[derive(Debug, Default)]
struct Figures {
    /// Gbit/s.
    bulk: f64,
    /// CPU cores used meanwhile.
    cores: f64,
    /// Round trips, in µs: median and 99th percentile.
    rr: [f64; 2],
    /// Connections a second, and a second and core (the kernel's share cannot be told).
    crr: [f64; 2],
}

impl Figures {
    fn row(&self, name: &str) -> String {
        let Figures { bulk, cores, rr, crr } = self;
        format!(
            "{name:<34}{bulk:>8.1}{cores:>8.2}{:>12.1}{:>10.1}{:>10.1}{:>12.0}{:>12.0}",
            bulk / cores,
            rr[0],
            rr[1],
            crr[0],
            crr[1]
        )
    }
}

fn compare() {
    println!("{HEADINGS}");
    let one = in_process(one_thread());
    println!("{}", one.row("netstack, DNAT, one thread"));
    let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    println!("{}", in_process(two).row("netstack, DNAT, two worker threads"));
    match kernel::measure() {
        Ok(veth) => {
            println!("{}", veth.row("kernel, two namespaces over veth"));
            println!(
                "\nnetstack on one thread : veth = {:.1} in bulk per core, {:.2} in RR, {:.1} in CRR",
                (one.bulk / one.cores) / (veth.bulk / veth.cores),
                one.rr[0] / veth.rr[0],
                one.crr[0] / veth.crr[0]
            );
        }
        Err(missing) => println!("\nno comparison with the kernel: {missing}"),
    }
    one_thread().block_on(memory());
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN) * 4096.0
}

/// What hosts and connections cost that do nothing.
async fn memory() {
    const COUNT: usize = 10_000;
    let network = Network::new(Config { mtu: 1500, seed: 1 });
    let before = resident();
    let hosts: Vec<Host> = (0..COUNT)
        .map(|index| {
            let address = IpAddr::from([10, 1, (index >> 8) as u8, index as u8]);
            network.attach_host(&[address], PortTag(index as u64)).expect("a free address")
        })
        .collect();
    println!("\nan idle host: {:.0} bytes", (resident() - before) / COUNT as f64);
    let listener = hosts[0].tcp_listen(80).expect("a free port");
    let to = SocketAddr::new(hosts[0].addresses()[0], 80);
    let before = resident();
    let mut held = Vec::new();
    for host in &hosts {
        let (client, server) = tokio::join!(host.tcp_connect(to), listener.accept());
        let (mut client, (mut server, _)) = (client.expect("a connection"), server.expect("a connection"));
        let mut buffer = [0; 100];
        client.write_all(&buffer).await.expect("open");
        server.read_exact(&mut buffer).await.expect("data");
        server.write_all(&buffer).await.expect("open");
        client.read_exact(&mut buffer).await.expect("data");
        held.push((client, server));
    }
    println!(
        "an idle connection, both ends and its flow, after 100 bytes each way: {:.0} bytes",
        (resident() - before) / COUNT as f64
    );
}

/// Sorted samples to median and 99th percentile, in µs.
fn percentiles(mut samples: Vec<u64>) -> [f64; 2] {
    samples.sort_unstable();
    [50, 99].map(|percent| samples[samples.len() * percent / 100] as f64 / 1000.0)
}

/// CPU time of this process so far, from `/proc/self/task/*/schedstat` (nanoseconds on a CPU).
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

struct Dnat;

impl Translate for Dnat {
    fn translate(&self, flow: &FiveTuple, _: PortTag, _: tokio::time::Instant) -> Translation {
        if flow.dst == at("10.96.0.1:80") {
            Translation::To { dst: at("10.244.1.2:8080"), snat: None }
        } else {
            Translation::Pass
        }
    }
}

impl Filter for Dnat {
    fn verdict(&self, _: &NewFlow) -> Verdict {
        Verdict::Accept
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn in_process(runtime: tokio::runtime::Runtime) -> Figures {
    // A task of its own: block_on's main task is not on a worker thread.
    runtime.block_on(async { tokio::spawn(in_process_figures()).await.expect("no panic") })
}

async fn in_process_figures() -> Figures {
    let network = Network::new(Config { mtu: 1500, seed: 1 });
    network.install(Hooks { translate: Arc::new(Dnat), filter: Arc::new(Dnat) });
    let client = network.attach_host(&[ip("10.244.0.2")], PortTag(1)).expect("a free address");
    let server = network.attach_host(&[ip("10.244.1.2")], PortTag(2)).expect("a free address");
    let listener = server.tcp_listen(8080).expect("a free port");
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let mut figures = Figures::default();

    let mut stream = client.tcp_connect(at("10.96.0.1:80")).await.expect("a connection");
    stream.write_all(b"s").await.expect("open");
    let chunk = vec![7; CHUNK];
    let mut sent = 0;
    let (start, busy) = (Instant::now(), cpu());
    while start.elapsed() < RUN {
        stream.write_all(&chunk).await.expect("open");
        sent += chunk.len();
    }
    stream.shutdown().await.expect("open");
    stream.read_u8().await.expect("the server's receipt");
    figures.cores = (cpu() - busy).as_secs_f64() / start.elapsed().as_secs_f64();
    figures.bulk = sent as f64 * 8e-9 / start.elapsed().as_secs_f64();

    figures.rr = percentiles(round_trips(&client).await);

    let (start, busy, mut count) = (Instant::now(), cpu(), 0);
    while start.elapsed() < RUN {
        let mut stream = client.tcp_connect(at("10.96.0.1:80")).await.expect("a connection");
        stream.write_all(b"c").await.expect("open");
        stream.read_u8().await.expect("an answer");
        count += 1;
    }
    figures.crr = [start.elapsed(), cpu() - busy].map(|time| f64::from(count) / time.as_secs_f64());
    accepting.abort();
    figures
}

async fn round_trips(client: &Host) -> Vec<u64> {
    let mut stream = client.tcp_connect(at("10.96.0.1:80")).await.expect("a connection");
    stream.write_all(b"r").await.expect("open");
    let (begin, mut samples) = (Instant::now(), Vec::new());
    while begin.elapsed() < RUN {
        let start = Instant::now();
        stream.write_u8(1).await.expect("open");
        stream.read_u8().await.expect("an answer");
        samples.push(start.elapsed().as_nanos() as u64);
    }
    samples
}

/// Serves one connection; its first byte says how: sink, round trips, or one byte and close.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    match stream.read_u8().await? {
        b's' => {
            let mut buffer = vec![0; CHUNK];
            while stream.read(&mut buffer).await? > 0 {}
            stream.write_u8(1).await
        }
        b'r' => loop {
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
        },
        _ => stream.write_u8(1).await,
    }
}

/// The same over the kernel, between two namespaces, by `std::net`.
mod kernel {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const NAMES: [&str; 2] = ["netstack-bench-a", "netstack-bench-b"];

    fn ip_command(arguments: &str) -> Result<(), String> {
        let output = Command::new("ip")
            .args(arguments.split(' '))
            .output()
            .map_err(|error| format!("`ip` (iproute2) cannot be run: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("`ip {arguments}` failed (root is needed): {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Two namespaces and the wire between them; removed when dropped.
    struct Namespaces;

    impl Namespaces {
        fn new() -> Result<Namespaces, String> {
            let [a, b] = NAMES;
            ip_command(&format!("netns add {a}"))?;
            let namespaces = Namespaces;
            ip_command(&format!("netns add {b}"))?;
            ip_command(&format!("link add veth0 netns {a} type veth peer name veth0 netns {b}"))?;
            for (name, address) in [(a, "10.250.0.1/24"), (b, "10.250.0.2/24")] {
                ip_command(&format!("-n {name} addr add {address} dev veth0"))?;
                ip_command(&format!("-n {name} link set veth0 up"))?;
                ip_command(&format!("-n {name} link set lo up"))?;
            }
            Ok(namespaces)
        }
    }

    impl Drop for Namespaces {
        fn drop(&mut self) {
            for name in NAMES {
                let _ = ip_command(&format!("netns del {name}"));
            }
        }
    }

    /// This program inside a namespace.
    fn inside(name: &str, arguments: &[&str]) -> Result<Command, String> {
        let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command)
    }

    pub(crate) fn measure() -> Result<Figures, String> {
        let _namespaces = Namespaces::new()?;
        let mut server = inside(NAMES[1], &["kernel-server"])?.spawn().map_err(|error| error.to_string())?;
        let figures = run_client(&mut server);
        let _ = server.kill();
        let _ = server.wait();
        figures
    }

    fn run_client(server: &mut std::process::Child) -> Result<Figures, String> {
        let output = server.stdout.as_mut().ok_or("the server has no output")?;
        let mut line = [0; 6];
        output.read_exact(&mut line).map_err(|error| format!("the server did not start: {error}"))?;
        let port = String::from_utf8_lossy(&line).trim().to_owned();
        let to = format!("10.250.0.2:{port}");
        let mut figures = Figures::default();
        for what in ["s", "r", "c"] {
            let output =
                inside(NAMES[0], &["kernel-client", what, &to])?.output().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            match (what, &numbers[..]) {
                ("s", [bulk, cores]) => (figures.bulk, figures.cores) = (*bulk, *cores),
                ("r", [p50, p99]) => figures.rr = [*p50, *p99],
                ("c", [crr]) => figures.crr = [*crr, f64::NAN],
                _ => return Err(format!("the client said {text:?} {}", String::from_utf8_lossy(&output.stderr))),
            }
        }
        Ok(figures)
    }

    pub(crate) fn server() {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        print!("{port:>6}");
        std::io::stdout().flush().expect("a pipe");
        for stream in listener.incoming().flatten() {
            let _ = serve(stream);
        }
    }

    fn serve(mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let busy = cpu();
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b's' => {
                let mut buffer = vec![0; CHUNK];
                while stream.read(&mut buffer)? > 0 {}
                // The receipt: the server's CPU time.
                let used = (cpu() - busy).as_nanos() as u64;
                stream.write_all(&used.to_be_bytes())
            }
            b'r' => loop {
                stream.read_exact(&mut byte)?;
                stream.write_all(&byte)?;
            },
            _ => stream.write_all(&byte),
        }
    }

    fn connect(to: SocketAddr, what: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(to).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(what).expect("open");
        stream
    }

    pub(crate) fn client(what: &str, to: SocketAddr) {
        let begin = Instant::now();
        match what {
            "s" => {
                let mut stream = connect(to, b"s");
                let chunk = vec![7; CHUNK];
                let (busy, mut sent) = (cpu(), 0);
                while begin.elapsed() < RUN {
                    stream.write_all(&chunk).expect("open");
                    sent += chunk.len();
                }
                stream.shutdown(std::net::Shutdown::Write).expect("open");
                let mut receipt = [0; 8];
                stream.read_exact(&mut receipt).expect("a receipt");
                let wall = begin.elapsed().as_secs_f64();
                let used = (cpu() - busy).as_secs_f64() + u64::from_be_bytes(receipt) as f64 * 1e-9;
                println!("{} {}", sent as f64 * 8e-9 / wall, used / wall);
            }
            "r" => {
                let mut stream = connect(to, b"r");
                let mut samples = Vec::new();
                let mut byte = [0];
                while begin.elapsed() < RUN {
                    let start = Instant::now();
                    stream.write_all(&byte).expect("open");
                    stream.read_exact(&mut byte).expect("an answer");
                    samples.push(start.elapsed().as_nanos() as u64);
                }
                let [p50, p99] = percentiles(samples);
                println!("{p50} {p99}");
            }
            _ => {
                let mut count = 0;
                while begin.elapsed() < RUN {
                    let mut stream = connect(to, b"c");
                    stream.read_exact(&mut [0]).expect("an answer");
                    count += 1;
                }
                println!("{}", f64::from(count) / begin.elapsed().as_secs_f64());
            }
        }
    }
}
