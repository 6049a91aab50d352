//! `serviceaccounts/token`: a signed token for a service account, bound to a pod, node or Secret if asked (TokenRequest, KEP-1205).

use crate::clock::rfc3339;
use crate::extension::{VirtualRequest, VirtualResource};
use crate::node_restriction;
use crate::status::{FieldError, Status};
use crate::tokens::{BoundObject, Claims, ISSUER, KubernetesClaims, TokenSigner};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;

/// Ten minutes, as upstream.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
const USUAL: i64 = 3600;

/// Issues tokens.
#[derive(Debug)]
pub(crate) struct TokenRequests(pub(crate) Arc<TokenSigner>);

#[async_trait]
impl VirtualResource for TokenRequests {
    async fn answer(&self, request: VirtualRequest<'_>) -> Result<Value, Status> {
        let (namespace, name) = (&request.info.namespace, &request.info.name);
        let account = read(&request, "serviceaccounts", name).await;
        let account = account.ok_or_else(|| Status::not_found("", "serviceaccounts", name))?;
        let mut review = request.body.clone();
        if !review.is_object() {
            return Err(Status::bad_request("the body of the request is not a TokenRequest"));
        }
        for (field, wanted) in [("name", name), ("namespace", namespace)] {
            let sent = review["metadata"][field].as_str().unwrap_or_default();
            if !sent.is_empty() && sent != wanted {
                let why =
                    format!("the {field} of the object ({sent}) does not match the {field} on the URL ({wanted})");
                return Err(Status::bad_request(why));
            }
        }
        let spec = &review["spec"];
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(USUAL);
        let errors = errors(spec, seconds);
        if !errors.is_empty() {
            return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &errors));
        }
        let mut audiences: Vec<String> =
            spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let mut claims = KubernetesClaims {
            namespace: namespace.clone(),
            serviceaccount: bound(&account),
            pod: None,
            node: None,
            secret: None,
        };
        let object = &spec["boundObjectRef"];
        let pod = if object.is_object() { bind(&request, object, &mut claims).await? } else { None };
        node_restriction::check_token(request.user, request.info, pod.as_ref(), &audiences)?;
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let issued = request.server.now().as_second();
        let claims = Claims {
            aud: audiences.clone(),
            exp: issued + seconds,
            iat: issued,
            nbf: issued,
            iss: ISSUER.to_owned(),
            jti: request.server.inner.identifiers.uid(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            kubernetes: claims,
        };
        let token = self.0.sign(&claims)?;
        let expires = jiff::Timestamp::from_second(claims.exp).map_err(Status::internal)?;
        review["apiVersion"] = "authentication.k8s.io/v1".into();
        review["kind"] = "TokenRequest".into();
        review["metadata"]["name"] = name.as_str().into();
        review["metadata"]["namespace"] = namespace.as_str().into();
        review["metadata"]["creationTimestamp"] = rfc3339(request.server.now()).into();
        review["spec"]["audiences"] = json!(audiences);
        review["spec"]["expirationSeconds"] = seconds.into();
        review["status"] = json!({"token": token, "expirationTimestamp": rfc3339(expires)});
        Ok(review)
    }
}

fn errors(spec: &Value, seconds: i64) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if seconds < SHORTEST {
        let why = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid("spec.expirationSeconds", &seconds.into(), why));
    }
    if seconds > LONGEST {
        let why = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid("spec.expirationSeconds", &seconds.into(), why));
    }
    for (index, audience) in spec["audiences"].as_array().into_iter().flatten().enumerate() {
        if audience.as_str().is_none_or(str::is_empty) {
            errors.push(FieldError::required(format!("spec.audiences[{index}]"), "must not be empty"));
        }
    }
    errors
}

/// Binds the token to the object that was asked for; gives the pod if it is one.
async fn bind(
    request: &VirtualRequest<'_>,
    object: &Value,
    claims: &mut KubernetesClaims,
) -> Result<Option<Value>, Status> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (kind, wanted, version) = (text("kind"), text("name"), text("apiVersion"));
    let plural = match (version.as_str(), kind.as_str()) {
        ("v1" | "", "Pod") => "pods",
        ("v1" | "", "Secret") => "secrets",
        ("v1" | "", "Node") => "nodes",
        _ => {
            let why = format!(
                "cannot bind token to object of kind {version}, Kind={kind}: Pod, Secret and Node of v1 can be bound to"
            );
            return Err(Status::bad_request(why));
        }
    };
    let found = if plural == "nodes" {
        stored(request, &format!("/registry/nodes/{wanted}")).await
    } else {
        read(request, plural, &wanted).await
    };
    let found = found.ok_or_else(|| Status::not_found("", plural, &wanted))?;
    let reference = bound(&found);
    let uid = text("uid");
    if !uid.is_empty() && uid != reference.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", plural, &wanted, &why));
    }
    match plural {
        "secrets" => claims.secret = Some(reference),
        "nodes" => claims.node = Some(reference),
        _ => {
            let account = found["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if account != request.info.name {
                let why = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    request.info.name
                );
                return Err(Status::bad_request(why));
            }
            claims.pod = Some(reference);
            let node = found["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
            if !node.is_empty() {
                let stored = stored(request, &format!("/registry/nodes/{node}")).await;
                // A pod may be bound to a node that is gone; the name is told all the same.
                claims.node = Some(stored.map_or(BoundObject { name: node, uid: String::new() }, |node| bound(&node)));
            }
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn stored(request: &VirtualRequest<'_>, key: &str) -> Option<Value> {
    request.server.store().get(key).await.ok()?.and_then(|kv| serde_json::from_slice(&kv.value).ok())
}

/// An object in the request's namespace.
async fn read(request: &VirtualRequest<'_>, plural: &str, name: &str) -> Option<Value> {
    stored(request, &format!("/registry/{plural}/{}/{name}", request.info.namespace)).await
}

fn bound(object: &Value) -> BoundObject {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    BoundObject { name: text("name"), uid: text("uid") }
}
