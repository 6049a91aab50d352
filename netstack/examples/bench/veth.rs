//! The yardstick: TCP through the kernel between two network namespaces that a veth pair joins, with nothing else between them.
//!
//! Needs root and `ip` (iproute2); namespaces and processes are gone when [`Veth`] is dropped. Used by this example and, by its
//! path, by the root package's benchmark `first_light`, so that both compare with the same thing. Each side is a process of its
//! own: the program that includes this file, started again; its `main` begins with [`is_one_side`].

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of one write.
pub(crate) const CHUNK: usize = 128 * 1024;

const SERVER: &str = "veth-server";
const CLIENT: &str = "veth-client";

/// A bulk transfer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bulk {
    /// Gbit/s.
    pub(crate) rate: f64,
    /// CPU cores that both sides used meanwhile.
    pub(crate) cores: f64,
}

impl Bulk {
    pub(crate) fn new(bytes: usize, wall: Duration, busy: Duration) -> Self {
        Bulk { rate: bytes as f64 * 8e-9 / wall.as_secs_f64(), cores: busy.as_secs_f64() / wall.as_secs_f64() }
    }

    /// Gbit/s for each core used.
    pub(crate) fn per_core(&self) -> f64 {
        self.rate / self.cores
    }
}

/// CPU time of this process so far, the kernel's share included: nanoseconds on a CPU, from `/proc/self/task/*/schedstat`.
pub(crate) fn cpu() -> Duration {
    cpu_of("self")
}

/// CPU time of the threads that a process has.
pub(crate) fn cpu_of(process: &str) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Samples in nanoseconds to median and 99th percentile in µs.
pub(crate) fn percentiles(mut samples: Vec<u64>) -> [f64; 2] {
    samples.sort_unstable();
    [50, 99]
        .map(|percent| samples.get(samples.len() * percent / 100).map_or(f64::NAN, |sample| *sample as f64 / 1000.0))
}

/// Whether this process was started as one side of the wire; then it has done its work.
pub(crate) fn is_one_side() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [SERVER] => server(),
        [CLIENT, what, to, run] => {
            let run = Duration::from_millis(run.parse().expect("milliseconds"));
            client(what, to.parse().expect("an address"), run);
        }
        _ => return false,
    }
    true
}

/// Two namespaces, the wire between them, and a server in the second one.
pub(crate) struct Veth {
    names: [String; 2],
    server: Option<Child>,
    to: String,
}

impl Veth {
    /// # Errors
    /// What is missing: root, `ip`.
    pub(crate) fn new() -> Result<Veth, String> {
        let names = ["a", "b"].map(|side| format!("coracle-bench-{}-{side}", std::process::id()));
        let mut veth = Veth { names, server: None, to: String::new() };
        let [a, b] = &veth.names;
        ip(&format!("netns add {a}"))?;
        ip(&format!("netns add {b}"))?;
        ip(&format!("link add veth0 netns {a} type veth peer name veth0 netns {b}"))?;
        for (name, address) in [(a, "10.250.0.1/24"), (b, "10.250.0.2/24")] {
            ip(&format!("-n {name} addr add {address} dev veth0"))?;
            ip(&format!("-n {name} link set veth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        let mut server = inside(b, &[SERVER])?.spawn().map_err(|error| error.to_string())?;
        let mut port = [0; 6];
        let output = server.stdout.take();
        veth.server = Some(server);
        let read = output.ok_or("the server has no output")?.read_exact(&mut port);
        read.map_err(|error| format!("the server did not start: {error}"))?;
        veth.to = format!("10.250.0.2:{}", String::from_utf8_lossy(&port).trim());
        Ok(veth)
    }

    /// One connection, one direction, as much as goes.
    pub(crate) fn bulk(&self, run: Duration) -> Result<Bulk, String> {
        let [rate, cores] = self.run("s", run)?;
        Ok(Bulk { rate, cores })
    }

    /// One byte there and one back: median and 99th percentile in µs.
    pub(crate) fn round_trips(&self, run: Duration) -> Result<[f64; 2], String> {
        self.run("r", run)
    }

    /// Connect, one byte each way, close: how often in a second.
    pub(crate) fn connections(&self, run: Duration) -> Result<f64, String> {
        self.run("c", run).map(|[rate]| rate)
    }

    fn run<const N: usize>(&self, what: &str, run: Duration) -> Result<[f64; N], String> {
        let mut command = inside(&self.names[0], &[CLIENT, what, &self.to, &run.as_millis().to_string()])?;
        let output = command.output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        numbers
            .try_into()
            .map_err(|_| format!("the client said {text:?} {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .map_err(|error| format!("`ip` (iproute2) cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {arguments}` failed (root is needed): {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// This program inside a namespace.
fn inside(name: &str, arguments: &[&str]) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name]).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn server() {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    print!("{port:>6}");
    std::io::stdout().flush().expect("a pipe");
    for stream in listener.incoming().flatten() {
        let _ = serve(stream);
    }
}

/// Serves one connection; its first byte says how: sink, round trips, or one byte and close.
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

fn client(what: &str, to: SocketAddr, run: Duration) {
    let begin = Instant::now();
    match what {
        "s" => {
            let mut stream = connect(to, b"s");
            let chunk = vec![7; CHUNK];
            let (busy, mut sent) = (cpu(), 0);
            while begin.elapsed() < run {
                stream.write_all(&chunk).expect("open");
                sent += chunk.len();
            }
            stream.shutdown(std::net::Shutdown::Write).expect("open");
            let mut receipt = [0; 8];
            stream.read_exact(&mut receipt).expect("a receipt");
            let used = cpu() - busy + Duration::from_nanos(u64::from_be_bytes(receipt));
            let bulk = Bulk::new(sent, begin.elapsed(), used);
            println!("{} {}", bulk.rate, bulk.cores);
        }
        "r" => {
            let mut stream = connect(to, b"r");
            let mut samples = Vec::new();
            let mut byte = [0];
            while begin.elapsed() < run {
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
            while begin.elapsed() < run {
                let mut stream = connect(to, b"c");
                stream.read_exact(&mut [0]).expect("an answer");
                count += 1;
            }
            println!("{}", f64::from(count) / begin.elapsed().as_secs_f64());
        }
    }
}
