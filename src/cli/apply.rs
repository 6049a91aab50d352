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
        let before = match remote.get(&path, "application/json").await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(remote::explain(error)),
        };
        let dry_run = if self.dry_run { "&dryRun=All" } else { "" };
        let url =
            format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict&force={}{dry_run}", self.force_conflicts);
        let request = Request::patch(url)
            .header("Content-Type", "application/apply-patch+yaml")
            .header("Accept", "application/json")
            .body(manifest.to_string().into_bytes())?;
        let after = remote.json(request).await.map_err(remote::explain)?;
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
