//! What DNS answers cost, with 10,000 Services of 10 endpoints each.
//!
//! `cargo bench -p dns`. Answers a second and core, that is per second of processor time: of the server's thread on the
//! machine's UDP socket, asked by dnsperf, beside Knot, NSD and Unbound serving the same zone to the same questions with one
//! thread; and of everything (asker, network and server on one thread) from an in-process pod, beside an echo server on the
//! same network. Beside the former stands an echo of the same datagrams with one system call each way: most of the time is the
//! kernel's. A tool that is missing is said by name. Debian has them all:
//! `apt-get install dnsperf knot nsd unbound`.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod echo;
mod memory;
mod others;
mod pod;
mod world;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use world::{ENDPOINTS, SERVICES, World};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Rounds of each dnsperf run; the best counts, since the machine may have been busy in the others.
const ROUNDS: usize = 3;

fn main() -> io::Result<()> {
    println!("{SERVICES} Services × {ENDPOINTS} endpoints; answers are per second of processor time\n");
    table_figures();
    println!();
    pod::figures();
    println!();
    let dir = std::env::temp_dir().join(format!("coracle-dns-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let done = machine_figures(&dir);
    std::fs::remove_dir_all(&dir)?;
    done
}

/// How long the zone takes, and what it holds.
fn table_figures() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let world = World::of(SERVICES);
        world.settled().await;
        let before = memory::held();
        let begun = Instant::now();
        let dns = world.dns().await;
        let (built, held) = (begun.elapsed(), memory::held() - before);
        println!("{:<44}{:>12.1} ms", "zone made of all Services at once", built.as_secs_f64() * 1000.0);
        println!("{:<44}{:>12.1} MiB", "zone in memory", held as f64 / f64::from(1 << 20));
        let mut changes = Vec::new();
        for round in 0..200 {
            let begun = Instant::now();
            world.change(round).await;
            changes.push(begun.elapsed());
        }
        changes.sort();
        println!(
            "{:<44}{:>12.3} ms",
            "one changed slice, to the new zone (median)",
            changes[100].as_secs_f64() * 1000.0
        );
        let questions = world::questions(SERVICES);
        let asked = 400_000;
        let begun = Instant::now();
        for request in questions.iter().cycle().take(asked) {
            std::hint::black_box(dns.answer(request, dns::Transport::Udp, None).await);
        }
        println!("{:<44}{:>12.0} /s", "messages answered, without a network", rate(asked, begun.elapsed()));
    });
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The machine's socket, beside other servers.
fn machine_figures(dir: &std::path::Path) -> io::Result<()> {
    if !others::there("dnsperf") {
        println!("dnsperf is missing: the machine's socket is not measured");
        return Ok(());
    }
    world::write_questions(&dir.join("questions"), SERVICES)?;
    world::write_zone(&dir.join("zone"), SERVICES)?;
    let (tell, told) = mpsc::channel();
    // A thread of its own, so that its processor time is the server's and nobody else's.
    std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::of(SERVICES);
            let dns = world.dns().await;
            let sockets = dns::MachineSockets::bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a free port");
            let thread = std::fs::read_link("/proc/thread-self").expect("a thread").file_name().map(|id| id.to_owned());
            tell.send((sockets.local_addr().expect("bound"), thread.expect("an id"))).expect("heard");
            dns.serve_machine(sockets).await.expect("serves");
        });
    })?;
    let (address, thread) = told.recv().expect("it serves");
    let before = others::thread_times(&thread);
    let own_time = || others::thread_time(&thread);
    let own = others::measure("coracle", address.port(), dir, own_time)?;
    let share = others::thread_times(&thread).since(before);
    println!("{:<44}{:>12.0} %", "of that time, in the kernel", 100.0 * share);
    let (port, thread) = echo::start()?;
    let echoed = others::measure("an echo", port, dir, || others::thread_time(&thread))?;
    println!("{:<44}{:>12.2} ×", "coracle beside an echo", own / echoed);
    for other in others::start_all(dir)? {
        let time = || other.time();
        let measured = others::measure(other.name(), other.port(), dir, time)?;
        println!("{:<44}{:>12.2} ×", format!("coracle beside {}", other.name()), own / measured);
    }
    io::stdout().flush()
}
