//! Reviews: questions about who somebody is and what they may do, answered when asked.
//!
//! `authentication.k8s.io/v1` TokenReview and SelfSubjectReview; `authorization.k8s.io/v1` SubjectAccessReview, its Self and Local
//! forms, and SelfSubjectRulesReview. Access reviews ask the same authorizer as every request.

use crate::authentication::TokenAuthenticator;
use crate::authn::UserInfo;
use crate::authz::{Authorizer, Decision, Rules};
use crate::clock::rfc3339;
use crate::extension::{VirtualRequest, VirtualResource};
use crate::rbac::Rule;
use crate::request::RequestInfo;
use crate::status::{FieldError, Status};
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
    /// May they in this namespace?
    LocalSubjectAccess,
    /// What may I do here?
    SelfSubjectRules,
}

/// All reviews: plural name, group, and what they answer.
pub const REVIEWS: [(&str, &str, ReviewKind); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews", ReviewKind::SelfSubject),
    ("authentication.k8s.io", "tokenreviews", ReviewKind::Token),
    ("authorization.k8s.io", "selfsubjectaccessreviews", ReviewKind::SelfSubjectAccess),
    ("authorization.k8s.io", "subjectaccessreviews", ReviewKind::SubjectAccess),
    ("authorization.k8s.io", "localsubjectaccessreviews", ReviewKind::LocalSubjectAccess),
    ("authorization.k8s.io", "selfsubjectrulesreviews", ReviewKind::SelfSubjectRules),
];

/// One kind of review.
#[derive(Clone)]
pub struct Review {
    /// Which.
    pub kind: ReviewKind,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Whose tokens are whose.
    pub tokens: Arc<TokenAuthenticator>,
}

impl ReviewKind {
    fn name(self) -> &'static str {
        match self {
            ReviewKind::SelfSubject => "SelfSubjectReview",
            ReviewKind::Token => "TokenReview",
            ReviewKind::SelfSubjectAccess => "SelfSubjectAccessReview",
            ReviewKind::SubjectAccess => "SubjectAccessReview",
            ReviewKind::LocalSubjectAccess => "LocalSubjectAccessReview",
            ReviewKind::SelfSubjectRules => "SelfSubjectRulesReview",
        }
    }
}

#[async_trait]
impl VirtualResource for Review {
    async fn answer(&self, request: VirtualRequest<'_>) -> Result<Value, Status> {
        let VirtualRequest { info, user, server, body: mut review, .. } = request;
        let kind = self.kind.name();
        if review.is_null() && self.kind == ReviewKind::SelfSubject {
            review = json!({});
        }
        if !review.is_object() {
            return Err(Status::bad_request(format!("the body of the request is not a {kind}")));
        }
        (review["apiVersion"], review["kind"]) = (format!("{}/{}", info.group, info.version).into(), kind.into());
        if !review["metadata"].is_object() {
            review["metadata"] = json!({});
        }
        let spec = &review["spec"];
        let status = match self.kind {
            ReviewKind::SelfSubject => {
                review["metadata"]["creationTimestamp"] = rfc3339(server.now()).into();
                json!({"userInfo": user_info(user)})
            }
            ReviewKind::Token => self.token(spec).await?,
            ReviewKind::SelfSubjectAccess => self.access(user, spec).await?,
            ReviewKind::SubjectAccess => self.access(&self.subject(spec)?, spec).await?,
            ReviewKind::LocalSubjectAccess => {
                local(&info.namespace, &review)?;
                self.access(&self.subject(spec)?, spec).await?
            }
            ReviewKind::SelfSubjectRules => self.rules(user, spec).await?,
        };
        review["status"] = status;
        Ok(review)
    }
}

/// A local review is about the namespace it is sent to.
fn local(namespace: &str, review: &Value) -> Result<(), Status> {
    let (spec, sent) = (&review["spec"], review["metadata"]["namespace"].as_str().unwrap_or_default());
    if !sent.is_empty() && sent != namespace {
        return Err(Status::bad_request(format!("namespace mismatch: {sent} != {namespace}")));
    }
    if spec["nonResourceAttributes"].is_object() {
        let error = FieldError::invalid(
            "spec.nonResourceAttributes",
            &spec["nonResourceAttributes"],
            "disallowed on this kind of request",
        );
        return Err(Status::invalid("authorization.k8s.io", "LocalSubjectAccessReview", "", &[error]));
    }
    let asked = spec["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    if asked != namespace {
        let why = format!("spec.resourceAttributes.namespace must match namespace: {asked} != {namespace}");
        return Err(Status::bad_request(why));
    }
    Ok(())
}

