//! `ping`, `nc`, and what shows a pod's interfaces: `ip`, `ifconfig`.

use super::Tool;
use super::options::{Options, Order, duration};
use super::resolver::Resolver;
use super::stdio::{Outcome, reason};
use super::system::refuse;
use crate::program::Container;
use netstack::TcpStream;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("ifconfig", |c| Box::pin(ifconfig(c))),
    Tool::new("ip", |c| Box::pin(ip(c))),
    Tool::new("nc", |c| Box::pin(nc(c))),
    Tool::new("ncat", |c| Box::pin(nc(c))),
    Tool::new("netcat", |c| Box::pin(nc(c))),
    Tool::watching("ping", |c| Box::pin(ping(c))),
    Tool::watching("ping6", |c| Box::pin(ping(c))),
];

const BUFFER: usize = 32 << 10;

/// The signal that ends a tool which still has something to say.
async fn interrupted(mut signals: watch::Receiver<i32>) -> i32 {
    match signals.wait_for(|signal| matches!(signal, 1 | 2 | 15)).await.map(|signal| *signal) {
        Ok(signal) => signal,
        Err(_) => std::future::pending().await,
    }
}

async fn ping(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "c: W: w: i: s: q 4 6 n I: t: A f", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let Some(name) = options.operands.first().cloned() else {
        return refuse(c, "Usage: ping [OPTIONS] HOST", 1).await;
    };
    let count = options.value("c").and_then(|text| text.parse::<u64>().ok()).filter(|count| *count > 0);
    let wait = options.value("W").and_then(duration).unwrap_or(Duration::from_secs(10));
    let deadline = options.value("w").and_then(duration);
    let interval = options.value("i").and_then(duration).unwrap_or(Duration::from_secs(1));
    let size = options.value("s").and_then(|text| text.parse::<usize>().ok()).unwrap_or(56).min(65_000);
    let addresses = Resolver::new(&c.host, &c.files).addresses(&name).await.unwrap_or_default();
    let wanted = |address: &&IpAddr| match (options.has("4"), options.has("6") || c.args[0].ends_with('6')) {
        (_, true) => address.is_ipv6(),
        (true, false) => address.is_ipv4(),
        (false, false) => true,
    };
    let Some(address) = addresses.iter().find(wanted).copied() else {
        return refuse(c, format!("bad address '{name}'"), 1).await;
    };
    c.print(format!("PING {name} ({address}): {size} data bytes\n")).await?;
    let (mut sent, mut received) = (0u64, 0u64);
    let (mut least, mut most, mut total) = (Duration::MAX, Duration::ZERO, Duration::ZERO);
    let signals = c.signals.clone();
    let quiet = options.has("q");
    let mut failed = None;
    let pinging = async {
        loop {
            let at = sent;
            sent += 1;
            let begun = tokio::time::Instant::now();
            match c.host.ping(address, size, wait).await {
                Ok(time) => {
                    received += 1;
                    least = least.min(time);
                    most = most.max(time);
                    total += time;
                    if !quiet {
                        let millis = time.as_secs_f64() * 1000.0;
                        let line = format!("{} bytes from {address}: seq={at} ttl=64 time={millis:.3} ms\n", size + 8);
                        c.print(line).await?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => {
                    failed = Some(reason(&error));
                    return Ok(());
                }
            }
            if count.is_some_and(|count| sent >= count) {
                return Ok(());
            }
            tokio::time::sleep_until(begun + interval).await;
        }
    };
    let outcome: io::Result<()> = tokio::select! {
        outcome = pinging => outcome,
        _ = interrupted(signals) => Ok(()),
        () = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline).await,
                None => std::future::pending().await,
            }
        } => Ok(()),
    };
    outcome?;
    if let Some(why) = failed {
        refuse(c, format!("sendto: {why}"), 1).await?;
    }
    let lost = ((sent - received) * 100).checked_div(sent).unwrap_or(0);
    let mut text = format!(
        "\n--- {name} ping statistics ---\n{sent} packets transmitted, {received} packets received, {lost}% packet loss\n"
    );
    if received > 0 {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let mean = millis(total) / received as f64;
        text.push_str(&format!("round-trip min/avg/max = {:.3}/{mean:.3}/{:.3} ms\n", millis(least), millis(most)));
    }
    c.print(text).await?;
    Ok(i32::from(received == 0))
}

