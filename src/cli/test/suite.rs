//! The file format of `coracle test`: manifests, stand-in pods, and who is expected to reach whom.

use super::super::{Files, apply};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const API_VERSION: &str = "net.coracle.dev/v1alpha1";
const KIND: &str = "ReachabilityTest";

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Suite {
    api_version: String,
    kind: String,
    metadata: Metadata,
    /// Files and directories, relative to the suite's own file.
    #[serde(default)]
    manifests: Vec<PathBuf>,
    /// Pods that stand in for what the manifests do not bring.
    #[serde(default)]
    pods: Vec<StandIn>,
    /// What is expected.
    pub(super) expect: Vec<Expectation>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

/// A pod that listens on its ports and answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StandIn {
    name: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<u16>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// Who is expected to reach whom, or not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    /// POD, NAMESPACE/POD, NAMESPACE/LABEL=VALUE (every such pod) or an IP address.
    pub(super) from: OneOrMany,
    /// The same with :PORT or :PORT/PROTOCOL; also svc/NAME and svc/NAMESPACE/NAME.
    pub(super) to: OneOrMany,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            OneOrMany::One(text) => std::slice::from_ref(text),
            OneOrMany::Many(texts) => texts,
        }
        .iter()
        .map(String::as_str)
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Allowed,
    Denied,
}

impl Verdict {
    pub(super) fn of(allowed: bool) -> Self {
        if allowed { Verdict::Allowed } else { Verdict::Denied }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
        }
    }
}

impl Suite {
    /// Reads a file; errors name it and the place in it.
    pub(super) fn read(path: &Path) -> Result<Suite> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let suite: Suite = serde_saphyr::from_str(&text).with_context(|| format!("error parsing {shown}"))?;
        if (suite.api_version.as_str(), suite.kind.as_str()) != (API_VERSION, KIND) {
            bail!(
                "{shown}: must be of apiVersion {API_VERSION} and kind {KIND}, not {} {}",
                suite.api_version,
                suite.kind
            );
        }
        if suite.expect.is_empty() {
            bail!("{shown}: expect: Required value: a test without an expectation checks nothing");
        }
        Ok(suite)
    }

    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Everything to apply, namespaces first: those that are only mentioned are made too.
    pub(super) fn objects(&self, path: &Path) -> Result<Vec<Value>> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let files: Vec<PathBuf> = self.manifests.iter().map(|manifest| directory.join(manifest)).collect();
        let read = if files.is_empty() { Vec::new() } else { apply::read(&Files { files })? };
        let mut objects: Vec<Value> = read.into_iter().map(|(_, manifest)| manifest).collect();
        objects.extend(self.pods.iter().map(StandIn::manifest));
        let is_namespace = |object: &Value| object["kind"] == "Namespace";
        let defined: BTreeSet<String> = objects.iter().filter(|object| is_namespace(object)).filter_map(name).collect();
        let mentioned: BTreeSet<String> = objects
            .iter()
            .filter_map(|object| Some(object["metadata"]["namespace"].as_str()?.to_owned()))
            .filter(|namespace| namespace != "default" && !defined.contains(namespace))
            .collect();
        let made =
            mentioned.iter().map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        let (namespaces, others): (Vec<Value>, Vec<Value>) = objects.into_iter().partition(is_namespace);
        Ok(made.chain(namespaces).chain(others).collect())
    }
}

fn name(object: &Value) -> Option<String> {
    object["metadata"]["name"].as_str().map(str::to_owned)
}

impl StandIn {
    fn manifest(&self) -> Value {
        let ports: Vec<Value> = self.ports.iter().map(|port| json!({"containerPort": port})).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "stand-in", "image": "coracle.dev/stand-in", "ports": ports}]},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Suite> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("suite.yaml");
        std::fs::write(&path, text)?;
        Suite::read(&path)
    }

    const HEAD: &str = "apiVersion: net.coracle.dev/v1alpha1\nkind: ReachabilityTest\nmetadata: {name: a}\n";

    #[test]
    fn a_mistake_in_the_file_is_refused_with_its_place() {
        let expect = "expect: [{from: web, to: 'db:80', verdict: allowed}]\n";
        for (text, why) in [
            (format!("{HEAD}{expect}"), ""),
            (format!("{HEAD}expect: []\n"), "expect: Required value"),
            (HEAD.to_owned(), "expect"),
            (format!("{HEAD}{expect}pod: []\n"), "pod"),
            (format!("{HEAD}expect: [{{from: web, to: 'db:80', verdict: maybe}}]\n"), "maybe"),
            (format!("{}{expect}", HEAD.replace("ReachabilityTest", "Test")), "kind ReachabilityTest"),
        ] {
            match read(&text) {
                Ok(_) => assert_eq!(why, "", "{text}"),
                Err(error) => assert!(!why.is_empty() && format!("{error:#}").contains(why), "{text}: {error:#}"),
            }
        }
    }

    #[test]
    fn namespaces_come_first_and_those_only_mentioned_are_made() {
        let suite = read(&format!(
            "{HEAD}pods: [{{name: web, namespace: shop, ports: [80]}}]\nexpect: [{{from: web, to: 'db:80', verdict: denied}}]\n"
        ));
        let objects = suite.and_then(|suite| suite.objects(Path::new("x"))).expect("objects");
        let kinds: Vec<_> =
            objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect();
        assert_eq!(kinds, ["\"Namespace\" \"shop\"", "\"Pod\" \"web\""]);
    }
}
