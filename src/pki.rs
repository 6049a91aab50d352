//! Keys and secrets of a cluster: made once, kept in its data directory with mode 0600.

use crate::addresses::Addresses;
use crate::cluster::ZONE;
use anyhow::{Context, Result};
use apiserver::certs::{CertificateAuthority, Identity, ServingCertificate, Tls};
use apiserver::tokens::TokenSigner;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// Everything secret.
pub(crate) struct Pki {
    pub(crate) authority: Arc<CertificateAuthority>,
    pub(crate) serving: Arc<ServingCertificate>,
    admin: Identity,
    pub(crate) signer: Arc<TokenSigner>,
    pub(crate) admin_token: String,
}

impl Pki {
    /// Loads what is kept in `dir`, makes what is missing. The serving certificate is made anew at each start, for the names and
    /// addresses then in use.
    pub(crate) fn load(
        dir: Option<&Path>,
        addresses: &Addresses,
        nodes: u32,
        listener: Option<SocketAddr>,
    ) -> Result<Pki> {
        let dir = dir.map(|dir| dir.join("pki"));
        let dir = dir.as_deref();
        if let Some(dir) = dir {
            make_private_directory(dir)?;
        }
        let authority = match (read(dir, "ca.crt")?, read(dir, "ca.key")?) {
            (Some(certificate), Some(key)) => CertificateAuthority::from_pem(&Identity { certificate, key })
                .context("the kept certificate authority")?,
            _ => {
                let authority = CertificateAuthority::generate()?;
                let identity = authority.identity();
                write(dir, "ca.key", &identity.key)?;
                write(dir, "ca.crt", &identity.certificate)?;
                authority
            }
        };
        let signer = match read(dir, "sa.key")? {
            Some(pem) => TokenSigner::from_pem(&pem).context("the kept service-account key")?,
            None => {
                let signer = TokenSigner::generate()?;
                write(dir, "sa.key", &signer.to_pem())?;
                signer
            }
        };
        let admin_token = match read(dir, "admin.token")? {
            Some(token) => token.trim().to_owned(),
            None => {
                let token = random_token();
                write(dir, "admin.token", &token)?;
                token
            }
        };
        let (names, ips) = served(addresses, nodes, listener);
        let serving = Arc::new(ServingCertificate::new(&authority, names, ips)?);
        let admin = authority.client("kubernetes-admin", &["system:masters"])?;
        Ok(Pki { authority: Arc::new(authority), serving, admin, signer: Arc::new(signer), admin_token })
    }

    pub(crate) fn tls(&self) -> Result<Tls> {
        Ok(self.authority.tls(self.serving.clone())?)
    }

    /// Renews the serving certificate a month before it expires, again and again.
    pub(crate) fn keep_serving(&self) -> impl Future<Output = ()> + Send + 'static {
        let (authority, serving) = (self.authority.clone(), self.serving.clone());
        async move {
            loop {
                tokio::time::sleep(ServingCertificate::RENEW_AFTER).await;
                match serving.renew(&authority) {
                    Ok(()) => tracing::info!("serving certificate renewed"),
                    Err(error) => tracing::error!(%error, "the serving certificate cannot be renewed"),
                }
            }
        }
    }

    /// A kubeconfig whose context, cluster and user are called `name`, with the administrator's client certificate.
    pub(crate) fn kubeconfig(&self, name: &str, api: SocketAddr) -> String {
        let ca = STANDARD.encode(self.authority.certificate());
        let certificate = STANDARD.encode(&self.admin.certificate);
        let key = STANDARD.encode(&self.admin.key);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: https://{api}\n    certificate-authority-data: {ca}\n\
             users:\n- name: {name}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
             contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\ncurrent-context: {name}\n"
        )
    }
}

