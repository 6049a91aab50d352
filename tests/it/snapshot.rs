//! `coracle snapshot`: save, change, stop, restore, start; the state of then is there. And every way in which it can go wrong.

use crate::support::{Terminal, http as wire, tools};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The binary under test.
const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");

fn terminal() -> Terminal {
    Terminal::new(&[Path::new(CORACLE)])
}

fn socket(terminal: &Terminal) -> PathBuf {
    terminal.dir().join("run/coracle/coracle/api.sock")
}

async fn get(terminal: &Terminal, path: &str) -> Value {
    let (status, body) = wire::get_unix(&socket(terminal), path).await.expect("answered");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn resource_version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a number")
}

const MAP: &str = "/api/v1/namespaces/default/configmaps/kept";
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion=";

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_is_as_it_was_and_its_watchers_are_told_to_list_anew() {
    let terminal = terminal();
    let up = "coracle up --detach --api-port 0 --no-kubeconfig";
    terminal.sh(up).await.ok();
    terminal
        .transcript(
            "$ echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {when: before}}' | coracle apply -f -
             configmap/kept created
             $ coracle snapshot save saved
             saved … objects at revision … (… kB) to saved
             $ ls -l saved | cut -c1-10; ls
             -rw-------
             data
             home
             run
             saved",
        )
        .await;
    let before = get(&terminal, MAP).await;
    terminal
        .transcript(
            "$ echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {when: after}}' | coracle apply -f -
             configmap/kept configured
             $ echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: later}}' | coracle apply -f -
             configmap/later created",
        )
        .await;
    let after = get(&terminal, MAP).await;
    terminal
        .transcript(
            "$ coracle snapshot restore saved --force
             error: …/data/coracle/coracle/store is in use by process …
             hint: stop the cluster with `coracle down --name coracle`
             [exit 1]
             $ coracle down
             stopped coracle
             $ coracle snapshot restore saved
             error: …/data/coracle/coracle/store already holds a store
             hint: `--force` replaces it
             [exit 1]
             $ coracle snapshot restore saved --force
             restored … objects of revision … into …/data/coracle/coracle; revisions go on from 1000000…
             next: coracle up",
        )
        .await;
    terminal.sh(up).await.ok();
    assert_eq!(get(&terminal, MAP).await, before);
    let (status, _) = wire::get_unix(&socket(&terminal), &MAP.replace("kept", "later")).await.expect("answered");
    assert_eq!(status, 404);
    // Whoever had seen what was written after the snapshot must not think that nothing has happened.
    let seen = resource_version(&after);
    let (status, body) = wire::get_unix(&socket(&terminal), &format!("{WATCH}{seen}")).await.expect("answered");
    assert!(status == 410 || body.contains("\"code\":410"), "{status} {body}");
    terminal.sh("echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: new}}' | coracle apply -f -").await.ok();
    let new = get(&terminal, &MAP.replace("kept", "new")).await;
    assert!(resource_version(&new) > 1_000_000_000 + seen, "{new}");
    terminal.sh("coracle down").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_makes_a_second_cluster_also_of_one_in_memory() {
    let terminal = terminal();
    terminal.sh("coracle up --detach --ephemeral --api-port 0 --no-kubeconfig").await.ok();
    terminal
        .transcript(
            "$ echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}' | coracle apply -f -
             configmap/kept created
             $ coracle snapshot save saved
             saved … objects at revision … (… kB) to saved
             $ coracle down
             stopped coracle
             $ coracle snapshot restore saved --data-dir second
             restored … objects of revision … into second; revisions go on from 1000000…
             next: coracle up --data-dir second
             $ coracle up --detach --data-dir second --api-port 0 --no-kubeconfig
             ready: https://127.0.0.1:… (process …); `coracle down --name coracle` stops it
             $ coracle get configmap kept -o json | grep '\"a\"'
             …\"a\": \"b\"…
             $ coracle down
             stopped coracle",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_whole_snapshot_changes_nothing_and_says_what_is_wrong() {
    let terminal = terminal();
    terminal.sh("coracle up --detach --ephemeral --api-port 0 --no-kubeconfig").await.ok();
    terminal.sh("coracle snapshot save saved && coracle down").await.ok();
    terminal
        .transcript(
            "$ head -c 1000 saved > cut && coracle snapshot restore cut
             error: cut is cut short: it has 1000 bytes of …
             hint: nothing has been changed; another copy of the file may be whole
             [exit 1]
             $ cp saved bad && printf X | dd of=bad bs=1 seek=2000 conv=notrunc 2>/dev/null && coracle snapshot restore bad
             error: bad is damaged: its checksum does not match
             hint: nothing has been changed; another copy of the file may be whole
             [exit 1]
             $ echo '{}' > foreign && coracle snapshot restore foreign
             error: foreign is not a snapshot of a store
             hint: `coracle snapshot save` writes such files
             [exit 1]
             $ coracle snapshot restore missing
             error: cannot open missing
             caused by: No such file or directory (os error 2)
             [exit 1]
             $ coracle snapshot save elsewhere
             error: no cluster named \"coracle\" is running
             hint: start it with `coracle up`
             [exit 1]
             $ coracle snapshot restore saved --name Bad
             error: --name: invalid value \"Bad\": …
             [exit 1]",
        )
        .await;
    assert!(!terminal.dir().join("data/coracle").exists(), "nothing was restored");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_for_those_who_may_read_everything() {
    let cluster = coracle::Cluster::builder().nodes(1).start().await.expect("started");
    let ask = async |client: kube::Client| {
        let request = http::Request::get(coracle::SNAPSHOT_PATH).body(kube::client::Body::empty()).expect("a path");
        let response = client.send(request).await.expect("answered");
        let length = response.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("read").to_bytes();
        (status, length, body)
    };
    let (status, length, body) = ask(cluster.client()).await;
    assert_eq!((status, length), (200, Some(body.len())));
    assert!(body.starts_with(b"storesnp"));
    for (user, groups) in [("jane", &["system:authenticated"][..]), ("system:node:node-1", &["system:nodes"])] {
        let (status, _, body) = ask(cluster.client_as(user, groups)).await;
        let body = String::from_utf8_lossy(&body);
        assert!(status == 403 && body.contains("cannot get path"), "{user}: {status} {body}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_owner_gets_it_and_a_stranger_does_not() {
    let terminal = Terminal::new(&[Path::new(CORACLE), &tools::kubectl("1.36").await]);
    terminal.sh("coracle up --detach --ephemeral --api-port 0 --no-kubeconfig").await.ok();
    terminal
        .transcript(
            "$ coracle kubeconfig > own && kubectl --kubeconfig own get --raw /store/snapshot > raw
             $ coracle snapshot restore raw --data-dir second
             restored … objects of revision … into second; revisions go on from 1000000…
             next: coracle up --data-dir second
             $ server=$(kubectl --kubeconfig own config view --minify -o jsonpath='{.clusters[0].cluster.server}')
             > kubectl --kubeconfig /dev/null --server $server --token wrong --insecure-skip-tls-verify get --raw /store/snapshot
             error: You must be logged in to the server (Unauthorized)
             [exit 1]
             $ kubectl --kubeconfig own get --raw /store/snapshot --as jane
             Error from server (Forbidden): forbidden: User \"jane\" cannot get path \"/store/snapshot\"
             [exit 1]
             $ kubectl --kubeconfig own create clusterrole keeper --verb get --non-resource-url /store/snapshot
             clusterrole.rbac.authorization.k8s.io/keeper created
             $ kubectl --kubeconfig own create clusterrolebinding keeper --clusterrole keeper --user jane
             clusterrolebinding.rbac.authorization.k8s.io/keeper created
             $ kubectl --kubeconfig own get --raw /store/snapshot --as jane | head -c 8
             storesnp
             $ coracle down
             stopped coracle",
        )
        .await;
}
