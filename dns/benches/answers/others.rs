//! Other servers with the same zone, and dnsperf, which asks them all.

use crate::{ROUNDS, world};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long dnsperf asks, and how many questions it has on their way.
const SECONDS: &str = "4";
const OUTSTANDING: &str = "100";
/// How long a server may take to read its zone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clock ticks of /proc/PID/stat (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Whether a program is installed.
pub(crate) fn there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.iter().any(|folder| folder.join(program).is_file())
}

/// Another server; it ends with this.
pub(crate) struct Other {
    name: &'static str,
    port: u16,
    child: Child,
}

impl Other {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its processor time so far, with that of the processes it has made.
    pub(crate) fn time(&self) -> Duration {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ticks = processes.filter_map(|process| {
            let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
            // The name, in parentheses, may have spaces; the group is the 5th field, user and system time the 14th and 15th.
            let fields: Vec<u32> =
                stat.rsplit(')').next()?.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
            (*fields.get(2)? == self.child.id()).then_some(fields.get(11)? + fields.get(12)?)
        });
        TICK * ticks.sum::<u32>()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Its group is its own, see `start_all`.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.child.wait();
    }
}

/// The processor time of a thread of this process.
pub(crate) fn thread_time(thread: &OsStr) -> Duration {
    let path = Path::new("/proc/self/task").join(thread).join("schedstat");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// User and system time of a thread of this process, in ticks.
#[derive(Clone, Copy)]
pub(crate) struct Times(u32, u32);

impl Times {
    /// The share of system time since then.
    pub(crate) fn since(self, before: Times) -> f64 {
        let (user, system) = (f64::from(self.0 - before.0), f64::from(self.1 - before.1));
        system / (user + system)
    }
}

/// What `/proc` says of a thread's times.
pub(crate) fn thread_times(thread: &OsStr) -> Times {
    let path = Path::new("/proc/self/task").join(thread).join("stat");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let fields: Vec<u32> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    Times(fields.get(11).copied().unwrap_or(0), fields.get(12).copied().unwrap_or(0))
}

fn free_port() -> io::Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Starts those that are installed, each with one thread for its answers.
pub(crate) fn start_all(dir: &Path) -> io::Result<Vec<Other>> {
    let mut started = Vec::new();
    type Starting = fn(&Path, u16) -> io::Result<Command>;
    let known: [(&'static str, &str, Starting); 3] =
        [("knot", "knotd", knot), ("nsd", "nsd", nsd), ("unbound", "unbound", unbound)];
    for (name, program, command) in known {
        if !there(program) {
            println!("{program} is missing: coracle is not measured beside {name}");
            continue;
        }
        let port = free_port()?;
        let home = dir.join(name);
        std::fs::create_dir_all(&home)?;
        let mut command = command(&home, port)?;
        let command = command.process_group(0).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let other = Other { name, port, child };
        if answers(port) {
            started.push(other);
        } else {
            println!("{program} does not answer after {PATIENCE:?}: coracle is not measured beside {name}");
        }
    }
    Ok(started)
}

fn answers(port: u16) -> bool {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) else { return false };
    let question = world::questions(1).swap_remove(0);
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let _ = socket.set_read_timeout(Some(Duration::from_millis(100)));
        let _ = socket.send_to(&question, (Ipv4Addr::LOCALHOST, port));
        let mut reply = [0; 512];
        // NOERROR, with an answer.
        if socket.recv(&mut reply).is_ok_and(|length| length > 12 && reply[3] & 15 == 0 && reply[7] > 0) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn knot(home: &Path, port: u16) -> io::Result<Command> {
    let (dir, zone) = (home.display(), home.with_file_name("zone"));
    let text = format!(
        "server:\n    listen: 127.0.0.1@{port}\n    rundir: {dir}\n    pidfile: {dir}/pid\n    udp-workers: 1\n    \
         tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: {dir}\ncontrol:\n    listen: {dir}/control\n\
         zone:\n  - domain: cluster.local\n    storage: {dir}\n    file: {}\n    zonefile-load: whole\n    journal-content: none\n",
        zone.display()
    );
    std::fs::write(home.join("conf"), text)?;
    let mut command = Command::new("/usr/sbin/knotd");
    command.arg("-c").arg(home.join("conf"));
    Ok(command)
}

fn nsd(home: &Path, port: u16) -> io::Result<Command> {
    let (dir, zone) = (home.display(), home.with_file_name("zone"));
    let text = format!(
        "server:\n    ip-address: 127.0.0.1@{port}\n    server-count: 1\n    username: \"\"\n    chroot: \"\"\n    zonesdir: {dir}\n    \
         pidfile: {dir}/pid\n    zonelistfile: {dir}/list\n    xfrdfile: {dir}/xfrd\n    xfrdir: {dir}\n    database: \"\"\n    rrl-ratelimit: 0\n\
         remote-control:\n    control-enable: no\nzone:\n    name: cluster.local\n    zonefile: {}\n",
        zone.display()
    );
    std::fs::write(home.join("conf"), text)?;
    let mut command = Command::new("/usr/sbin/nsd");
    command.arg("-d").arg("-c").arg(home.join("conf"));
    Ok(command)
}

fn unbound(home: &Path, port: u16) -> io::Result<Command> {
    let dir = home.display();
    let mut text = format!(
        "server:\n  interface: 127.0.0.1\n  port: {port}\n  num-threads: 1\n  username: \"\"\n  chroot: \"\"\n  directory: {dir}\n  \
         pidfile: {dir}/pid\n  use-syslog: no\n  logfile: \"\"\n  local-zone: \"cluster.local.\" static\n  \
         local-data: \"cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\"\n"
    );
    for record in world::records(world::SERVICES) {
        let _ = writeln!(text, "  local-data: \"{record}\"");
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    std::fs::write(home.join("conf"), text)?;
    let mut command = Command::new("/usr/sbin/unbound");
    command.arg("-d").arg("-c").arg(home.join("conf"));
    Ok(command)
}

/// Has dnsperf ask, and prints the answers a second of the server's processor time.
pub(crate) fn measure(name: &str, port: u16, dir: &Path, time: impl Fn() -> Duration) -> io::Result<f64> {
    let mut best = 0.0_f64;
    let mut wall = String::new();
    for _ in 0..ROUNDS {
        let before = time();
        let mut command = Command::new("dnsperf");
        command.args([
            "-s",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-l",
            SECONDS,
            "-q",
            OUTSTANDING,
            "-c",
            "4",
            "-T",
            "1",
            "-d",
        ]);
        let output = command.arg(dir.join("questions")).output()?;
        let spent = time() - before;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let figure = |label: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(label))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let completed = figure("Queries completed:").unwrap_or_default();
        let lost = figure("Queries lost:").unwrap_or(f64::NAN);
        let rate = completed / spent.as_secs_f64();
        if rate > best {
            best = rate;
            let second = figure("Queries per second:").unwrap_or_default();
            let codes = text.lines().find_map(|line| line.trim().strip_prefix("Response codes:")).unwrap_or_default();
            wall = format!("{second:.0} /s as dnsperf saw it, {lost:.0} lost,{codes}");
        }
    }
    println!("{:<44}{best:>12.0} /s   {wall}", format!("dnsperf asks {name}"));
    Ok(best)
}
