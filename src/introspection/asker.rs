//! Who asks, and of which namespaces: rights to ask are given per namespace, as all rights are.
//!
//! A question is asked in a namespace (`/namespaces/shop/policyreviews`) or of the whole cluster (`/policyreviews`), and RBAC decides
//! which a user may. One asked in a namespace may touch others too, such as the pod at the other end of a flow: where the user
//! has the same right there.

use super::place::Party;
use super::{GROUP, Refusal, Sources, VERSION};
use apiserver::ApiServer;
use apiserver::authn::UserInfo;
use apiserver::request::RequestInfo;
use apiserver::status::Status;
use serde_json::Value;

/// Who asks.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(super) server: ApiServer,
    pub(super) user: UserInfo,
    pub(super) info: RequestInfo,
}

impl Asker {
    /// The namespace that is asked in; `None` is the whole cluster.
    pub(super) fn namespace(&self) -> Option<&str> {
        Some(self.info.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// Where names without a namespace are looked for.
    pub(super) fn home<'a>(&'a self, wanted: &'a str) -> &'a str {
        if wanted.is_empty() { self.namespace().unwrap_or("default") } else { wanted }
    }

    /// Whether the same may be asked in `namespace`.
    ///
    /// # Errors
    /// 403.
    pub(super) async fn may_ask_in(&self, namespace: &str) -> Result<(), Status> {
        match self.namespace() {
            Some(own) if own != namespace => {
                let info = RequestInfo { namespace: namespace.to_owned(), name: String::new(), ..self.info.clone() };
                self.server.authorize(&self.user, &info).await
            }
            _ => Ok(()),
        }
    }

    /// Whether the same may be asked of the namespace that the text of a place names, before anything is looked up there.
    ///
    /// # Errors
    /// 403.
    pub(super) async fn may_name(&self, place: &str, home: &str) -> Result<(), Status> {
        if place.parse::<std::net::IpAddr>().is_ok() {
            return Ok(());
        }
        let service = place.strip_prefix("svc/").or_else(|| place.strip_prefix("service/"));
        let namespace = service.unwrap_or(place).split_once('/').map_or(home, |(namespace, _)| namespace);
        self.may_ask_in(namespace).await
    }

    /// The same of a pod given as `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// 403.
    pub(super) async fn may_see(&self, pod: Option<&str>) -> Result<(), Status> {
        match pod.and_then(|pod| pod.split_once('/')) {
            Some((namespace, _)) => self.may_ask_in(namespace).await,
            None => Ok(()),
        }
    }

    /// The same of all pods that a judgement speaks of.
    ///
    /// # Errors
    /// 403.
    pub(super) async fn may_see_ends(&self, judged: &Value) -> Result<(), Status> {
        self.may_see(judged["source"]["pod"].as_str()).await?;
        for verdict in judged["verdicts"].as_array().into_iter().flatten() {
            self.may_see(verdict["destination"]["pod"].as_str()).await?;
        }
        Ok(())
    }

    /// Whether packets may be sent too: the right to ask for traces in these namespaces.
    ///
    /// # Errors
    /// 403.
    pub(super) async fn may_send(&self, namespaces: &[String]) -> Result<(), Status> {
        let info = |namespace: &str| RequestInfo {
            resource: "traces".to_owned(),
            namespace: namespace.to_owned(),
            name: String::new(),
            ..self.info.clone()
        };
        if namespaces.is_empty() {
            return self.server.authorize(&self.user, &info("")).await;
        }
        for namespace in namespaces {
            self.server.authorize(&self.user, &info(namespace)).await?;
        }
        Ok(())
    }

    /// Who talks to a stream.
    ///
    /// # Errors
    /// The request came past the server's own checks.
    pub(super) fn of(server: &ApiServer, extensions: &http::Extensions) -> Result<Asker, Status> {
        let (user, info) = (extensions.get::<UserInfo>(), extensions.get::<RequestInfo>());
        let (Some(user), Some(info)) = (user, info) else {
            return Err(Status::internal(format!("{GROUP}/{VERSION}: nobody is asking")));
        };
        Ok(Asker { server: server.clone(), user: user.clone(), info: info.clone() })
    }
}

impl Sources {
    /// What `spec.from` names, if it may be asked about.
    pub(super) async fn named(&self, asker: &Asker, from: &str, wanted: &str) -> Result<Party, Refusal> {
        let home = asker.home(wanted);
        asker.may_name(from, home).await?;
        self.party("spec.from", from, home)
    }
}
