//! One event of the flow log as it is told: to whom it is about, and what of it somebody may see who may see one namespace only.

use serde_json::Value;

/// Who the event is about, to choose by.
pub(super) struct Told {
    pub(super) record: Value,
    /// `NAMESPACE/NAME` of the pods at its ends.
    pub(super) pods: Vec<String>,
    /// The namespaces of the source and the destination, and their nodes.
    pub(super) ends: [Option<(String, String)>; 2],
}

impl Told {
    /// The record for whoever may ask in these namespaces only.
    ///
    /// Of a pod elsewhere he is told its namespace and name, since without those he could neither write a policy for it nor ask
    /// its owner, and the Events of his own pods name it too. Its labels are not his to see, nor what is made of them (the
    /// identity), nor its workload and its node; of others' policies he is told nothing.
    pub(super) fn redacted(self, namespaces: &[String]) -> Value {
        let Told { mut record, ends, .. } = self;
        let is_own = |namespace: &str| namespaces.iter().any(|own| own == namespace);
        let flow = &mut record["flow"];
        for (end, of) in ["source", "destination"].into_iter().zip(&ends) {
            let elsewhere = of.as_ref().is_some_and(|(namespace, _)| !is_own(namespace));
            if elsewhere && let Some(end) = flow[end].as_object_mut() {
                ["identity", "labels", "workloads"].iter().for_each(|field| drop(end.remove(*field)));
            }
        }
        let mut hidden = false;
        for list in ["egress_allowed_by", "egress_denied_by", "ingress_allowed_by", "ingress_denied_by"] {
            let Some(policies) = flow.get_mut(list).and_then(Value::as_array_mut) else { continue };
            let before = policies.len();
            policies.retain(|policy| policy["namespace"].as_str().is_none_or(is_own));
            hidden |= policies.len() < before;
        }
        // The node is that of an end of his own, as if the other were outside.
        let node = ends.iter().flatten().rev().find(|(namespace, _)| is_own(namespace)).map(|(_, node)| node.clone());
        flow["node_name"] = node.clone().into();
        record["node_name"] = node.into();
        if hidden && let Some(ours) = record["coracle"].as_object_mut() {
            ours.remove("why");
        }
        record
    }
}
