//! Who may do what: the seam to the authorizer.
//!
//! Follows `k8s.io/apiserver/pkg/authorization/authorizer`.

use crate::authn::UserInfo;
use crate::rbac::Rule;
use crate::request::RequestInfo;
use async_trait::async_trait;
use std::sync::Arc;

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on; with what allows it, if there is something to say.
    Allow(Option<Arc<str>>),
    /// 403; with the reason if there is more to say than that nothing allows it.
    Deny(String),
}

/// What an authorizer knows of a user's rights, for SelfSubjectRulesReview.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The rules that hold.
    pub rules: Vec<Rule>,
    /// Why there may be more.
    pub errors: Vec<String>,
}

/// Decides about requests.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `user` may do what `request` says.
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision;

    /// What `user` may do in `namespace` and outside namespaces, as far as it can be listed.
    async fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

/// Asks several authorizers in turn: the first that allows decides, the reasons of all that do not are told.
pub struct Union(pub Vec<Arc<dyn Authorizer>>);

#[async_trait]
impl Authorizer for Union {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(user, request).await {
                Decision::Deny(reason) if reason.is_empty() => {}
                Decision::Deny(reason) => reasons.push(reason),
                allowed => return allowed,
            }
        }
        Decision::Deny(reasons.join("\n"))
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for authorizer in &self.0 {
            let Rules { rules, errors } = authorizer.rules(user, namespace).await;
            all.rules.extend(rules);
            all.errors.extend(errors);
        }
        all
    }
}

/// Allows everything to everybody who has been authenticated.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _: &UserInfo, _: &RequestInfo) -> Decision {
        Decision::Allow(None)
    }
}

/// The text of a refusal, as `kubectl` users know it.
pub(crate) fn refusal(user: &UserInfo, request: &RequestInfo, reason: &str) -> String {
    let name = &user.name;
    let verb = &request.verb;
    let mut text = if request.is_resource {
        let mut text = format!("User {name:?} cannot {verb} resource {:?}", request.resource_path());
        text.push_str(&format!(" in API group {:?}", request.group));
        if request.namespace.is_empty() {
            text.push_str(" at the cluster scope");
        } else {
            text.push_str(&format!(" in the namespace {:?}", request.namespace));
        }
        text
    } else {
        format!("User {name:?} cannot {verb} path {:?}", request.path)
    };
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    text
}
