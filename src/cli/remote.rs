//! A client of a running cluster, over its unix socket: the same API as everybody's, without TLS and token.

use super::{ClusterName, Hint, paths, say};
use anyhow::{Context, Result, bail};
use http::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tower::BoxError;

/// A resource as discovery names it.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    short_names: Vec<String>,
    categories: Vec<String>,
}

impl Resource {
    /// The path of the collection in `namespace` (in all, if `None`).
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let prefix = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{prefix}/namespaces/{}/{}", encode(namespace), self.plural),
            None => format!("{prefix}/{}", self.plural),
        }
    }

    /// As kubectl prints it: `deployment.apps`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.singular.clone() } else { format!("{}.{}", self.singular, self.group) }
    }
}

/// Percent-encodes what cannot stand in a path segment or a query value.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The cluster's API.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) client: kube::Client,
}

impl Remote {
    /// The named cluster, or the one around this process (`coracle run`).
    pub(crate) fn connect(cluster: &ClusterName) -> Result<Remote> {
        let socket = match std::env::var_os("CORACLE_SOCKET") {
            Some(socket) => PathBuf::from(socket),
            None => paths::running(&cluster.name)?.socket,
        };
        Ok(Remote {
            client: kube::Client::new(tower::service_fn(move |request| send(socket.clone(), request)), "default"),
        })
    }

    /// A request whose answer is JSON.
    pub(crate) async fn json(&self, request: Request<Vec<u8>>) -> Result<Value, kube::Error> {
        self.client.request::<Value>(request).await
    }

    pub(crate) async fn get(&self, path: &str, accept: &str) -> Result<Value, kube::Error> {
        let request = Request::get(path).header("Accept", accept).body(Vec::new());
        self.json(request.map_err(kube::Error::HttpError)?).await
    }

    /// Everything that can be listed.
    pub(crate) async fn resources(&self) -> Result<Vec<Resource>> {
        const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let mut resources = Vec::new();
        for path in ["/api", "/apis"] {
            let document = self.get(path, AGGREGATED).await?;
            for group in document["items"].as_array().into_iter().flatten() {
                let name = group["metadata"]["name"].as_str().unwrap_or_default();
                // The first version is the preferred one.
                for version in group["versions"].as_array().into_iter().flatten() {
                    for entry in version["resources"].as_array().into_iter().flatten() {
                        resources.push(resource(name, version["version"].as_str().unwrap_or_default(), entry));
                    }
                }
            }
        }
        Ok(resources)
    }

    /// Finds resources by any name a user may give: plural, singular, short, kind, with group; or a category.
    pub(crate) async fn find(&self, name: &str) -> Result<Vec<Resource>> {
        let all = self.resources().await?;
        let wanted = name.to_lowercase();
        let (bare, group) = wanted.split_once('.').map_or((wanted.as_str(), None), |(bare, group)| (bare, Some(group)));
        let named = all.iter().find(|resource| {
            let names = [&resource.plural, &resource.singular];
            let known = names.iter().any(|known| known.as_str() == bare)
                || resource.kind.to_lowercase() == bare
                || resource.short_names.iter().any(|short| short == bare);
            known
                && group.is_none_or(|group| resource.group == group || resource.group.starts_with(&format!("{group}.")))
        });
        if let Some(resource) = named {
            return Ok(vec![resource.clone()]);
        }
        let in_category: Vec<Resource> =
            all.into_iter().filter(|resource| resource.categories.contains(&wanted)).collect();
        if in_category.is_empty() {
            let hint = Hint(
                "`coracle get --help` shows the form; resource types are those of `kubectl api-resources`".to_owned(),
            );
            bail!(anyhow::Error::new(hint).context(format!("the server doesn't have a resource type {name:?}")));
        }
        Ok(in_category)
    }

    /// The resource of a manifest.
    pub(crate) fn of_manifest<'a>(resources: &'a [Resource], manifest: &Value) -> Result<&'a Resource> {
        let api_version = manifest["apiVersion"].as_str().context("apiVersion: Required value")?;
        let kind = manifest["kind"].as_str().context("kind: Required value")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found =
            resources.iter().find(|known| known.group == group && known.version == version && known.kind == kind);
        found.with_context(|| format!("no matches for kind {kind:?} in version {api_version:?}"))
    }
}

fn resource(group: &str, version: &str, entry: &Value) -> Resource {
    let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let list = |field: &str| {
        entry[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: text("resource"),
        singular: text("singularResource"),
        kind: entry["responseKind"]["kind"].as_str().unwrap_or_default().to_owned(),
        namespaced: entry["scope"] == "Namespaced",
        short_names: list("shortNames"),
        categories: list("categories"),
    }
}

/// One request on a connection of its own: connecting to a unix socket costs microseconds.
async fn send(
    socket: PathBuf,
    request: Request<kube::client::Body>,
) -> Result<http::Response<hyper::body::Incoming>, BoxError> {
    let stream = UnixStream::connect(&socket)
        .await
        .map_err(|error| format!("cannot connect to {}: {error}", display(&socket)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let (mut parts, body) = request.into_parts();
    parts.headers.entry("Host").or_insert(http::HeaderValue::from_static("localhost"));
    let response = sender.send_request(Request::from_parts(parts, body)).await?;
    for warning in response.headers().get_all(http::header::WARNING) {
        if let Some(text) = warning.to_str().ok().and_then(warning_text) {
            say(&format!("Warning: {text}"));
        }
    }
    Ok(response)
}

/// The text of a `Warning` header's value (RFC 7234, 5.5): `299 - "text"`.
fn warning_text(value: &str) -> Option<String> {
    let quoted = value.split_once('"')?.1.rsplit_once('"')?.0;
    let mut text = String::new();
    let mut escaped = false;
    for letter in quoted.chars() {
        if letter == '\\' && !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        text.push(letter);
    }
    Some(text)
}

fn display(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// What the server said, without the client library's frame around it.
pub(crate) fn explain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => {
            anyhow::anyhow!("Error from server ({}): {}", status.reason, status.message)
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_warning_is_what_stands_in_quotes() {
        assert_eq!(warning_text(r#"299 - "use \"b\" \\ not c""#).as_deref(), Some(r#"use "b" \ not c"#));
        assert_eq!(warning_text("299 -"), None);
    }
}
