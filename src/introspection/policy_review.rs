//! `PolicyReview`: may this flow pass, by which rule of which policy, and if not, how near came each rule.

use super::place::{EPHEMERAL, Party, Target, full_name};
use super::{Asker, Question, Refusal, Sources, alive, spec};
use apiserver::status::FieldError;
use async_trait::async_trait;
use netstack::{FiveTuple, NewFlow, PortTag};
use policy::{Explanation, PolicyTable};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

pub(super) const SCHEMA: &[(&str, &str, &str)] = &[
    (
        "namespace",
        "string",
        "Where names without a namespace are looked for. Default: the namespace that is asked in, or default.",
    ),
    ("from", "string", "Who sends: POD, NAMESPACE/POD or an IP address."),
    (
        "to",
        "string",
        "Who receives: HOST:PORT or HOST:PORT/PROTOCOL; the host is POD, NAMESPACE/POD, svc/NAME, svc/NAMESPACE/NAME or an IP address.",
    ),
    ("policies", "objects", "NetworkPolicies and ClusterNetworkPolicies to judge by as if they were applied."),
    (
        "absent",
        "strings",
        "Policies (NAMESPACE/NAME, or the name of a ClusterNetworkPolicy) to leave out as if they were deleted.",
    ),
];

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    namespace: String,
    from: String,
    to: String,
    policies: Vec<Value>,
    absent: Vec<String>,
}

pub(super) struct PolicyReview;

#[async_trait]
impl Question for PolicyReview {
    async fn status(&self, sources: &Sources, asker: &Asker, body: &Value) -> Result<Value, Refusal> {
        let spec: Spec = spec(body)?;
        let home = asker.home(&spec.namespace);
        asker.may_name(&spec.from, home).await?;
        let source = sources.source(&spec.from, home)?;
        let target = Target::parse("spec.to", &spec.to)?;
        asker.may_name(&target.host, home).await?;
        let dst = sources.destination("spec.to", &target, home)?;
        let flow = FiveTuple { protocol: target.protocol, src: SocketAddr::new(source, EPHEMERAL), dst };
        let table = sources.policies(&spec.policies, &spec.absent)?;
        let judged = sources.judge(&flow, &table)?;
        asker.may_see_ends(&judged).await?;
        Ok(judged)
    }
}

impl Sources {
    /// The address that a flow comes from.
    pub(super) fn source(&self, from: &str, namespace: &str) -> Result<IpAddr, Refusal> {
        match self.party("spec.from", from, namespace)? {
            Party::Pod(_, address) | Party::Address(address) => Ok(address),
            Party::Service(_) => {
                Err(FieldError::invalid("spec.from", &from.into(), "a Service sends nothing; name a pod").into())
            }
        }
    }

    /// Where a flow goes and what policies say: one verdict per endpoint that it may be sent to.
    pub(super) fn judge(&self, flow: &FiveTuple, table: &PolicyTable) -> Result<Value, Refusal> {
        let service = alive(&self.proxy)?.explain(flow);
        let endpoints: Vec<SocketAddr> = match (service.outcome, service.chosen) {
            ("pass", _) => vec![flow.dst],
            ("balance", Some(chosen)) => vec![chosen],
            ("balance", None) => service.candidates.iter().map(|candidate| candidate.address).collect(),
            _ => Vec::new(),
        };
        let mut verdicts = Vec::new();
        let mut allowed = 0;
        for dst in endpoints {
            let src = service.snat.map_or(flow.src, |snat| SocketAddr::new(snat, flow.src.port()));
            let translated = FiveTuple { protocol: flow.protocol, src, dst };
            let explanation = table.explain(&NewFlow { original: *flow, translated, from: PortTag(0), to: PortTag(0) });
            allowed += usize::from(explanation.allowed);
            verdicts.push(explanation);
        }
        // Where nothing is enforced, everything passes, and what policies say is only told.
        let unenforced = self.profile.warning();
        if unenforced.is_some() {
            allowed = verdicts.len();
        }
        let outcome = match (verdicts.len(), allowed) {
            (0, _) if service.outcome == "reject" => "Rejected",
            (0, _) => "Dropped",
            (all, allowed) if all == allowed => "Allowed",
            (_, 0) => "Denied",
            _ => "PartlyAllowed",
        };
        let verdicts = match unenforced {
            Some(_) => verdicts.iter().map(|explanation| self.told_only(explanation)).collect(),
            None => json!(verdicts),
        };
        let mut judged = json!({
            "allowed": outcome == "Allowed",
            "outcome": outcome,
            "source": {"address": flow.src.ip(), "pod": self.pod_at(flow.src.ip()).map(|pod| full_name(&pod))},
            "destination": {"address": flow.dst},
            "service": service,
            "verdicts": verdicts,
        });
        if let Some(warning) = unenforced {
            judged["warnings"] = json!([warning]);
        }
        Ok(judged)
    }

    /// An explanation whose refusals have no effect.
    fn told_only(&self, explanation: &Explanation) -> Value {
        let mut verdict = json!(explanation);
        verdict["allowed"] = true.into();
        verdict["reason"] = Value::Null;
        for direction in ["egress", "ingress"] {
            let report = &mut verdict[direction];
            if report["ruling"] == "Denied" {
                let why = report["why"].as_str().unwrap_or_default();
                report["why"] = format!("not enforced by {}; elsewhere: {why}", self.profile.name()).into();
                report["ruling"] = "NotEnforced".into();
            }
        }
        verdict
    }
}
