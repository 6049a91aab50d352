//! Reviews: questions about who somebody is and what they may do, answered when asked.
//!
//! `authentication.k8s.io/v1` TokenReview and SelfSubjectReview; `authorization.k8s.io/v1` SubjectAccessReview, its Self and Local
//! forms, and SelfSubjectRulesReview.

use crate::authentication::TokenAuthenticator;
use crate::authn::UserInfo;
use crate::extension::{VirtualRequest, VirtualResource};
use crate::rbac::{Attributes, Rbac};
use crate::status::{FieldError, Status};
use crate::tokens::ISSUER;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which review a [`Review`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewKind {
    /// Who am I?
    SelfSubject,
    /// Whose token is this?
    Token,
    /// May I?
    SelfSubjectAccess,
    /// May they?
    SubjectAccess,
    /// What may I do here?
    SelfSubjectRules,
}

/// All reviews: plural name, group, and what they answer.
pub const REVIEWS: [(&str, &str, ReviewKind); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews", ReviewKind::SelfSubject),
    ("authentication.k8s.io", "tokenreviews", ReviewKind::Token),
    ("authorization.k8s.io", "selfsubjectaccessreviews", ReviewKind::SelfSubjectAccess),
    ("authorization.k8s.io", "subjectaccessreviews", ReviewKind::SubjectAccess),
    ("authorization.k8s.io", "localsubjectaccessreviews", ReviewKind::SubjectAccess),
    ("authorization.k8s.io", "selfsubjectrulesreviews", ReviewKind::SelfSubjectRules),
];

/// One kind of review.
#[derive(Clone, Debug)]
pub struct Review {
    /// Which.
    pub kind: ReviewKind,
    /// Who may do what.
    pub rbac: Rbac,
    /// Whose tokens are whose.
    pub tokens: Arc<TokenAuthenticator>,
}

#[async_trait]
impl VirtualResource for Review {
    async fn answer(&self, request: VirtualRequest<'_>) -> Result<Value, Status> {
        let mut review = request.body;
        if !review["metadata"].is_object() {
            review["metadata"] = json!({});
        }
        let status = match self.kind {
            ReviewKind::SelfSubject => json!({"userInfo": user_info(request.user)}),
            ReviewKind::Token => self.token(&review["spec"]).await,
            ReviewKind::SelfSubjectAccess => self.access(request.user, &review["spec"]).await?,
            ReviewKind::SubjectAccess => self.access(&subject(&review["spec"]), &review["spec"]).await?,
            ReviewKind::SelfSubjectRules => self.rules(request.user, &review["spec"]).await,
        };
        review["status"] = status;
        Ok(review)
    }
}

impl Review {
    async fn token(&self, spec: &Value) -> Value {
        let mut audiences: Vec<String> = strings(&spec["audiences"]);
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        match self.tokens.user(spec["token"].as_str().unwrap_or_default(), &audiences).await {
            Ok(user) => json!({"authenticated": true, "user": user_info(&user), "audiences": audiences}),
            Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
        }
    }

    async fn access(&self, user: &UserInfo, spec: &Value) -> Result<Value, Status> {
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let allowed = match (resource.is_object(), path.is_object()) {
            (true, false) => {
                let mut name = text(resource, "resource");
                let subresource = text(resource, "subresource");
                if !subresource.is_empty() {
                    name = format!("{name}/{subresource}");
                }
                let attributes = Attributes {
                    verb: &text(resource, "verb"),
                    group: &text(resource, "group"),
                    resource: &name,
                    namespace: &text(resource, "namespace"),
                    name: &text(resource, "name"),
                    path: None,
                };
                self.rbac.allows(user, &attributes).await
            }
            (false, true) => {
                let (verb, path) = (text(path, "verb"), text(path, "path"));
                self.rbac.allows(user, &Attributes { verb: &verb, path: Some(&path), ..Attributes::default() }).await
            }
            _ => {
                let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                let error = FieldError::invalid("spec.resourceAttributes", resource, why);
                return Err(Status::invalid("authorization.k8s.io", "SubjectAccessReview", "", &[error]));
            }
        };
        let mut status = json!({"allowed": allowed});
        if allowed {
            status["reason"] = "RBAC: allowed by a role bound to the user or one of their groups".into();
        }
        Ok(status)
    }

    async fn rules(&self, user: &UserInfo, spec: &Value) -> Value {
        let namespace = spec["namespace"].as_str().unwrap_or_default();
        let rules = self.rbac.rules(user, namespace).await;
        let (paths, resources): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let list =
            |rules: Vec<&crate::rbac::Rule>| rules.into_iter().map(crate::rbac::Rule::to_json).collect::<Vec<_>>();
        json!({"resourceRules": list(resources), "nonResourceRules": list(paths), "incomplete": false})
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn subject(spec: &Value) -> UserInfo {
    let extra = spec["extra"].as_object().into_iter().flatten();
    UserInfo {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, value)| (key.clone(), strings(value))).collect::<BTreeMap<_, _>>(),
    }
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
