//! `NameLookup`: what the cluster's DNS answers, with the search list that a pod walks.

use super::place::Party;
use super::{Asker, Question, Refusal, Sources, alive, spec};
use apiserver::status::FieldError;
use async_trait::async_trait;
use dns::{Answer, QueryError};
use k8s_openapi::api::core::v1::Pod;
use kubelet::programs::resolver::search_names;
use kubelet::resolv_conf::resolv_conf;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) const SCHEMA: &[(&str, &str, &str)] = &[
    ("namespace", "string", "Where `from` is looked for. Default: the namespace that is asked in, or default."),
    ("name", "string", "The name to look up."),
    ("type", "string", "The record type: A, AAAA, SRV, PTR, CNAME, TXT, NS or SOA. Default: A."),
    ("from", "string", "POD or NAMESPACE/POD whose resolv.conf is followed. Without one the name is asked as it is."),
];

#[derive(Deserialize)]
#[serde(default)]
struct Spec {
    namespace: String,
    name: String,
    r#type: String,
    from: String,
}

impl Default for Spec {
    fn default() -> Self {
        Spec { namespace: String::new(), name: String::new(), r#type: "A".into(), from: String::new() }
    }
}

pub(super) struct NameLookup;

#[async_trait]
impl Question for NameLookup {
    async fn status(&self, sources: &Sources, asker: &Asker, body: &Value) -> Result<Value, Refusal> {
        let spec: Spec = spec(body)?;
        if spec.name.is_empty() {
            return Err(FieldError::required("spec.name", "").into());
        }
        let pod = match spec.from.as_str() {
            "" => None,
            from => match sources.named(asker, from, &spec.namespace).await? {
                Party::Pod(pod, _) => Some(pod),
                Party::Service(_) | Party::Address(_) => {
                    return Err(FieldError::invalid("spec.from", &from.into(), "must be POD or NAMESPACE/POD").into());
                }
            },
        };
        let queries = sources.lookup(pod.as_deref(), &spec.name, &spec.r#type).await?;
        let faults = pod.as_ref().and_then(|pod| pod.metadata.annotations.as_ref()?.get(dns::FAULTS));
        let warning = |faults| format!("the pod may be told something else, since it has {}: {faults}", dns::FAULTS);
        Ok(json!({"queries": queries, "warnings": faults.into_iter().map(warning).collect::<Vec<_>>()}))
    }
}

impl Sources {
    /// Every question that is asked until one is answered, in order; the last is the one that counts. `pod`: whose
    /// resolv.conf is followed.
    pub(super) async fn lookup(&self, pod: Option<&Pod>, name: &str, kind: &str) -> Result<Vec<Answer>, Refusal> {
        let dns = alive(&self.dns)?;
        let names = match pod {
            Some(pod) => search_names(&resolv_conf(pod, &self.cluster_dns).text, name),
            None => vec![name.to_owned()],
        };
        let mut queries = Vec::new();
        for name in names {
            let answer = dns.query(&name, kind).await.map_err(|error| match error {
                QueryError::Name { name, why } => {
                    FieldError::invalid("spec.name", &name.into(), format!("must be a domain name: {why}"))
                }
                QueryError::Type(_) => FieldError::invalid("spec.type", &kind.into(), error.to_string()),
            })?;
            let found = answer.rcode == "NOERROR" && !answer.answers.is_empty();
            queries.push(answer);
            if found {
                break;
            }
        }
        Ok(queries)
    }
}
