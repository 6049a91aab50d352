//! Requests that are wrong, and the exact words they are refused with: the code, the reason and the message of the Status.
//!
//! Straight to the API's router, as any client's request arrives there after authentication.

mod objects;
mod policies;
mod services;

use coracle::Cluster;
use expect_test::Expect;
use http_body_util::BodyExt;
use regex::Regex;
use serde_json::Value;
use tower::ServiceExt;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
const JSON: &str = "application/json";

async fn cluster() -> Cluster {
    Cluster::builder().nodes(1).seed(7).start().await.expect("a cluster")
}

struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: Value,
}

async fn send(cluster: &Cluster, method: &str, path: &str, media: &str, body: impl Into<axum::body::Body>) -> Answer {
    let request =
        http::Request::builder().method(method).uri(path).header("Content-Type", media).header("Accept", JSON);
    let request = request.body(body.into()).expect("a request");
    let answer = cluster.router().oneshot(request).await.expect("the router answers");
    let code = answer.status().as_u16();
    let warnings = answer.headers().get_all("Warning").iter();
    let warnings = warnings.map(|value| value.to_str().expect("text").to_owned()).collect();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    Answer { code, warnings, body: serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no JSON: {body:?}")) }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.code)?;
        if self.body["kind"] == "Status" && self.body["status"] == "Failure" {
            assert_eq!(self.body["code"], self.code, "the Status and the response agree");
            let reason = self.body["reason"].as_str().unwrap_or("-");
            write!(f, " {reason}: {}", self.body["message"].as_str().unwrap_or_default())?;
        }
        for warning in &self.warnings {
            write!(f, "\n  Warning: {warning}")?;
        }
        Ok(())
    }
}

/// A request, and what is wrong with it.
struct Request {
    what: String,
    method: &'static str,
    path: String,
    media: &'static str,
    body: String,
}

fn request(
    what: impl Into<String>,
    method: &'static str,
    path: impl Into<String>,
    media: &'static str,
    body: impl std::fmt::Display,
) -> Request {
    Request { what: what.into(), method, path: path.into(), media, body: body.to_string() }
}

/// Sends each of these and compares what comes back, a paragraph each.
async fn check(cluster: &Cluster, requests: impl IntoIterator<Item = Request>, expected: Expect) {
    let mut text = String::new();
    for Request { what, method, path, media, body } in requests {
        let answer = send(cluster, method, &path, media, body).await;
        text.push_str(&format!("{what}\n  {answer}\n"));
    }
    // What differs from run to run.
    let chance = Regex::new(r"(record \(|object meta: |current: |ResourceVersion in the precondition \()[0-9a-f-]+")
        .expect("a pattern");
    expected.assert_eq(&chance.replace_all(&text, "${1}…"));
}

/// Creates each of these objects at a path; what comes back for each.
async fn check_created(cluster: &Cluster, path: &str, objects: Vec<(&str, Value)>, expected: Expect) {
    let requests = objects.into_iter().map(|(what, object)| request(what, "POST", path, JSON, object));
    check(cluster, requests, expected).await;
}

/// Lays `change` over `object`: null removes, maps merge, all else replaces (RFC 7396).
fn merged(mut object: Value, change: &Value) -> Value {
    if let (Value::Object(object), Value::Object(change)) = (&mut object, change) {
        for (name, value) in change {
            if value.is_null() {
                object.remove(name);
            } else {
                let before = object.remove(name).unwrap_or(Value::Null);
                object.insert(name.clone(), merged(before, value));
            }
        }
        return Value::Object(object.clone());
    }
    change.clone()
}