/// Sends standard input to a connection and what comes from it to standard output. `half_close`: the end of standard input is told to
/// the peer, as clients do; a listener ends with its peer.
async fn relay(c: &mut Container, stream: TcpStream, idle: Option<Duration>, half_close: bool) -> Outcome {
    let mut input = c.take_stdin();
    let (mut from, mut to) = tokio::io::split(stream);
    let goes_on = half_close && !c.tty;
    let sending = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = input.read(&mut buffer).await {
            if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
        if half_close {
            let _ = to.shutdown().await;
        }
    };
    let receiving = receive(c, &mut from, idle);
    tokio::pin!(sending, receiving);
    let mut sent = false;
    loop {
        tokio::select! {
            biased;
            () = &mut sending, if !sent => sent = true,
            outcome = &mut receiving => {
                // The peer may have closed its half only: what is being sent still goes there.
                if !sent && goes_on {
                    sending.await;
                }
                return outcome;
            }
        }
    }
}

async fn receive(c: &mut Container, from: &mut (impl AsyncRead + Unpin), idle: Option<Duration>) -> Outcome {
    let mut buffer = vec![0; BUFFER];
    loop {
        let reading = from.read(&mut buffer);
        let length = match idle {
            Some(idle) => match tokio::time::timeout(idle, reading).await {
                Ok(length) => length?,
                Err(_) => return Ok(0),
            },
            None => reading.await?,
        };
        if length == 0 {
            return Ok(0);
        }
        c.print(&buffer[..length]).await?;
    }
}

async fn nc(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "z v w: l p: u n k 4 6 q: N i: s: e: L", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    if options.has("e") {
        return refuse(c, "-e is not supported", 1).await;
    }
    let wait = options.value("w").and_then(duration);
    let port_of = |text: &str| text.parse::<u16>().ok();
    if options.has("l") {
        let port = options.value("p").or(options.operands.last().map(String::as_str)).and_then(port_of).unwrap_or(0);
        return listen(c, &options, port, wait).await;
    }
    let [host, ports] = &options.operands[..] else {
        c.complain("usage: nc [-zvlu] [-w seconds] [-p port] [host] [port]").await;
        return Ok(1);
    };
    let range = match ports.split_once('-') {
        Some((first, last)) => port_of(first).zip(port_of(last)),
        None => port_of(ports).map(|port| (port, port)),
    };
    let Some((first, last)) = range else {
        return refuse(c, format!("port number invalid: {ports}"), 1).await;
    };
    let Ok(addresses) = Resolver::new(&c.host, &c.files).addresses(host).await else {
        return refuse(c, format!("getaddrinfo for host \"{host}\" port {ports}: Name or service not known"), 1).await;
    };
    let mut status = 1;
    for port in first..=last {
        let remote = SocketAddr::new(addresses[0], port);
        if options.has("u") {
            return datagrams(c, &options, remote, host, wait).await;
        }
        let connecting = c.host.tcp_connect(remote);
        let connected = match wait {
            Some(wait) => tokio::time::timeout(wait, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into())),
            None => connecting.await,
        };
        let shown = if *host == remote.ip().to_string() { host.clone() } else { format!("{host} ({})", remote.ip()) };
        match connected {
            Ok(stream) => {
                status = 0;
                if options.has("v") {
                    c.complain(format!("{shown} {port} port [tcp/*] succeeded!").replace("  ", " ")).await;
                }
                if !options.has("z") {
                    return relay(c, stream, wait, true).await;
                }
            }
            Err(error) => {
                if options.has("v") || !options.has("z") {
                    let why = reason(&error);
                    c.complain(format!("nc: connect to {shown} port {port} (tcp) failed: {why}")).await;
                }
            }
        }
    }
    Ok(status)
}

async fn listen(c: &mut Container, options: &Options, port: u16, wait: Option<Duration>) -> Outcome {
    if options.has("u") {
        let socket = c.host.udp_bind(port)?;
        let mut buffer = vec![0; 65_535];
        let (length, client) = socket.recv_from(&mut buffer).await?;
        c.print(&buffer[..length]).await?;
        let mut input = c.take_stdin();
        let mut outgoing = vec![0; BUFFER];
        let mut open = true;
        loop {
            tokio::select! {
                received = socket.recv_from(&mut buffer) => {
                    let (length, _) = received?;
                    c.print(&buffer[..length]).await?;
                }
                read = input.read(&mut outgoing), if open => match read? {
                    0 => open = false,
                    length => {
                        socket.send_to(&outgoing[..length], client).await?;
                    }
                },
            }
        }
    }
    let listener = match c.host.tcp_listen(port) {
        Ok(listener) => listener,
        Err(error) => return refuse(c, format!("bind: {}", reason(&error)), 1).await,
    };
    if options.has("v") {
        c.complain(format!("listening on 0.0.0.0:{} ...", listener.local_port())).await;
    }
    loop {
        let (stream, client) = listener.accept().await?;
        if options.has("v") {
            c.complain(format!("connect to {}:{port} from {}:{}", client.ip(), client.ip(), client.port())).await;
        }
        let outcome = relay(c, stream, wait, options.has("N")).await;
        if !options.has("k") {
            return outcome;
        }
    }
}

