//! kube-rs over the wire, as an operator uses it: discovery, apply, watchers, reflectors, a controller with a finalizer, streams.

use crate::support::Bench;
use coracle::Cluster;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Client, Config, ResourceExt};
use kube_runtime::controller::Action;
use kube_runtime::finalizer::{Event as Finalizer, finalizer};
use kube_runtime::wait::{await_condition, conditions};
use kube_runtime::watcher::{self, Event, watcher};
use kube_runtime::{Controller, reflector};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client by the kubeconfig that users get: TLS and a client certificate.
async fn client(bench: &Bench) -> Client {
    let kubeconfig = bench.cluster.kubeconfig("it").expect("the API has an address");
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    Client::try_from(config).expect("a client")
}

fn configmap(name: &str, value: &str) -> ConfigMap {
    let object = json!({"metadata": {"name": name, "labels": {"seen": "yes"}}, "data": {"k": value}});
    serde_json::from_value(object).expect("a ConfigMap")
}

fn pod(name: &str, image: &str, command: &[&str]) -> Pod {
    let mut container = json!({"name": "c", "image": image, "ports": [{"containerPort": 80}]});
    if !command.is_empty() {
        container["command"] = command.into();
    }
    let object =
        json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}});
    serde_json::from_value(object).expect("a Pod")
}

async fn running(api: &Api<Pod>, pod: &Pod) {
    api.create(&Default::default(), pod).await.expect("created");
    await_condition(api.clone(), &pod.name_any(), conditions::is_pod_running()).await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_finds_every_kind_and_dynamic_objects_are_applied() {
    let bench = Bench::with(Cluster::builder()).await;
    let client = client(&bench).await;
    let discovery = Discovery::new(client.clone()).run_aggregated().await.expect("discovered");
    let legacy = Discovery::new(client.clone()).run().await.expect("discovered one by one");
    let kinds = |discovery: &Discovery| -> BTreeSet<String> {
        let groups = discovery.groups().flat_map(|group| group.recommended_resources());
        groups.map(|(resource, _)| format!("{}/{}", resource.api_version, resource.kind)).collect()
    };
    assert_eq!(kinds(&discovery), kinds(&legacy), "both documents tell the same");
    let group = discovery.get("apps").expect("the group apps");
    let (deployments, capabilities) = group.recommended_kind("Deployment").expect("Deployments");
    assert!(capabilities.scope == Scope::Namespaced && capabilities.supports_operation(verbs::WATCH));

    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &deployments);
    let manifest = |replicas: i32| -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}})
    };
    let made = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(manifest(0))).await.expect("applied");
    assert_eq!(made.managed_fields()[0].manager.as_deref(), Some("one"));
    let refused = api.patch("web", &PatchParams::apply("two"), &Patch::Apply(manifest(1))).await;
    let Err(kube::Error::Api(status)) = refused else { panic!("a conflict, not {refused:?}") };
    assert!(status.code == 409 && status.message.contains("conflict with \"one\""), "{status:?}");
    let forced =
        api.patch("web", &PatchParams::apply("two").force(), &Patch::Apply(manifest(1))).await.expect("forced");
    assert_eq!(forced.data["spec"]["replicas"], 1);
    let merged = api.patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}}))).await;
    assert_eq!(merged.expect("merged").data["spec"]["replicas"], 2);
    let scale = api.get_scale("web").await.expect("its scale");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(2));
    let listed = api.list_metadata(&ListParams::default().fields("metadata.name=web")).await.expect("metadata");
    assert_eq!(listed.items[0].types.as_ref().map(|types| types.kind.as_str()), Some("PartialObjectMetadata"));
    api.delete("web", &DeleteParams::foreground()).await.expect("deleted");
    let uid = made.uid().expect("a UID");
    await_condition(api, "web", conditions::is_deleted(&uid)).await.expect("gone");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_and_reflectors_follow_what_happens_by_list_and_by_stream() {
    let bench = Bench::with(Cluster::builder()).await;
    let client = client(&bench).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    api.create(&Default::default(), &configmap("before", "1")).await.expect("created");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let label = format!("{config:?}");
        let (store, writer) = reflector::store::<ConfigMap>();
        let mut events = std::pin::pin!(reflector(writer, watcher(api.clone(), config.labels("seen=yes"))));
        let mut told: Vec<String> = Vec::new();
        let mut step = 0;
        while let Some(event) = events.try_next().await.expect("no error") {
            told.push(match event {
                Event::Init => continue,
                Event::InitApply(object) => format!("had {}", object.name_any()),
                Event::InitDone => "all".to_owned(),
                Event::Apply(object) => format!("{} {}", object.name_any(), object.data.expect("data")["k"]),
                Event::Delete(object) => format!("without {}", object.name_any()),
            });
            match (told.last().map(String::as_str), step) {
                (Some("all"), 0) => {
                    drop(api.create(&Default::default(), &configmap("after", "1")).await.expect("made"))
                }
                (Some("after 1"), 1) => {
                    let changed = Patch::Merge(json!({"data": {"k": "2"}}));
                    api.patch("after", &PatchParams::default(), &changed).await.expect("changed");
                }
                (Some("after 2"), 2) => {
                    api.delete("after", &DeleteParams::default()).await.expect("deleted");
                }
                (Some("without after"), 3) => break,
                _ => continue,
            }
            step += 1;
        }
        assert_eq!(told, ["had before", "all", "after 1", "after 2", "without after"], "{label}");
        let kept: Vec<String> = store.state().iter().map(|object| object.name_any()).collect();
        assert_eq!(kept, ["before"], "{label}");
    }
    bench.stop().await;
}

