//! `apply`: manifests by server-side apply.

use super::remote::{self, Remote};
use super::{Files, Hint, Scope, print, say};
use anyhow::{Context, Result, bail};
use clap::Args;
use http::Request;
use serde::Deserialize;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

const MANAGER: &str = "coracle";

/// How often an object that others keep changing is read again before it is applied to whatever it has become.
const ATTEMPTS: usize = 8;

/// Apply manifests
#[derive(Clone, Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    scope: Scope,
    /// Take fields over from others who own them
    #[arg(long)]
    force_conflicts: bool,
    /// Check and answer, but change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    pub(crate) async fn run(self) -> Result<()> {
        let remote = Remote::connect(&self.scope.cluster)?;
        let manifests = read(&self.files)?;
        let mut resources = remote.resources().await?;
        let mut failures = 0;
        for (source, manifest) in &manifests {
            let applied = self.one(&remote, &mut resources, manifest).await;
            match applied {
                Ok(line) => print(&format!("{line}\n")),
                Err(error) => {
                    failures += 1;
                    say(&format!("error: {source}: {error:#}"));
                }
            }
        }
        if failures > 0 {
            bail!("{failures} of {} objects were not applied", manifests.len());
        }
        Ok(())
    }

    async fn one(&self, remote: &Remote, resources: &mut Vec<remote::Resource>, manifest: &Value) -> Result<String> {
        if Remote::of_manifest(resources, manifest).is_err() {
            // An object before this one may have defined the kind.
            *resources = remote.resources().await?;
        }
        let resource = Remote::of_manifest(resources, manifest)?;
        let name = manifest["metadata"]["name"].as_str().context("metadata.name: Required value")?;
        let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or(&self.scope.namespace);
        let path = format!("{}/{}", resource.path(Some(namespace)), remote::encode(name));
        let dry_run = if self.dry_run { "&dryRun=All" } else { "" };
        let url =
            format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict&force={}{dry_run}", self.force_conflicts);
        let mut attempts = 0;
        let (before, after) = loop {
            attempts += 1;
            let before = match remote.get(&path, "application/json").await {
                Ok(object) => Some(object),
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                Err(error) => return Err(remote::explain(error)),
            };
            // Applied to what was read and nothing newer, so that a change by somebody else in between is not taken for ours.
            let mut body = manifest.clone();
            let ours = body["metadata"]["resourceVersion"].is_null() && attempts < ATTEMPTS;
            if let Some(before) = before.as_ref().filter(|_| ours) {
                body["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            }
            let request = Request::patch(&url)
                .header("Content-Type", "application/apply-patch+yaml")
                .header("Accept", "application/json")
                .body(body.to_string().into_bytes())?;
            match remote.json(request).await {
                Ok(after) => break (before, after),
                Err(kube::Error::Api(status)) if ours && before.is_some() && is_outdated(&status) => {}
                Err(error) => return Err(remote::explain(error)),
            }
        };
        let what = match before {
            None => "created",
            Some(before) if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] => {
                "unchanged"
            }
            Some(_) => "configured",
        };
        Ok(format!("{}/{name} {what}{}", resource.qualified(), if self.dry_run { " (dry run)" } else { "" }))
    }
}

/// Whether somebody has written the object since it was read; fields that others own are a conflict of another kind.
fn is_outdated(status: &kube::core::Status) -> bool {
    let causes = status.details.as_ref().map_or(&[][..], |details| &details.causes);
    status.code == 409 && status.reason == "Conflict" && causes.is_empty()
}

/// Every object in these files, with where it came from. Lists are taken apart.
pub(crate) fn read(files: &Files) -> Result<Vec<(String, Value)>> {
    if files.files.is_empty() {
        bail!(
            anyhow::Error::new(Hint("name a file or directory with -f, or - for standard input".to_owned()))
                .context("must specify -f")
        );
    }
    let mut manifests = Vec::new();
    for path in &files.files {
        for (source, text) in texts(path)? {
            let documents = documents(&text).with_context(|| format!("error parsing {source}"))?;
            for (index, document) in documents.into_iter().enumerate() {
                let source = format!("{source} (document {})", index + 1);
                match document["items"].as_array() {
                    Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                        manifests.extend(items.iter().map(|item| (source.clone(), item.clone())));
                    }
                    _ => manifests.push((source, document)),
                }
            }
        }
    }
    anyhow::ensure!(!manifests.is_empty(), "no objects passed to apply");
    Ok(manifests)
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in serde_saphyr::from_multiple::<Value>(text)? {
        if !document.is_null() {
            anyhow::ensure!(document.is_object(), "a document is not an object but {document}");
            all.push(Value::deserialize(document)?);
        }
    }
    Ok(all)
}

/// Name and text of each file meant by a path.
fn texts(path: &Path) -> Result<Vec<(String, String)>> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let mut paths: Vec<PathBuf> = if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let known = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(known).collect()
    } else {
        vec![path.to_owned()]
    };
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((path.display().to_string(), text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Response};
    use http_body_util::BodyExt;
    use parking_lot::Mutex;
    use serde_json::json;
    use std::sync::Arc;

    /// An object to which somebody else writes `others` times, each time just before it is written here. What is applied to it
    /// changes nothing.
    fn contended(others: u64) -> Remote {
        let state = Arc::new(Mutex::new((1, others)));
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let state = state.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let (version, others) = &mut *state.lock();
                let object = |version: &u64| json!({"metadata": {"name": "x", "resourceVersion": version.to_string()}});
                let kind = json!({"resource": "configmaps", "singularResource": "configmap", "scope": "Namespaced",
                    "responseKind": {"kind": "ConfigMap"}});
                let (code, answer) = match (parts.method, parts.uri.path()) {
                    (Method::GET, "/api") => {
                        (200, json!({"items": [{"versions": [{"version": "v1", "resources": [kind]}]}]}))
                    }
                    (Method::GET, "/apis") => (200, json!({"items": []})),
                    (Method::GET, _) => (200, object(version)),
                    _ => {
                        if *others > 0 {
                            (*version, *others) = (*version + 1, *others - 1);
                        }
                        let asked: Value = serde_json::from_slice(&body)?;
                        match asked["metadata"]["resourceVersion"].as_str() {
                            Some(known) if known != version.to_string() => (
                                409,
                                json!({"kind": "Status", "status": "Failure", "message": "the object has been modified",
                                    "reason": "Conflict", "details": {"name": "x", "kind": "configmaps"}, "code": 409}),
                            ),
                            _ => (200, object(version)),
                        }
                    }
                };
                let answer = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
                Response::builder().status(code).body(answer).map_err(tower::BoxError::from)
            }
        });
        Remote { client: kube::Client::new(service, "default") }
    }

    async fn applied(others: u64) -> String {
        let cluster = super::super::ClusterName { name: "none".to_owned() };
        let apply = Apply {
            files: Files { files: Vec::new() },
            scope: Scope { namespace: "default".to_owned(), cluster },
            force_conflicts: false,
            dry_run: false,
        };
        let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
        apply.one(&contended(others), &mut Vec::new(), &manifest).await.expect("applied")
    }

    #[tokio::test]
    async fn what_somebody_else_writes_meanwhile_is_not_called_configured() {
        for others in [0, 1, 3] {
            assert_eq!(applied(others).await, "configmap/x unchanged", "{others} writes");
        }
    }

    #[tokio::test]
    async fn an_object_that_never_rests_is_applied_to_all_the_same() {
        assert_eq!(applied(1000).await, "configmap/x configured");
    }
}
