//! `serviceaccounts/token`: a signed token for a service account, bound to a pod or Secret if asked (TokenRequest, KEP-1205).

use crate::extension::{VirtualRequest, VirtualResource};
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

fn invalid(errors: &[FieldError]) -> Status {
    Status::invalid("authentication.k8s.io", "TokenRequest", "", errors)
}

#[async_trait]
impl VirtualResource for TokenRequests {
    async fn answer(&self, request: VirtualRequest<'_>) -> Result<Value, Status> {
        let (namespace, name) = (&request.info.namespace, &request.info.name);
        let account = bound(&request, "serviceaccounts", name).await?;
        let mut review = request.body.clone();
        let spec = &review["spec"];
        let seconds = match &spec["expirationSeconds"] {
            Value::Null => USUAL,
            value => {
                let seconds = value.as_i64().unwrap_or_default();
                if seconds < SHORTEST {
                    let why = "may not specify a duration less than 10 minutes";
                    return Err(invalid(&[FieldError::invalid("spec.expirationSeconds", value, why)]));
                }
                if seconds > LONGEST {
                    let why = "may not specify a duration larger than 2^32 seconds";
                    return Err(invalid(&[FieldError::invalid("spec.expirationSeconds", value, why)]));
                }
                seconds
            }
        };
        let mut audiences: Vec<String> =
            spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let (mut pod, mut node, mut secret) = (None, None, None);
        let object = &spec["boundObjectRef"];
        if object.is_object() {
            let wanted = object["name"].as_str().unwrap_or_default();
            let found = match object["kind"].as_str() {
                Some("Pod") => pod.insert(bound(&request, "pods", wanted).await?),
                Some("Secret") => secret.insert(bound(&request, "secrets", wanted).await?),
                _ => {
                    let error =
                        FieldError::not_supported("spec.boundObjectRef.kind", &object["kind"], &["Pod", "Secret"]);
                    return Err(invalid(&[error]));
                }
            };
            let uid = object["uid"].as_str().unwrap_or_default();
            if !uid.is_empty() && uid != found.uid {
                let why = format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record ({})",
                    found.uid
                );
                return Err(Status::conflict("", "serviceaccounts/token", name, &why));
            }
            if let Some(bound_pod) = &pod {
                node = self.node_of(&request, &bound_pod.name).await;
            }
        }
        let issued = request.server.now().as_second();
        let claims = Claims {
            aud: audiences.clone(),
            exp: issued + seconds,
            iat: issued,
            nbf: issued,
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            kubernetes: KubernetesClaims { namespace: namespace.clone(), serviceaccount: account, pod, node, secret },
        };
        let token = self.0.sign(&claims)?;
        let expires = jiff::Timestamp::from_second(claims.exp).map_err(Status::internal)?;
        if !review.is_object() {
            review = json!({});
        }
        review["apiVersion"] = "authentication.k8s.io/v1".into();
        review["kind"] = "TokenRequest".into();
        review["metadata"]["name"] = name.as_str().into();
        review["metadata"]["namespace"] = namespace.as_str().into();
        review["spec"]["audiences"] = json!(audiences);
        review["spec"]["expirationSeconds"] = seconds.into();
        review["status"] =
            json!({"token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
        Ok(review)
    }
}

impl TokenRequests {
    async fn node_of(&self, request: &VirtualRequest<'_>, pod: &str) -> Option<BoundObject> {
        let key = format!("/registry/pods/{}/{pod}", request.info.namespace);
        let pod: Value = serde_json::from_slice(&request.server.store().get(&key).await?.value).ok()?;
        let name = pod["spec"]["nodeName"].as_str()?.to_owned();
        let node: Value =
            serde_json::from_slice(&request.server.store().get(&format!("/registry/nodes/{name}")).await?.value)
                .ok()?;
        Some(BoundObject { uid: node["metadata"]["uid"].as_str()?.to_owned(), name })
    }
}

/// Name and uid of an object in the request's namespace.
async fn bound(request: &VirtualRequest<'_>, plural: &str, name: &str) -> Result<BoundObject, Status> {
    let key = format!("/registry/{plural}/{}/{name}", request.info.namespace);
    let stored = request.server.store().get(&key).await;
    let object = stored.and_then(|kv| serde_json::from_slice::<Value>(&kv.value).ok());
    let object = object.ok_or_else(|| Status::not_found("", plural, name))?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    Ok(BoundObject { name: name.to_owned(), uid })
}
