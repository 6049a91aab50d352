//! Who asks: [`UserInfo`], and the seam through which a request over the wire is given one.
//!
//! In-process clients carry their [`UserInfo`] as an entry of the request's `http::Extensions`, which cannot come over a
//! socket ([`crate::ApiServer::router_as`]); for everybody else the [`Authenticator`] of the configuration is asked.
//!
//! Follows `k8s.io/apiserver/pkg/authentication/user`.

use crate::status::Status;
use async_trait::async_trait;
use std::collections::BTreeMap;

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Such as `system:serviceaccount:default:builder`.
    pub name: String,
    /// Tells users of one name apart; may be empty.
    pub uid: String,
    /// Such as `system:masters`.
    pub groups: Vec<String>,
    /// What else the authenticator knows, such as the pod a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user of this name in these groups and in `system:authenticated`.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        UserInfo { name: name.into(), groups, ..UserInfo::default() }
    }

    /// A member of `system:masters`, who may do everything.
    pub fn admin() -> Self {
        UserInfo::new("system:admin", &["system:masters"])
    }
}

/// Finds out who sent a request.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The user whose credentials stand in the request; `None` if it carries none that this authenticator understands.
    ///
    /// # Errors
    /// The answer to credentials that are wrong; 401 as a rule.
    async fn authenticate(&self, request: &http::request::Parts) -> Result<Option<UserInfo>, Status>;
}

/// Knows nobody: only in-process clients come in.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcessOnly;

#[async_trait]
impl Authenticator for InProcessOnly {
    async fn authenticate(&self, _: &http::request::Parts) -> Result<Option<UserInfo>, Status> {
        Ok(None)
    }
}
