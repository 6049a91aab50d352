//! URLs as curl reads them: a missing scheme is http, what is wrong has curl's words.

use super::transfer::Failure;

/// A URL taken apart.
pub(super) struct Target {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
    pub(super) user: Option<String>,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Target, Failure> {
        let rejected = |why: &str| Failure::Curl(3, format!("URL rejected: {why}"));
        let url = url.split('#').next().unwrap_or_default();
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => ("http".to_owned(), url),
        };
        if scheme != "http" && scheme != "https" {
            return Err(Failure::Curl(1, format!("Protocol \"{scheme}\" not supported")));
        }
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(rejected("Malformed input to a URL function"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user.to_owned()), authority),
            None => (None, authority),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        if host.is_empty() {
            return Err(rejected("No host part in the URL"));
        }
        let port = match port {
            "" if scheme == "https" => 443,
            "" => 80,
            port => port.parse().map_err(|_| rejected("Port number was not a decimal number between 0 and 65535"))?,
        };
        let path = match path {
            "" => "/".to_owned(),
            path if path.starts_with('?') => format!("/{path}"),
            path => path.to_owned(),
        };
        Ok(Target { scheme, host: host.to_owned(), port, path, user })
    }

    /// The `Host` header: the port only if it is not the scheme's.
    pub(super) fn authority(&self) -> String {
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

/// A `Location` seen from the URL it came from.
pub(super) fn resolved(base: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let (scheme, rest) = base.split_once("://").unwrap_or(("http", base));
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}");
    }
    let path = path.split('?').next().unwrap_or_default();
    let directory = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
    let directory = if directory.is_empty() { "/" } else { directory };
    format!("{scheme}://{authority}{directory}{location}")
}