async fn datagrams(
    c: &mut Container,
    options: &Options,
    remote: SocketAddr,
    host: &str,
    wait: Option<Duration>,
) -> Outcome {
    let socket = c.host.udp_bind(options.value("p").and_then(|port| port.parse().ok()).unwrap_or(0))?;
    let mut buffer = vec![0; 65_535];
    if options.has("z") {
        // A closed port says so by ICMP; an open one may say nothing.
        socket.send_to(b"X", remote).await?;
        let answered =
            tokio::time::timeout(wait.unwrap_or(Duration::from_secs(1)), socket.recv_from(&mut buffer)).await;
        if matches!(answered, Ok(Err(_))) {
            return Ok(1);
        }
        if options.has("v") {
            c.complain(format!("Connection to {host} {} port [udp/*] succeeded!", remote.port())).await;
        }
        return Ok(0);
    }
    let mut input = c.take_stdin();
    let mut outgoing = vec![0; BUFFER];
    let mut open = true;
    loop {
        // Without -w a sender of one datagram would wait for answers for ever: a second is what scripts mean.
        let patience = match (wait, open) {
            (Some(wait), _) => wait,
            (None, true) => Duration::from_secs(u64::from(u32::MAX)),
            (None, false) => Duration::from_secs(1),
        };
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, _)) => c.print(&buffer[..length]).await?,
                Err(error) => return refuse(c, reason(&error), 1).await,
            },
            read = input.read(&mut outgoing), if open => match read? {
                0 => open = false,
                length => {
                    socket.send_to(&outgoing[..length], remote).await?;
                }
            },
            () = tokio::time::sleep(patience) => return Ok(0),
        }
    }
}

/// The addresses of the pod's one interface.
fn interface(c: &Container) -> Vec<IpAddr> {
    c.host.addresses()
}

async fn ip(c: &mut Container) -> Outcome {
    let words: Vec<String> = c.args[1..].iter().filter(|arg| !arg.starts_with('-')).cloned().collect();
    let brief = c.args.iter().any(|arg| arg == "-br" || arg == "-brief");
    let only_v6 = c.args.iter().any(|arg| arg == "-6");
    let only_v4 = c.args.iter().any(|arg| arg == "-4");
    let addresses: Vec<IpAddr> = interface(c)
        .into_iter()
        .filter(|address| !(only_v6 && address.is_ipv4() || only_v4 && address.is_ipv6()))
        .collect();
    let prefix = |address: &IpAddr| if address.is_ipv4() { 24 } else { 64 };
    let object = words.first().map(String::as_str).unwrap_or_default();
    let mtu = c.host.mtu().to_string();
    let text = if !object.is_empty() && "address".starts_with(object) {
        if brief {
            let list: Vec<String> = addresses.iter().map(|address| format!("{address}/{}", prefix(address))).collect();
            format!(
                "lo               UNKNOWN        127.0.0.1/8 ::1/128\neth0             UP             {}\n",
                list.join(" ")
            )
        } else {
            let mut text = String::from(
                "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000\n    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n    inet 127.0.0.1/8 scope host lo\n       valid_lft forever preferred_lft forever\n    inet6 ::1/128 scope host\n       valid_lft forever preferred_lft forever\n2: eth0: <POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default\n    link/none\n",
            )
            .replace("mtu 1500", &format!("mtu {mtu}"));
            for address in &addresses {
                let family = if address.is_ipv4() { "inet" } else { "inet6" };
                let length = prefix(address);
                text.push_str(&format!(
                    "    {family} {address}/{length} scope global eth0\n       valid_lft forever preferred_lft forever\n"
                ));
            }
            text
        }
    } else if !object.is_empty() && "route".starts_with(object) {
        let mut text = String::new();
        // As iproute2 has it: IPv6 routes are shown when they are asked for.
        for address in addresses.iter().filter(|address| address.is_ipv6() == only_v6) {
            if let IpAddr::V4(v4) = address {
                let [a, b, third, _] = v4.octets();
                text.push_str(&format!("default via {a}.{b}.{third}.1 dev eth0\n{a}.{b}.{third}.0/24 dev eth0 proto kernel scope link src {v4}\n"));
            } else {
                text.push_str("default dev eth0 metric 1024\n");
            }
        }
        text
    } else if !object.is_empty() && "link".starts_with(object) {
        "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000\n    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n2: eth0: <POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP mode DEFAULT group default\n    link/none\n".replace("mtu 1500", &format!("mtu {mtu}"))
    } else {
        c.complain("Usage: ip [OPTIONS] address|route|link").await;
        return Ok(1);
    };
    c.print(text).await?;
    Ok(0)
}

