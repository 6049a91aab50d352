//! The floors of ARCHITECTURE.md: a crate depends on lower floors only, and the ground floor knows no Kubernetes.

use crate::support::repository;
use regex::Regex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floor of each crate; crates of one floor are strangers to one another.
const FLOORS: [(&str, u32); 11] = [
    ("store", 0),
    ("netstack", 0),
    ("informer", 0),
    ("apiserver", 1),
    ("controllers", 1),
    ("proxy", 1),
    ("policy", 1),
    ("dns", 1),
    ("kubelet", 1),
    ("coracle", 2),
    ("fuzz", 2),
];

/// Only the server (and the wiring, and what fuzzes the server) knows the store: everybody else is a client of the API.
const USERS_OF_THE_STORE: [&str; 3] = ["apiserver", "coracle", "fuzz"];

fn floor(name: &str) -> Option<u32> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

/// Names of what a manifest depends on, in any of its tables of dependencies.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies") && !table.starts_with("workspace");
            // A table of its own: [dependencies.store]
            if let Some((kind, name)) = table.rsplit_once('.')
                && kind.ends_with("dependencies")
            {
                names.push(name.to_owned());
            }
        } else if inside && let Some((name, _)) = line.split_once(['.', '=']) {
            names.push(name.trim().trim_matches('"').to_owned());
        }
    }
    names
}

/// The manifests of the workspace by the name of the package.
fn manifests() -> BTreeMap<String, String> {
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
    };
    let root = read(repository("Cargo.toml"));
    let (_, members) = root.split_once("members = [").expect("the workspace has members");
    let (members, _) = members.split_once(']').expect("the list of members ends");
    let members = members.split(',').map(|member| member.trim().trim_matches('"')).filter(|member| !member.is_empty());
    let mut manifests: BTreeMap<String, String> =
        members.map(|member| (member.to_owned(), read(repository(member).join("Cargo.toml")))).collect();
    manifests.insert("coracle".to_owned(), root);
    manifests
}

#[test]
fn every_crate_has_a_floor() {
    for name in manifests().keys() {
        assert!(floor(name).is_some(), "{name} has no floor: say in ARCHITECTURE.md and here where it stands");
    }
    for (name, _) in FLOORS {
        assert!(manifests().contains_key(name), "{name} is no member of the workspace");
    }
}

#[test]
fn a_crate_depends_on_lower_floors_only() {
    for (name, manifest) in manifests() {
        for dependency in dependencies(&manifest) {
            if let (Some(own), Some(other)) = (floor(&name), floor(&dependency)) {
                assert!(other < own, "{name} (floor {own}) must not depend on {dependency} (floor {other})");
            }
        }
    }
}

#[test]
fn only_the_server_and_the_wiring_touch_the_store() {
    for (name, manifest) in manifests() {
        let allowed = USERS_OF_THE_STORE.contains(&name.as_str());
        assert!(allowed || !dependencies(&manifest).contains(&"store".to_owned()), "{name} must not use the store");
    }
}

#[test]
fn the_store_and_the_network_stack_contain_no_word_of_kubernetes() {
    let words = Regex::new(
        r"(?x)
        (?i: kube | \b pods? \b | configmap | \b deployments? \b | statefulset | replicaset | endpoint_?slice | cluster_?ip
           | node_?port | load_?balancer | network_?policy | api_?server | resource_?version | cluster\.local | coredns )
        | \b Services? \b",
    )
    .expect("a pattern");
    for ground in ["store/src", "netstack/src"] {
        for file in sources(&repository(ground)) {
            let text = std::fs::read_to_string(&file).expect("a readable source");
            for (number, line) in text.lines().enumerate() {
                let found = words.find(line).map(|found| found.as_str());
                assert_eq!(found, None, "{}:{}: {}", file.display(), number + 1, line.trim());
            }
        }
    }
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    assert!(!files.is_empty(), "{} has no sources", directory.display());
    files
}

#[test]
fn the_reader_of_manifests_sees_every_form_of_a_dependency() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\nstore.workspace = true\nhttp = \"1\"\n\
        [dev-dependencies]\n\"quoted\" = { path = \"q\" }\n[target.'cfg(unix)'.dependencies]\nrustix = \"1\"\n\
        [dependencies.table]\nversion = \"1\"\n[features]\nf = []\n[workspace.dependencies]\nproxy = \"1\"\n";
    let names = dependencies(manifest);
    for name in ["store", "http", "quoted", "rustix", "table"] {
        assert!(names.contains(&name.to_owned()), "{name} is missing in {names:?}");
    }
    for name in ["name", "f", "proxy", "version"] {
        assert!(!names.contains(&name.to_owned()), "{name} is no dependency of {names:?}");
    }
}
