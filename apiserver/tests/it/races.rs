//! Many at a time: nothing is lost, nobody waits for somebody slow, and too many are told so.

use crate::support::{CONFIGMAPS, Server, config, configmap, server, with};
use apiserver::Config;
use apiserver::admission::{Admission, AdmissionRequest, Mutation};
use apiserver::authn::{Authenticator, UserInfo};
use apiserver::flow_control;
use apiserver::status::Status;
use async_trait::async_trait;
use futures::future::join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Waits before each write until somebody lets it go on.
struct Turnstile(Arc<Semaphore>);

#[async_trait]
impl Admission for Turnstile {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.kind.plural == "configmaps"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> Result<Mutation, Status> {
        if request.name == "panic" {
            panic!("as asked");
        }
        object["data"]["admitted"] = "yes".into();
        self.0.acquire().await.map_err(Status::internal)?.forget();
        Ok(Mutation::Changed)
    }
}

#[tokio::test(start_paused = true)]
async fn patches_that_race_are_all_applied() {
    let turns = Arc::new(Semaphore::new(1));
    let server = with(Config { admission: vec![Arc::new(Turnstile(turns.clone()))], ..config() }).await;
    let created = server.post(CONFIGMAPS, configmap("a")).await.created();
    assert_eq!(created["data"]["admitted"], "yes", "a plug-in may change the object");
    turns.add_permits(10_000);
    let path = format!("{CONFIGMAPS}/a");
    let patches = (0..20).map(|number| {
        let patch = json!({"data": {format!("k{number}"): "1"}});
        server.patch(&path, "merge-patch+json", patch)
    });
    for answer in join_all(patches).await {
        answer.ok();
    }
    let object = server.get(&path).await.ok();
    assert_eq!(object["data"].as_object().map(serde_json::Map::len), Some(22));
}

#[tokio::test(start_paused = true)]
async fn of_updates_from_the_same_version_one_wins() {
    let server = server().await;
    let created = server.post(CONFIGMAPS, configmap("a")).await.created();
    let path = format!("{CONFIGMAPS}/a");
    let updates = (0..10).map(|number| {
        let mut object = created.clone();
        object["data"]["a"] = format!("v{number}").into();
        server.put(&path, object)
    });
    let codes: Vec<u16> = join_all(updates).await.iter().map(|answer| answer.code.as_u16()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), 9, "{codes:?}");
}

/// Everybody is Jane.
struct Jane;

#[async_trait]
impl Authenticator for Jane {
    async fn authenticate(&self, _: &http::request::Parts) -> Result<Option<UserInfo>, Status> {
        Ok(Some(UserInfo::new("jane", &[])))
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_at_a_time_wait_in_line_and_then_are_told_to_come_again() {
    let turns = Arc::new(Semaphore::new(0));
    let admission: Vec<Arc<dyn Admission>> = vec![Arc::new(Turnstile(turns.clone()))];
    // Of 12 seats the level that Jane belongs to has one.
    let config = Config { max_in_flight: 12, admission, authenticator: Arc::new(Jane), ..config() };
    let inside = with(config).await;
    for object in flow_control::objects() {
        inside.post(flow_control::collection(&object), object).await.created();
    }
    inside.api.follow_flow_control().await;
    let server = Arc::new(Server { router: inside.api.router(), api: inside.api.clone() });
    let mut lines = server.watch(&format!("{CONFIGMAPS}?watch=true"), "application/json").await;
    let create = |name: &'static str| {
        let server = server.clone();
        tokio::spawn(async move { server.post(CONFIGMAPS, configmap(name)).await })
    };
    let (first, second) = (create("a"), create("b"));
    tokio::task::yield_now().await;
    let start = tokio::time::Instant::now();
    let refused = server.get(CONFIGMAPS).await;
    assert_eq!(start.elapsed().as_secs(), 15);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.expect(429)["reason"], "TooManyRequests");
    assert_eq!(inside.get(CONFIGMAPS).await.ok()["items"], json!([]), "administrators are never made to wait");
    second.await.expect("an answer").expect(429);
    turns.add_permits(2);
    first.await.expect("an answer").created();
    create("c").await.expect("an answer").created();
    assert_eq!(lines.short().await, "ADDED a");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_one_requests_failure() {
    let admission: Vec<Arc<dyn Admission>> = vec![Arc::new(Turnstile(Arc::new(Semaphore::new(9))))];
    let server = with(Config { admission, ..config() }).await;
    let status = server.post(CONFIGMAPS, configmap("panic")).await.expect(500);
    assert_eq!(status["reason"], "InternalError");
    server.post(CONFIGMAPS, configmap("a")).await.created();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_holds_nobody_up_and_is_told_when_it_is_too_late() {
    let server = server().await;
    let mut slow = server.watch(&format!("{CONFIGMAPS}?watch=true"), "application/json").await;
    let mut quick = server.watch(&format!("{CONFIGMAPS}?watch=true"), "application/json").await;
    // More than is kept for one watcher.
    for number in 0..10 {
        let mut large = configmap(&format!("a{number}"));
        large["data"]["a"] = "x".repeat(300_000).into();
        server.post(CONFIGMAPS, large).await.created();
        assert_eq!(quick.short().await, format!("ADDED a{number}"));
    }
    server.api.store().compact(server.api.revision()).await.unwrap();
    assert_eq!(slow.short().await, "ERROR Expired");
    assert_eq!(slow.short().await, "the end");
}

#[tokio::test(start_paused = true)]
async fn an_expired_page_can_be_continued_from_the_newest_snapshot() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        server.post(CONFIGMAPS, configmap(name)).await.created();
    }
    let page = server.get(&format!("{CONFIGMAPS}?limit=1")).await.ok();
    let token = page["metadata"]["continue"].as_str().expect("a token");
    server.delete(&format!("{CONFIGMAPS}/b"), Value::Null).await.ok();
    server.api.store().compact(server.api.revision()).await.unwrap();
    let expired = server.get(&format!("{CONFIGMAPS}?limit=1&continue={token}")).await.expect(410);
    let token = expired["metadata"]["continue"].as_str().expect("another token");
    let rest = server.get(&format!("{CONFIGMAPS}?continue={token}")).await.ok();
    assert_eq!(rest["items"][0]["metadata"]["name"], "c");
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(1));
}
