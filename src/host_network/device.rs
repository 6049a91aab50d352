//! The TUN device, its address and routes, and the machine's resolver: Linux, `ip` of iproute2.

use crate::addresses::Addresses;
use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use netstack::{Network, PortTag, TunDevice};
use std::collections::BTreeSet;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::warn;

/// The devices are called so: the kernel numbers them.
const DEVICE: &str = "coracle%d";

/// The machine's end of the cluster's network.
pub(crate) struct Attached {
    device: TunDevice,
    port: netstack::RawPort,
}

impl Attached {
    /// Makes the device, its addresses and its routes. `mtu` is the network's.
    pub(crate) async fn new(network: &Network, addresses: &Addresses, mtu: usize, zone: &str) -> Result<Attached> {
        let device = TunDevice::create(DEVICE).map_err(explained)?;
        let own = addresses.machines();
        let port = device
            .attach(network, &own, PortTag(0))
            .context("the machine cannot be attached to the cluster's network")?;
        let name = device.name();
        let mut orders = format!("link set {name} mtu {mtu} up\n");
        for address in &own {
            // Nobody else on a point-to-point link could have it already.
            let flags = if address.is_ipv6() { " nodad" } else { "" };
            orders.push_str(&format!("address add {} dev {name}{flags}\n", IpNet::from(*address)));
        }
        for range in ranges(addresses)? {
            let source = own.iter().find(|address| address.is_ipv6() == range.addr().is_ipv6());
            let source = source.map(|address| format!(" src {address}")).unwrap_or_default();
            orders.push_str(&format!("route add {range} dev {name}{source}\n"));
        }
        configure(&orders).await?;
        resolve(name, addresses, zone).await;
        Ok(Attached { device, port })
    }

    /// The device's name.
    pub(crate) fn device(&self) -> &str {
        self.device.name()
    }

    /// Carries packets until the cluster stops.
    pub(crate) async fn run(self) {
        let name = self.device.name().to_owned();
        if let Err(error) = self.device.run(self.port).await {
            warn!(device = name, %error, "the machine is no longer on the cluster's network");
        }
    }
}

/// What is reached by the device. Ranges of the plan may be one and the same: pods among the nodes.
fn ranges(addresses: &Addresses) -> Result<BTreeSet<IpNet>> {
    let ranges = addresses.inside().into_iter().map(|(base, prefix)| Ok(IpNet::new(base, prefix)?.trunc()));
    ranges.collect::<Result<_>>().context("a range of the address plan")
}

fn explained(error: std::io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "this kernel has no TUN devices (/dev/net/tun is missing; `modprobe tun`)",
        std::io::ErrorKind::PermissionDenied => {
            "it needs CAP_NET_ADMIN: run as root, or leave `--host-network tun` out"
        }
        _ => "it needs /dev/net/tun and CAP_NET_ADMIN",
    };
    anyhow::Error::new(error).context(format!("host network: tun: cannot make a TUN device: {hint}"))
}

/// Carries out `ip` orders, one a line.
async fn configure(orders: &str) -> Result<()> {
    let spawned = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut ip = spawned.context("host network: tun: cannot run `ip` (of the package iproute2)")?;
    if let Some(mut stdin) = ip.stdin.take() {
        // If `ip` is gone already, it has said why.
        let _ = stdin.write_all(orders.as_bytes()).await;
    }
    let ended = ip.wait_with_output().await.context("waiting for `ip`")?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        // "Command failed -:3": the line of the orders.
        let line = said.rsplit_once("-:").and_then(|(_, number)| number.trim().parse::<usize>().ok());
        let order = line.and_then(|line| orders.lines().nth(line - 1)).unwrap_or("");
        let said = said.lines().next().unwrap_or("no reason given").to_owned();
        bail!(
            "host network: tun: `ip {order}` failed: {said}{}",
            if said.contains("File exists") { " (another network of this machine has that range)" } else { "" }
        );
    }
    Ok(())
}

/// Has systemd-resolved, where it runs, ask the cluster's DNS for the cluster's names. Where it does not, nothing is changed: the
/// server is reachable, and whoever wants its names asks it.
async fn resolve(device: &str, addresses: &Addresses, zone: &str) {
    let server = addresses.dns().to_string();
    let domain = format!("~{zone}");
    for arguments in [["dns", device, server.as_str()], ["domain", device, domain.as_str()]] {
        let command = Command::new("resolvectl").args(arguments).stdin(Stdio::null()).output().await;
        match command {
            Ok(ended) if ended.status.success() => {}
            Ok(ended) => {
                let said = String::from_utf8_lossy(&ended.stderr);
                return warn!(said = said.trim(), "systemd-resolved does not ask the cluster's DNS");
            }
            Err(_absent) => return,
        }
    }
}