async fn ifconfig(c: &mut Container) -> Outcome {
    let mut text =
        String::from("eth0      Link encap:UNSPEC  HWaddr 00-00-00-00-00-00-00-00-00-00-00-00-00-00-00-00\n");
    for address in interface(c) {
        match address {
            IpAddr::V4(address) => {
                text.push_str(&format!("          inet addr:{address}  P-t-P:{address}  Mask:255.255.255.0\n"));
            }
            IpAddr::V6(address) => text.push_str(&format!("          inet6 addr: {address}/64 Scope:Global\n")),
        }
    }
    text.push_str(&format!("          UP POINTOPOINT RUNNING NOARP MULTICAST  MTU:{}  Metric:1\n", c.host.mtu()));
    text.push_str("\nlo        Link encap:Local Loopback\n          inet addr:127.0.0.1  Mask:255.0.0.0\n          inet6 addr: ::1/128 Scope:Host\n          UP LOOPBACK RUNNING  MTU:65536  Metric:1\n");
    c.print(text).await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use crate::programs::harness::{Machine, network, serving};

    #[tokio::test(start_paused = true)]
    async fn ping_counts_what_comes_back() {
        let network = network();
        let _server = Machine::at(&network, "10.0.0.2");
        let client = Machine::at(&network, "10.0.0.1");
        let ran = client.run(&["ping", "-c", "2", "10.0.0.2"], "").await;
        assert_eq!(ran.status, 0, "{ran:?}");
        assert!(
            ran.stdout
                .starts_with("PING 10.0.0.2 (10.0.0.2): 56 data bytes\n64 bytes from 10.0.0.2: seq=0 ttl=64 time=")
        );
        assert!(ran.stdout.contains("2 packets transmitted, 2 packets received, 0% packet loss\n"), "{}", ran.stdout);
        let _silent =
            network.attach_raw(&["10.0.0.9".parse().expect("an address")], netstack::PortTag(9)).expect("attached");
        let lost = client.run(&["ping", "-c", "1", "-W", "1", "10.0.0.9"], "").await;
        assert_eq!(lost.status, 1);
        assert!(
            lost.stdout.ends_with("1 packets transmitted, 0 packets received, 100% packet loss\n"),
            "{}",
            lost.stdout
        );
        assert_eq!(client.run(&["ping", "nowhere"], "").await.stderr, "ping: bad address 'nowhere'\n");
    }

    #[tokio::test(start_paused = true)]
    async fn nc_relays_both_ways_and_probes_ports() {
        let network = network();
        let server = Machine::at(&network, "10.0.0.2");
        let client = Machine::at(&network, "10.0.0.1");
        let listening = server.run(&["nc", "-l", "-p", "7000"], "from server\n");
        let talking = async {
            tokio::task::yield_now().await;
            client.run(&["nc", "10.0.0.2", "7000"], "from client\n").await
        };
        let (heard, said) = tokio::join!(listening, talking);
        assert_eq!((heard.stdout.as_str(), said.stdout.as_str()), ("from client\n", "from server\n"));
        let _running = serving(&server, &["agnhost", "serve-hostname"]);
        assert_eq!(client.run(&["nc", "-z", "10.0.0.2", "9376"], "").await.status, 0);
        let closed = client.run(&["nc", "-zv", "-w", "1", "10.0.0.2", "1"], "").await;
        assert_eq!(
            (closed.status, closed.stderr.as_str()),
            (1, "nc: connect to 10.0.0.2 port 1 (tcp) failed: Connection refused\n")
        );
        let _udp = serving(&server, &["agnhost", "netexec", "--http-port=-1"]);
        let udp = client.run(&["nc", "-u", "-w", "1", "10.0.0.2", "8081"], "hostname\n").await;
        assert_eq!(udp.stdout, "web-0");
    }

    #[tokio::test(start_paused = true)]
    async fn interfaces_show_the_pods_addresses() {
        let machine = Machine::new();
        assert!(machine.run(&["ip", "addr"], "").await.stdout.contains("    inet 10.0.0.1/24 scope global eth0\n"));
        assert!(machine.run(&["ip", "route"], "").await.stdout.starts_with("default via 10.0.0.1 dev eth0\n"));
        assert!(machine.run(&["ifconfig"], "").await.stdout.contains("inet addr:10.0.0.1 "));
        assert_eq!(machine.run(&["hostname", "-i"], "").await.stdout, "10.0.0.1\n");
    }
}
