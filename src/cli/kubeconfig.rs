//! The user's kubeconfig: a cluster's context is merged in when it starts, and taken out when it stops, as kind does.
//!
//! Everything else in the file stays. Written whole, with mode 0600, by an atomic rename.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

const PREVIOUS: &str = "coracle.dev/previous-context";

/// `$KUBECONFIG`'s first file, or `~/.kube/config`.
pub(crate) fn default_path() -> Result<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty())
    {
        return Ok(first);
    }
    let home = std::env::var_os("HOME").context("HOME is not set; name a file with --kubeconfig")?;
    Ok(PathBuf::from(home).join(".kube/config"))
}

/// Adds (or replaces) the entries of `fresh` and makes its context the current one.
pub(crate) fn merge(path: &Path, fresh: &str) -> Result<()> {
    let fresh: Value = serde_saphyr::from_str(fresh)?;
    let mut config = read(path)?;
    let name = fresh["current-context"].as_str().unwrap_or_default().to_owned();
    let current = config["current-context"].as_str().unwrap_or_default().to_owned();
    let previous =
        if current == name { previous_context(&config, &name) } else { Some(current).filter(|name| !name.is_empty()) };
    remove_entries(&mut config, &name);
    for section in ["clusters", "users", "contexts"] {
        let mut entries = config[section].as_array().cloned().unwrap_or_default();
        let mut added = fresh[section].as_array().cloned().unwrap_or_default();
        if section == "contexts"
            && let (Some(previous), Some(entry)) = (&previous, added.first_mut())
        {
            // Where to go back to when the cluster stops; extensions are there for such notes.
            entry["context"]["extensions"] = json!([{"name": PREVIOUS, "extension": previous}]);
        }
        entries.append(&mut added);
        config[section] = entries.into();
    }
    config["current-context"] = name.into();
    write(path, &config)
}

/// Takes a cluster's entries out; the context that was current before is current again.
pub(crate) fn remove(path: &Path, name: &str) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let mut config = read(path)?;
    let previous = previous_context(&config, name).unwrap_or_default();
    remove_entries(&mut config, name);
    if config["current-context"] == name {
        let known = config["contexts"].as_array().into_iter().flatten().any(|entry| entry["name"] == previous.as_str());
        config["current-context"] = if known { previous } else { String::new() }.into();
    }
    write(path, &config)
}

/// The context that was current before the one of this name was merged in.
fn previous_context(config: &Value, name: &str) -> Option<String> {
    let context = config["contexts"].as_array()?.iter().find(|entry| entry["name"] == name)?;
    let note = context["context"]["extensions"].as_array()?.iter().find(|note| note["name"] == PREVIOUS)?;
    note["extension"].as_str().map(str::to_owned)
}

fn remove_entries(config: &mut Value, name: &str) {
    for section in ["clusters", "users", "contexts"] {
        if let Some(entries) = config[section].as_array_mut() {
            entries.retain(|entry| entry["name"] != name);
        }
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if text.trim().is_empty() {
        return Ok(json!({"apiVersion": "v1", "kind": "Config", "preferences": {}}));
    }
    let config: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not a kubeconfig", path.display()))?;
    anyhow::ensure!(config.is_object(), "{} is not a kubeconfig: it must be a mapping", path.display());
    Ok(config)
}

fn write(path: &Path, config: &Value) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let text = serde_saphyr::to_string(&ordered(config))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let written = (|| {
        if let Some(dir) = dir {
            std::fs::create_dir_all(dir)?;
        }
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&temporary, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// kubectl's own order is kept by its tools, not needed by them; the file's is alphabetical.
fn ordered(config: &Value) -> Map<String, Value> {
    config.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: coracle\n  cluster: {server: 'https://127.0.0.1:6443'}\nusers:\n- name: coracle\n  user: {token: t}\ncontexts:\n- name: coracle\n  context: {cluster: coracle, user: coracle}\ncurrent-context: coracle\n";

    #[test]
    fn a_context_is_merged_in_and_taken_out_and_the_rest_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sub/config");
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        let other = "clusters:\n- name: prod\n  cluster: {server: 'https://prod'}\ncontexts:\n- name: prod\n  context: {cluster: prod, user: prod}\nusers: []\ncurrent-context: prod\n";
        std::fs::write(&path, other).expect("written");
        merge(&path, FRESH).expect("merged");
        merge(&path, FRESH).expect("merging again changes nothing");
        let config = read(&path).expect("readable");
        assert_eq!(config["current-context"], "coracle");
        assert_eq!(config["clusters"].as_array().expect("a list").len(), 2);
        remove(&path, "coracle").expect("removed");
        let config = read(&path).expect("readable");
        assert_eq!(config["current-context"], "prod", "what was current before is current again");
        assert_eq!(config["clusters"], json!([{"name": "prod", "cluster": {"server": "https://prod"}}]));
        assert_eq!(config["contexts"].as_array().expect("a list").len(), 1);
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config");
        std::fs::write(&path, "- a\n- b\n").expect("written");
        assert!(merge(&path, FRESH).expect_err("a list").to_string().contains("must be a mapping"));
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "- a\n- b\n");
    }
}
