//! Acting as somebody else: `kubectl --as`, by headers.
//!
//! Whoever may `impersonate` a user, group, service account, uid or extra goes on as that one.
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/filters/impersonation.go`.

use crate::authn::UserInfo;
use crate::authz::{Authorizer, Decision, refusal};
use crate::request::{RequestInfo, percent_decode};
use crate::status::Status;
use http::HeaderMap;
use std::collections::BTreeMap;

const EXTRA: &str = "impersonate-extra-";

/// Who the request is to be done as; `None` if it asks for nobody else.
///
/// # Errors
/// 403 if `user` may not; 400 if groups, uid or extras are asked for without a user.
pub(crate) async fn impersonated(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    headers: &HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let name = values("impersonate-user").pop().unwrap_or_default();
    let mut groups = values("impersonate-group");
    let uid = values("impersonate-uid").pop().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys().filter_map(|header| header.as_str().strip_prefix(EXTRA)) {
        // What cannot stand in a header's name is escaped there.
        extra.insert(percent_decode(header), values(&format!("{EXTRA}{header}")));
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(Status::bad_request(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    }
    let mut asked: Vec<RequestInfo> = Vec::new();
    let service_account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let service_account = service_account.filter(|(namespace, name)| !namespace.is_empty() && !name.contains(':'));
    let service_account = service_account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    match &service_account {
        Some((namespace, name)) => {
            asked.push(RequestInfo { namespace: namespace.clone(), ..on("", "serviceaccounts", "", name) });
        }
        None => asked.push(on("", "users", "", &name)),
    }
    asked.extend(groups.iter().map(|group| on("", "groups", "", group)));
    if !uid.is_empty() {
        asked.push(on("authentication.k8s.io", "uids", "", &uid));
    }
    for (key, values) in &extra {
        asked.extend(values.iter().map(|value| on("authentication.k8s.io", "userextras", key, value)));
    }
    for request in &asked {
        if let Decision::Deny(reason) = authorizer.authorize(user, request).await {
            let why = refusal(user, request, &reason);
            return Err(Status::forbidden(&request.group, &request.resource_path(), &request.name, &why));
        }
    }
    if let Some((namespace, _)) = service_account.filter(|_| groups.is_empty()) {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let status = if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|group| group == status) {
        groups.push(status.to_owned());
    }
    Ok(Some(UserInfo { name, uid, groups, extra }))
}

/// The question whether somebody may impersonate this one.
fn on(group: &str, resource: &str, subresource: &str, name: &str) -> RequestInfo {
    RequestInfo {
        is_resource: true,
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use http::{HeaderName, HeaderValue};

    /// Allows to impersonate what stands in its list.
    struct Only(&'static [&'static str]);

    #[async_trait]
    impl Authorizer for Only {
        async fn authorize(&self, _: &UserInfo, request: &RequestInfo) -> Decision {
            let asked = format!("{}/{}/{}", request.namespace, request.resource_path(), request.name);
            if self.0.contains(&asked.as_str()) { Decision::Allow(None) } else { Decision::Deny(String::new()) }
        }
    }

    async fn as_whom(allowed: &'static [&'static str], headers: &[(&'static str, &'static str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        match impersonated(&Only(allowed), &UserInfo::new("me", &[]), &map).await {
            Ok(None) => "myself".to_owned(),
            Ok(Some(user)) => format!("{} {}", user.name, user.groups.join(",")),
            Err(status) => status.message,
        }
    }

    #[tokio::test]
    async fn one_acts_as_whom_one_may_impersonate() {
        assert_eq!(as_whom(&[], &[]).await, "myself");
        assert_eq!(as_whom(&["/users/jane"], &[("impersonate-user", "jane")]).await, "jane system:authenticated");
        assert_eq!(
            as_whom(&[], &[("impersonate-user", "jane")]).await,
            "users \"jane\" is forbidden: User \"me\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
        let both = [("impersonate-user", "jane"), ("impersonate-group", "dev"), ("impersonate-group", "ops")];
        assert_eq!(
            as_whom(&["/users/jane", "/groups/dev", "/groups/ops"], &both).await,
            "jane dev,ops,system:authenticated"
        );
        assert!(as_whom(&["/users/jane", "/groups/dev"], &both).await.contains("forbidden"));
        let robot = [("impersonate-user", "system:serviceaccount:a:robot")];
        assert_eq!(
            as_whom(&["a/serviceaccounts/robot"], &robot).await,
            "system:serviceaccount:a:robot system:serviceaccounts,system:serviceaccounts:a,system:authenticated"
        );
        assert!(as_whom(&[], &[("impersonate-group", "dev")]).await.contains("without impersonating a user"));
        let extra = [("impersonate-user", "jane"), ("impersonate-extra-team", "red")];
        assert!(as_whom(&["/users/jane"], &extra).await.contains("userextras/team"));
    }
}
