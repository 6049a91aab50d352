//! Keeps the mandatory objects as they must be, and says of each FlowSchema whether its level exists (the condition `Dangling`).

use super::{LEVELS, SCHEMAS, defaults};
use crate::ApiServer;
use crate::authn::UserInfo;
use crate::clock::rfc3339;
use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;
use store::Range;
use tower::ServiceExt;
use tracing::debug;

/// Changes that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(100);

impl ApiServer {
    /// Follows the FlowSchemas and PriorityLevelConfigurations: from when this returns, they are in force.
    pub async fn follow_flow_control(&self) {
        self.inner.flow_control.follow(self.inner.store.clone()).await;
    }

    /// Restores mandatory flow-control objects and writes statuses, as long as it is polled.
    pub async fn keep_flow_control(&self) {
        let Some(follower) = self.inner.flow_control.followed.get() else { return };
        let mut changes = follower.view_changes();
        loop {
            self.look_after_flow_control().await;
            tokio::time::sleep(PAUSE).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn look_after_flow_control(&self) {
        let (schemas, levels) = (self.stored(SCHEMAS).await, self.stored(LEVELS).await);
        for wanted in defaults::mandatory() {
            let all = if wanted["kind"] == "FlowSchema" { &schemas } else { &levels };
            let name = defaults::name(&wanted);
            let path = format!("{}/{name}", defaults::collection(&wanted));
            match all.iter().find(|object| defaults::name(object) == name) {
                None => self.write(Method::POST, defaults::collection(&wanted), &wanted).await,
                Some(existing) => {
                    if let Some(new) = defaults::reconciled(existing, &wanted) {
                        self.write(Method::PUT, &path, &new).await;
                    }
                }
            }
        }
        let known: HashSet<&str> = levels.iter().map(defaults::name).collect();
        for schema in &schemas {
            let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
            let condition = dangling(level, known.contains(level) || defaults::is_mandatory(level));
            let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let current = conditions.iter().find(|condition| condition["type"] == "Dangling");
            if current.is_some_and(|current| defaults::agrees(current, &condition)) {
                continue;
            }
            let mut condition = condition;
            condition["lastTransitionTime"] = rfc3339(self.now()).into();
            let others = conditions.into_iter().filter(|condition| condition["type"] != "Dangling");
            let mut new = schema.clone();
            new["status"]["conditions"] = others.chain([condition]).collect();
            let path = format!("{}/{}/status", defaults::collection(schema), defaults::name(schema));
            self.write(Method::PUT, &path, &new).await;
        }
    }

    async fn stored(&self, prefix: &str) -> Vec<Value> {
        let range = Range { prefix: prefix.to_owned(), ..Range::default() };
        let page = self.inner.store.range(range).await.map(|page| page.items).unwrap_or_default();
        page.iter().filter_map(|kv| crate::encode::parse(kv).ok()).collect()
    }

    /// A write of the server's own, through the API like any other; what fails is seen again at the next change.
    async fn write(&self, method: Method, path: &str, object: &Value) {
        let user = UserInfo::new("system:apiserver", &["system:masters"]);
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let Ok(request) = request
            .header("user-agent", "api-priority-and-fairness-config-consumer-v1")
            .body(Body::from(object.to_string()))
        else {
            return;
        };
        let Ok(answer) = self.router_as(user).oneshot(request).await;
        debug!(path, code = answer.status().as_u16(), "flow control object written");
    }
}

fn dangling(level: &str, exists: bool) -> Value {
    if exists {
        json!({"type": "Dangling", "status": "False", "reason": "Found",
            "message": format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists")})
    } else {
        json!({"type": "Dangling", "status": "True", "reason": "NotFound",
            "message": format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} but there is no such object")})
    }
}