/// Every name and address that the API is reached by.
fn served(addresses: &Addresses, nodes: u32, listener: Option<SocketAddr>) -> (Vec<String>, Vec<IpAddr>) {
    let mut names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        &format!("kubernetes.default.svc.{ZONE}"),
        "localhost",
        "host.coracle.internal",
    ]
    .map(str::to_owned)
    .into();
    let mut ips: Vec<IpAddr> =
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), addresses.kubernetes().into()];
    ips.extend(addresses.gateways());
    // The machine as pods see it, where the API's own listener is reached too.
    ips.extend(addresses.hosts().into_iter().map(|(inside, _)| inside));
    for index in 1..=nodes {
        names.push(format!("node-{index}"));
        ips.extend(addresses.node_addresses(index));
        ips.push(on_this_machine(addresses.node(index)).into());
    }
    match listener.map(|address| address.ip()) {
        Some(ip) if ip.is_unspecified() => {
            ips.extend(own_addresses());
            names.extend(hostname());
        }
        other => ips.extend(other),
    }
    let mut seen = HashSet::new();
    ips.retain(|ip| seen.insert(*ip));
    (names, ips)
}

/// Where a node's ports are found on the machine: 127 in front of its address (see `host_ports`).
fn on_this_machine(node: Ipv4Addr) -> Ipv4Addr {
    let [_, b, c, d] = node.octets();
    Ipv4Addr::new(127, b, c, d)
}

/// The addresses of the machine, on systems that list them in `/proc/net`; a listener on all of them is reached by each.
fn own_addresses() -> Vec<IpAddr> {
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|pair| pair[1].starts_with("/32 host LOCAL"));
    let v4 = local.filter_map(|pair| pair[0].strip_prefix("|-- ")?.parse::<Ipv4Addr>().ok()).map(IpAddr::from);
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let v6 = table.lines().filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok());
    v4.chain(v6.map(|bits| Ipv6Addr::from(bits).into())).collect()
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

/// 256 random bits.
fn random_token() -> String {
    let bytes: [u8; 32] = rand::random();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn read(dir: Option<&Path>, name: &str) -> Result<Option<String>> {
    let Some(path) = dir.map(|dir| dir.join(name)) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write(dir: Option<&Path>, name: &str, text: &str) -> Result<()> {
    let Some(path) = dir.map(|dir| dir.join(name)) else { return Ok(()) };
    write_private(&path, text)
}

/// Writes a file that only the owner can read; whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let written = (|| {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a directory that only the owner can enter.
pub(crate) fn make_private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the directory {}", path.display()))?;
    let private = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    private.with_context(|| format!("cannot make {} private", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serving_certificate_is_for_every_name_and_address_in_use() {
        let plan = Addresses::default();
        let (names, ips) = served(&plan, 2, Some("127.0.0.1:6443".parse().expect("an address")));
        for name in ["kubernetes.default.svc.cluster.local", "localhost", "host.coracle.internal", "node-2"] {
            assert!(names.iter().any(|known| known == name), "{name} is missing in {names:?}");
        }
        let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        assert_eq!(
            ips,
            [
                "127.0.0.1",
                "::1",
                "10.96.0.1",
                "172.18.0.1",
                "172.18.0.254",
                "172.18.0.2",
                "127.18.0.2",
                "172.18.0.3",
                "127.18.0.3"
            ]
        );
        let (_, ips) = served(&plan, 1, Some("192.0.2.7:6443".parse().expect("an address")));
        assert!(ips.contains(&"192.0.2.7".parse().expect("an address")));
    }

    #[tokio::test(start_paused = true)]
    async fn the_serving_certificate_is_renewed_a_month_before_it_expires() {
        let pki = Pki::load(None, &Addresses::default(), 1, None).expect("keys");
        let kept = tokio::spawn(pki.keep_serving());
        let first = pki.serving.certificate();
        tokio::time::sleep(ServingCertificate::RENEW_AFTER - std::time::Duration::from_secs(1)).await;
        assert_eq!(pki.serving.certificate(), first);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let second = pki.serving.certificate();
        assert_ne!(second, first);
        tokio::time::sleep(ServingCertificate::RENEW_AFTER).await;
        assert_ne!(pki.serving.certificate(), second);
        kept.abort();
    }
}
