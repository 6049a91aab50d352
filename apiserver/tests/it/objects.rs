//! Objects: create, get, list, update, delete.

use crate::support::{CONFIGMAPS, configmap, server};
use serde_json::{Value, json};

fn path(name: &str) -> String {
    format!("{CONFIGMAPS}/{name}")
}

#[tokio::test(start_paused = true)]
async fn a_created_object_gets_its_identity_and_is_read_back_as_it_was_answered() {
    let server = server().await;
    let created = server.post(CONFIGMAPS, configmap("a")).await.created();
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(created["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(created["metadata"]["uid"].as_str().map(str::len), Some(36));
    assert_eq!(created["metadata"]["resourceVersion"], server.api.revision().0.to_string());
    assert_eq!(created["data"], json!({"a": "1"}));
    assert_eq!(server.get(&path("a")).await.ok(), created);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_not_found() {
    let server = server().await;
    let status = server.get(&path("a")).await.expect(404);
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "configmaps \"a\" not found",
        "reason": "NotFound", "details": {"name": "a", "kind": "configmaps"}, "code": 404,
    });
    assert_eq!(status, expected);
    for nowhere in ["/api/v1/namespaces/default/nothings", "/apis/none/v1/things", "/nowhere"] {
        assert_eq!(
            server.get(nowhere).await.expect(404)["message"],
            "the server could not find the requested resource"
        );
    }
    let status = server.post("/api/v1/namespaces/none/configmaps", configmap("a")).await.expect(404);
    assert_eq!(status["message"], "namespaces \"none\" not found");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_taken_once_and_a_generated_name_is_always_another() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let status = server.post(CONFIGMAPS, configmap("a")).await.expect(409);
    assert_eq!(status["reason"], "AlreadyExists");
    let generated = json!({"metadata": {"generateName": "web-"}});
    let one = server.post(CONFIGMAPS, generated.clone()).await.created();
    let other = server.post(CONFIGMAPS, generated).await.created();
    assert_ne!(one["metadata"]["name"], other["metadata"]["name"]);
    assert_eq!(one["metadata"]["name"].as_str().map(str::len), Some("web-".len() + 5));
    // A StatefulSet gives its pods both; once `web-0` was taken for a name made up here, and another made up, and another.
    let both = json!({"metadata": {"generateName": "web-", "name": "web-0"}});
    assert_eq!(server.post(CONFIGMAPS, both.clone()).await.created()["metadata"]["name"], "web-0");
    server.post(CONFIGMAPS, both).await.expect(409);
    let status = server.post(CONFIGMAPS, json!({"metadata": {}})).await.expect(422);
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test(start_paused = true)]
async fn an_update_with_a_stale_resource_version_is_a_conflict_and_one_without_is_not() {
    let server = server().await;
    let first = server.post(CONFIGMAPS, configmap("a")).await.created();
    let mut second = first.clone();
    second["data"]["a"] = "2".into();
    let second = server.put(&path("a"), second).await.ok();
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
    let mut stale = first.clone();
    stale["data"]["a"] = "3".into();
    let status = server.put(&path("a"), stale).await.expect(409);
    assert_eq!(
        status["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let third = server.put(&path("a"), configmap("a")).await.ok();
    assert_eq!(third["data"]["a"], "1");
    assert_eq!(third["metadata"]["creationTimestamp"], first["metadata"]["creationTimestamp"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_takes_no_revision() {
    let server = server().await;
    let created = server.post(CONFIGMAPS, configmap("a")).await.created();
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    assert_eq!(server.put(&path("a"), created.clone()).await.ok(), created);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_belong_to_the_path_is_refused() {
    let server = server().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    for (body, message) in [
        (json!({"kind": "Secret", "apiVersion": "v1"}), "does not match the expected kind"),
        (json!({"kind": "ConfigMap", "apiVersion": "v2"}), "does not match the expected API version"),
        (json!({"metadata": {"name": "b"}}), "does not match the name on the URL"),
        (json!({"metadata": {"namespace": "b"}}), "does not match the namespace"),
        (json!([]), "JSON object"),
    ] {
        let status = server.put(&path("a"), body).await.expect(400);
        assert!(status["message"].as_str().is_some_and(|text| text.contains(message)), "{status}");
    }
    let other = json!({"metadata": {"name": "a", "uid": "other"}});
    assert_eq!(server.put(&path("a"), other).await.expect(409)["reason"], "Conflict");
}

#[tokio::test(start_paused = true)]
async fn a_list_has_what_the_selectors_select() {
    let server = server().await;
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut object = configmap(name);
        object["metadata"]["labels"] = json!({"app": app});
        server.post(CONFIGMAPS, object).await.created();
    }
    let names = async |query: &str| -> String {
        let list = server.get(&format!("/api/v1/configmaps?{query}")).await.ok();
        assert_eq!(list["kind"], "ConfigMapList");
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default()).collect()
    };
    assert_eq!(names("").await, "abc");
    assert_eq!(names("labelSelector=app%3Dweb").await, "ac");
    assert_eq!(names("labelSelector=app%20notin%20(web)").await, "b");
    assert_eq!(names("fieldSelector=metadata.name%3Dc").await, "c");
    assert_eq!(names("fieldSelector=metadata.name%3Dc&labelSelector=app%3Ddb").await, "");
    server.get(&format!("{CONFIGMAPS}?fieldSelector=data.a%3D1")).await.expect(400);
    server.get(&format!("{CONFIGMAPS}?labelSelector=a%20b")).await.expect(400);
}

#[tokio::test(start_paused = true)]
async fn pages_are_of_one_snapshot_whatever_is_written_between() {
    let server = server().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.post(CONFIGMAPS, configmap(name)).await.created();
    }
    let mut seen = Vec::new();
    let mut page = server.get(&format!("{CONFIGMAPS}?limit=2")).await.ok();
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    let version = page["metadata"]["resourceVersion"].clone();
    server.post(CONFIGMAPS, configmap("bb")).await.created();
    server.delete(&path("d"), Value::Null).await.ok();
    loop {
        assert_eq!(page["metadata"]["resourceVersion"], version);
        let items = page["items"].as_array().cloned().unwrap_or_default();
        seen.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()));
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        page = server.get(&format!("{CONFIGMAPS}?limit=2&continue={token}")).await.ok();
    }
    assert_eq!(seen.concat(), "abcde");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_is_gone_and_the_answer_says_which_it_was() {
    let server = server().await;
    let created = server.post(CONFIGMAPS, configmap("a")).await.created();
    let wrong = json!({"preconditions": {"uid": "other"}});
    assert_eq!(server.delete(&path("a"), wrong).await.expect(409)["reason"], "Conflict");
    let status = server.delete(&path("a"), json!({"propagationPolicy": "Background"})).await.ok();
    let details = json!({"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]});
    assert_eq!(
        status,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    );
    server.get(&path("a")).await.expect(404);
    server.delete(&path("a"), Value::Null).await.expect(404);
}
