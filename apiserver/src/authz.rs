//! Who may do what: the seam to the authorizer.
//!
//! Follows `k8s.io/apiserver/pkg/authorization/authorizer`.

use crate::authn::UserInfo;
use crate::request::RequestInfo;
use async_trait::async_trait;

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// 403; with the reason if there is more to say than that nothing allows it.
    Deny(String),
}

/// Decides about requests.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `user` may do what `request` says.
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision;
}

/// Allows everything to everybody who has been authenticated.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _: &UserInfo, _: &RequestInfo) -> Decision {
        Decision::Allow
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
