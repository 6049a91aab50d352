//! Where resources that are not objects in the store come in: computed answers ([`VirtualResource`]: reviews, tokens,
//! metrics) and streams ([`Connector`]: exec, logs, proxies).

use crate::ApiServer;
use crate::authn::UserInfo;
use crate::request::{Query, RequestInfo};
use crate::status::Status;
use async_trait::async_trait;
use axum::extract::Request;
use axum::response::Response;
use serde_json::Value;

pub(crate) type ExtensionKey = (String, String, String);

pub(crate) fn key(group: &str, version: &str, resource: &str) -> ExtensionKey {
    (group.to_owned(), version.to_owned(), resource.to_owned())
}

/// A request for a virtual resource.
pub struct VirtualRequest<'a> {
    /// The server that asks.
    pub server: &'a ApiServer,
    /// Who asks.
    pub user: &'a UserInfo,
    /// What is asked for.
    pub info: &'a RequestInfo,
    /// The query.
    pub query: &'a Query,
    /// The decoded body; `Null` without.
    pub body: Value,
}

/// A resource that is computed when it is asked for.
#[async_trait]
pub trait VirtualResource: Send + Sync + 'static {
    /// The answer, by the verb of [`VirtualRequest::info`]; a list for `list`. Its `kind` and `apiVersion` have to be set.
    async fn answer(&self, request: VirtualRequest<'_>) -> Result<Value, Status>;

    /// What is said to whoever uses a verb that the kind does not have, if something else does what he wants.
    fn instead(&self, verb: &str) -> Option<&'static str> {
        let _ = verb;
        None
    }
}

/// A resource that is talked to.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Takes the request over. [`UserInfo`] and [`RequestInfo`] are among its extensions.
    async fn connect(&self, server: &ApiServer, request: Request) -> Result<Response, Status>;
}
