//! Reads in the corners: which version, which page, which watch; and requests that are no good.

use crate::support::{CONFIGMAPS, Server, configmap, server};
use http::Method;
use serde_json::Value;

fn path(name: &str) -> String {
    format!("{CONFIGMAPS}/{name}")
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default()).collect()
}

/// A server with the configmaps `a`, `b`, `c`, and the versions at which they were created.
async fn three() -> (Server, [u64; 3]) {
    let server = server().await;
    let mut versions = [0; 3];
    for (name, version) in ["a", "b", "c"].iter().zip(&mut versions) {
        let created = server.post(CONFIGMAPS, configmap(name)).await.created();
        *version =
            created["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a version");
    }
    (server, versions)
}

// The table of "Resource versions" in Kubernetes' API concepts: unset is most recent, 0 is any, another is at least that one, or that
// one exactly where the request says so, or has a limit and says nothing.
#[tokio::test(start_paused = true)]
async fn a_list_is_of_the_version_it_is_asked_at() {
    let (server, [_, second, third]) = three().await;
    let list = async |query: String| {
        let list = server.get(&format!("{CONFIGMAPS}?{query}")).await.ok();
        (names(&list), list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok()))
    };
    for query in ["", "limit=0", "resourceVersion=0", "resourceVersion=0&resourceVersionMatch=NotOlderThan"] {
        assert_eq!(list(query.to_owned()).await, ("abc".to_owned(), Some(third)), "{query}");
    }
    for at_least in ["", "&resourceVersionMatch=NotOlderThan", "&limit=9&resourceVersionMatch=NotOlderThan"] {
        assert_eq!(
            list(format!("resourceVersion={second}{at_least}")).await,
            ("abc".to_owned(), Some(third)),
            "{at_least}"
        );
    }
    for exact in ["&resourceVersionMatch=Exact", "&limit=9", "&limit=9&resourceVersionMatch=Exact"] {
        assert_eq!(list(format!("resourceVersion={second}{exact}")).await, ("ab".to_owned(), Some(second)), "{exact}");
    }
    let future = third + 1;
    for query in ["", "&resourceVersionMatch=Exact", "&resourceVersionMatch=NotOlderThan", "&limit=1"] {
        let status = server.get(&format!("{CONFIGMAPS}?resourceVersion={future}{query}")).await.expect(504);
        assert_eq!(status["message"], format!("Timeout: Too large resource version: {future}, current: {third}"));
        assert_eq!(
            status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge",
            "by this client-go knows to try again"
        );
    }
    server.get(&format!("{}?resourceVersion={future}", path("a"))).await.expect(504);
    server.get(&format!("{}?resourceVersion={second}", path("a"))).await.ok();
}

#[tokio::test(start_paused = true)]
async fn a_query_that_cannot_be_read_is_refused_in_kubernetes_words() {
    let (server, _) = three().await;
    let bad_version = "configmaps \"\" is invalid: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
    for (uri, code, message) in [
        (format!("{CONFIGMAPS}?resourceVersion=x"), 422, bad_version),
        (format!("{CONFIGMAPS}?watch=1&resourceVersion=x"), 422, bad_version),
        (
            format!("{}?resourceVersion=x", path("a")),
            422,
            "configmaps \"a\" is invalid: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (
            format!("{CONFIGMAPS}?fieldSelector=data.a%3D1"),
            400,
            "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        ("/api/v1/pods?fieldSelector=spec.x%3D1".to_owned(), 400, "field label not supported: spec.x"),
        (format!("{CONFIGMAPS}?fieldSelector=x"), 400, "invalid selector: 'x'; can't understand 'x'"),
        (
            format!("{CONFIGMAPS}?labelSelector=a%20b"),
            400,
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            format!("{CONFIGMAPS}?resourceVersionMatch=Exact"),
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless \
             resourceVersion is provided",
        ),
    ] {
        assert_eq!(server.get(&uri).await.expect(code)["message"], message, "{uri}");
    }
    let status = server.get(&format!("{CONFIGMAPS}?continue=zzz")).await.expect(400);
    assert!(
        status["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("invalid continue token: continue key is not valid: "))
    );
}

#[tokio::test(start_paused = true)]
async fn a_method_or_a_form_that_is_not_there_is_refused_in_kubernetes_words() {
    let (server, _) = three().await;
    let named = path("a");
    for (method, uri) in [
        (Method::POST, named.as_str()),
        (Method::PUT, CONFIGMAPS),
        (Method::PATCH, CONFIGMAPS),
        (Method::OPTIONS, named.as_str()),
        (Method::TRACE, CONFIGMAPS),
        (Method::DELETE, "/api/v1/configmaps"),
    ] {
        let status = server.send(method.clone(), uri, &[], "{}").await.expect(405);
        assert_eq!(
            status["message"], "the server does not allow this method on the requested resource",
            "{method} {uri}"
        );
        assert_eq!(status["reason"], "MethodNotAllowed");
    }
    for path in ["/api/v2/pods", "/apis/apps/v2/deployments", "/api/v1/namespaces/default/configmaps/a/status"] {
        assert_eq!(server.get(path).await.expect(404)["message"], "the server could not find the requested resource");
    }
    let accepted = "the body of the request was in an unknown format - accepted media types include: ";
    let status = server.send(Method::POST, CONFIGMAPS, &[("content-type", "text/plain")], "{}").await.expect(415);
    let expected = format!("{accepted}application/json, application/yaml, application/vnd.kubernetes.protobuf");
    assert_eq!((&status["message"], &status["reason"]), (&expected.into(), &"UnsupportedMediaType".into()));
    let cbor = [("content-type", "application/apply-patch+cbor")];
    let status = server.send(Method::PATCH, &named, &cbor, "{}").await.expect(415);
    let expected = format!(
        "{accepted}application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
         application/apply-patch+yaml"
    );
    assert_eq!(status["message"], expected);
    let status = server.get_as(&named, "application/xml").await.expect(406);
    assert_eq!(
        status["message"],
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    assert_eq!(server.send(Method::HEAD, &named, &[], "").await.code, 200);
    assert_eq!(server.send(Method::HEAD, &path("none"), &[], "").await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn the_old_paths_of_watches_are_watches_still() {
    let (server, [_, second, _]) = three().await;
    let mut lines = server.watch("/api/v1/watch/namespaces/default/configmaps/a?timeoutSeconds=1", "*/*").await;
    assert_eq!(lines.short().await, "ADDED a");
    assert_eq!(lines.short().await, "the end");
    let mut lines =
        server.watch(&format!("/api/v1/watch/configmaps?resourceVersion={second}&timeoutSeconds=1"), "*/*").await;
    assert_eq!(lines.short().await, "ADDED c");
    assert_eq!(lines.short().await, "the end");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_one_name_tells_of_no_other_and_of_the_deletion_at_its_version() {
    let (server, [.., third]) = three().await;
    let uri = format!("{CONFIGMAPS}?watch=1&fieldSelector=metadata.name%3Db&resourceVersion={third}");
    let mut lines = server.watch(&uri, "*/*").await;
    server.delete(&path("a"), Value::Null).await.ok();
    server.delete(&path("b"), Value::Null).await.ok();
    let event = lines.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&"DELETED".into(), &"b".into()));
    assert_eq!(event["object"]["metadata"]["resourceVersion"], (third + 2).to_string());
}
