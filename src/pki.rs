//! Keys and secrets of a cluster: made once, kept in its data directory with mode 0600.

use crate::cluster::{Addresses, ZONE};
use anyhow::{Context, Result};
use apiserver::certs::{CertificateAuthority, Identity};
use apiserver::tokens::TokenSigner;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// Everything secret.
pub(crate) struct Pki {
    pub(crate) authority: CertificateAuthority,
    serving: Identity,
    admin: Identity,
    pub(crate) signer: Arc<TokenSigner>,
    pub(crate) admin_token: String,
}

impl Pki {
    /// Loads what is kept in `dir`, makes what is missing. The serving certificate is made anew at each start, for the names and
    /// addresses then in use.
    pub(crate) fn load(dir: Option<&Path>, addresses: &Addresses, listener: Option<SocketAddr>) -> Result<Pki> {
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
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            &format!("kubernetes.default.svc.{ZONE}"),
            "localhost",
            "host.coracle.internal",
        ]
        .map(str::to_owned);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut ips: Vec<IpAddr> = vec![
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            addresses.kubernetes().into(),
            addresses.gateway.into(),
        ];
        ips.extend(listener.map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified()));
        let serving = authority.serving(&names, &ips)?;
        let admin = authority.client("kubernetes-admin", &["system:masters"])?;
        Ok(Pki { authority, serving, admin, signer: Arc::new(signer), admin_token })
    }

    pub(crate) fn tls(&self) -> Result<Arc<apiserver::server::TlsConfig>> {
        Ok(self.authority.tls(&self.serving)?)
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