/// What the controller below does: every ConfigMap with the label gets a twin, and the twin goes first.
async fn reconcile(
    object: Arc<ConfigMap>,
    api: Arc<Api<ConfigMap>>,
) -> Result<Action, kube_runtime::finalizer::Error<kube::Error>> {
    finalizer(&api, "twins.example.com/finalizer", object, |event| async {
        match event {
            Finalizer::Apply(object) => {
                let name = format!("{}-twin", object.name_any());
                let twin =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": object.data});
                api.patch(&name, &PatchParams::apply("twins").force(), &Patch::Apply(twin)).await?;
            }
            Finalizer::Cleanup(object) => {
                api.delete(&format!("{}-twin", object.name_any()), &DeleteParams::default()).await?;
            }
        }
        Ok(Action::await_change())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_with_a_finalizer_cleans_up_before_its_object_goes() {
    let bench = Bench::with(Cluster::builder()).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client(&bench).await);
    let again = |_: Arc<ConfigMap>, _: &_, _: Arc<Api<ConfigMap>>| Action::requeue(Duration::from_millis(50));
    let controller = Controller::new(api.clone(), watcher::Config::default().labels("seen=yes"));
    let controller = tokio::spawn(controller.run(reconcile, again, Arc::new(api.clone())).for_each(|_| async {}));
    let made = api.create(&Default::default(), &configmap("one", "1")).await.expect("created");
    let has = |value: &'static str| {
        move |object: Option<&ConfigMap>| {
            object.and_then(|object| object.data.as_ref()).is_some_and(|data| data.get("k").is_some_and(|k| k == value))
        }
    };
    let twin = await_condition(api.clone(), "one-twin", has("1")).await.expect("watched").expect("a twin");
    let changed = Patch::Merge(json!({"data": {"k": "2"}}));
    api.patch("one", &PatchParams::default(), &changed).await.expect("changed");
    await_condition(api.clone(), "one-twin", has("2")).await.expect("the twin follows");
    let going = api.delete("one", &DeleteParams::default()).await.expect("deleted").left().expect("not gone at once");
    assert_eq!(going.finalizers(), ["twins.example.com/finalizer"]);
    let uid = made.uid().expect("a UID");
    await_condition(api.clone(), "one", conditions::is_deleted(&uid)).await.expect("gone");
    let uid = twin.uid().expect("a UID");
    await_condition(api.clone(), "one-twin", conditions::is_deleted(&uid)).await.expect("its twin too");
    controller.abort();
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_attach_logs_and_port_forward_carry_streams() {
    let bench = Bench::with(Cluster::builder()).await;
    let client = client(&bench).await;
    let api: Api<Pod> = Api::default_namespaced(client);
    running(&api, &pod("tools", "busybox", &["sh", "-c", "echo one; echo two; sleep 9999"])).await;

    let attach = AttachParams::default().stdin(true).stderr(false);
    let mut process =
        api.exec("tools", ["sh", "-c", "read word; echo heard $word; exit 3"], &attach).await.expect("exec");
    let status = process.take_status().expect("a status");
    process.stdin().expect("stdin").write_all(b"hello\n").await.expect("written");
    let mut said = String::new();
    process.stdout().expect("stdout").read_to_string(&mut said).await.expect("read");
    assert_eq!(said, "heard hello\n");
    let status = status.await.expect("how it ended");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));

    let follow = LogParams { follow: true, ..Default::default() };
    let lines = api.log_stream("tools", &follow).await.expect("a stream").lines();
    assert_eq!(lines.take(2).try_collect::<Vec<_>>().await.expect("lines"), ["one", "two"]);
    let last = LogParams { tail_lines: Some(1), ..Default::default() };
    assert_eq!(api.logs("tools", &last).await.expect("the log"), "two\n");

    running(&api, &pod("web", "nginx:1.27", &[])).await;
    let mut forward = api.portforward("web", &[80]).await.expect("forwarded");
    let mut stream = forward.take_stream(80).expect("a stream");
    stream.write_all(b"GET /path HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /path"), "{answer}");
    drop(stream);

    let refused = api.exec("nothing", ["true"], &AttachParams::default()).await.err().expect("no such pod");
    assert!(refused.to_string().contains("404"), "{refused}");
    bench.stop().await;
}