impl Review {
    async fn token(&self, spec: &Value) -> Result<Value, Status> {
        let token = spec["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = strings(&spec["audiences"]);
        Ok(match self.tokens.user(token, &audiences).await {
            Ok((user, audiences)) => {
                let mut status = json!({"authenticated": true, "user": user_info(&user)});
                if !audiences.is_empty() {
                    status["audiences"] = json!(audiences);
                }
                status
            }
            Err(why) => json!({"user": {}, "error": why}),
        })
    }

    async fn access(&self, user: &UserInfo, spec: &Value) -> Result<Value, Status> {
        let request = self.asked(spec)?;
        Ok(match self.authorizer.authorize(user, &request).await {
            Decision::Allow(None) => json!({"allowed": true}),
            Decision::Allow(Some(reason)) => json!({"allowed": true, "reason": &*reason}),
            Decision::Deny(reason) if reason.is_empty() => json!({"allowed": false}),
            Decision::Deny(reason) => json!({"allowed": false, "reason": reason}),
        })
    }

    /// The request a review asks about.
    fn asked(&self, spec: &Value) -> Result<RequestInfo, Status> {
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let refuse = |error| Status::invalid("authorization.k8s.io", self.kind.name(), "", &[error]);
        match (resource.is_object(), path.is_object()) {
            (true, false) => {
                if let Some(error) = selector_error(resource) {
                    return Err(refuse(error));
                }
                Ok(RequestInfo {
                    is_resource: true,
                    verb: text(resource, "verb"),
                    group: text(resource, "group"),
                    version: text(resource, "version"),
                    resource: text(resource, "resource"),
                    subresource: text(resource, "subresource"),
                    namespace: text(resource, "namespace"),
                    name: text(resource, "name"),
                    field_selector: field_selector(&resource["fieldSelector"]),
                    ..RequestInfo::default()
                })
            }
            (false, true) => {
                Ok(RequestInfo { verb: text(path, "verb"), path: text(path, "path"), ..RequestInfo::default() })
            }
            (both, _) => {
                let (field, value) = if both {
                    ("spec.nonResourceAttributes", path.clone())
                } else {
                    ("spec.resourceAttributes", Value::Null)
                };
                let why = if both {
                    "cannot be specified in combination with resourceAttributes"
                } else {
                    "exactly one of nonResourceAttributes or resourceAttributes must be specified"
                };
                Err(refuse(FieldError::invalid(field, &value, why)))
            }
        }
    }

    fn subject(&self, spec: &Value) -> Result<UserInfo, Status> {
        let extra = spec["extra"].as_object().into_iter().flatten();
        let subject = UserInfo {
            name: spec["user"].as_str().unwrap_or_default().to_owned(),
            uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
            groups: strings(&spec["groups"]),
            extra: extra.map(|(key, value)| (key.clone(), strings(value))).collect::<BTreeMap<_, _>>(),
        };
        if subject.name.is_empty() && subject.groups.is_empty() {
            let error = FieldError::invalid("spec.user", &"".into(), "at least one of user or group must be specified");
            return Err(Status::invalid("authorization.k8s.io", self.kind.name(), "", &[error]));
        }
        Ok(subject)
    }

    async fn rules(&self, user: &UserInfo, spec: &Value) -> Result<Value, Status> {
        let namespace = spec["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let Rules { rules, errors } = self.authorizer.rules(user, namespace).await;
        let (paths, resources): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let list = |rules: Vec<&Rule>| rules.into_iter().map(Rule::to_json).collect::<Vec<_>>();
        let mut status = json!({"resourceRules": list(resources), "nonResourceRules": list(paths),
            "incomplete": !errors.is_empty()});
        if !errors.is_empty() {
            status["evaluationError"] = errors.join(", ").into();
        }
        Ok(status)
    }
}

/// What is wrong with the selectors of a review.
fn selector_error(resource: &Value) -> Option<FieldError> {
    ["fieldSelector", "labelSelector"].into_iter().find_map(|field| {
        let selector = resource.get(field).filter(|selector| !selector.is_null())?;
        let path = format!("spec.resourceAttributes.{field}");
        let raw = selector["rawSelector"].as_str().unwrap_or_default();
        let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
        match (raw.is_empty(), requirements) {
            (true, []) => Some(FieldError::required(
                format!("{path}.requirements"),
                "when fieldSelector is specified, requirements or rawSelector is required"
                    .replace("fieldSelector", field),
            )),
            (false, [_, ..]) => Some(FieldError::invalid(
                format!("{path}.rawSelector"),
                &raw.into(),
                "may not specified at the same time as requirements",
            )),
            (_, requirements) => requirements.iter().enumerate().find_map(|(index, requirement)| {
                let at = |part: &str| format!("{path}.requirements[{index}].{part}");
                let values = strings(&requirement["values"]);
                if requirement["key"].as_str().unwrap_or_default().is_empty() {
                    return Some(FieldError::required(at("key"), "must be specified"));
                }
                match requirement["operator"].as_str().unwrap_or_default() {
                    "In" | "NotIn" if values.is_empty() => {
                        Some(FieldError::required(at("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
                    }
                    "Exists" | "DoesNotExist" if !values.is_empty() => Some(FieldError::forbidden(
                        at("values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    )),
                    "In" | "NotIn" | "Exists" | "DoesNotExist" => None,
                    _ => Some(FieldError::invalid(
                        at("operator"),
                        &requirement["operator"],
                        "not a valid selector operator",
                    )),
                }
            }),
        }
    })
}

/// A review's field selector as a request has it; of requirements those that name one value.
fn field_selector(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let terms = requirements.filter_map(|requirement| {
        let (key, values) = (requirement["key"].as_str()?, strings(&requirement["values"]));
        match (requirement["operator"].as_str()?, values.as_slice()) {
            ("In", [value]) => Some(format!("{key}={value}")),
            ("NotIn", [value]) => Some(format!("{key}!={value}")),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `UserInfo` of `authentication.k8s.io/v1`.
pub(crate) fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
