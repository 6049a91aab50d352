//! What a container or a whole pod asks for and is limited to, per resource; for LimitRanges and quotas.
//!
//! Follows `k8s.io/component-helpers/resource`: sidecars (KEP-753), amounts of the pod as a whole (KEP-2837), overhead (KEP-688).

use crate::schema::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by the name of the resource.
pub(super) type Resources = BTreeMap<String, Quantity>;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Amounts {
    pub(super) requests: Resources,
    pub(super) limits: Resources,
}

/// The map of amounts that `value` is.
pub(super) fn quantities(value: &Value) -> Resources {
    let amounts = value.as_object().into_iter().flatten();
    amounts.filter_map(|(resource, amount)| Some((resource.clone(), Quantity::parse(amount.as_str()?)?))).collect()
}

/// One more of `resource`. What is zero so far takes the other's form.
pub(super) fn add(to: &mut Resources, resource: &str, amount: Quantity) {
    let sum = match to.get(resource) {
        Some(known) if known.nanos() != 0 => known.plus(amount),
        _ => amount,
    };
    to.insert(resource.to_owned(), sum);
}

fn add_all(to: &mut Resources, from: &Resources) {
    from.iter().for_each(|(resource, amount)| add(to, resource, *amount));
}

fn at_least(this: &mut Resources, that: &Resources) {
    for (resource, amount) in that {
        if this.get(resource).is_none_or(|known| known.nanos() < amount.nanos()) {
            this.insert(resource.clone(), *amount);
        }
    }
}

impl Amounts {
    /// Of a container, or of a claim's spec.
    pub(super) fn of(container: &Value) -> Self {
        let resources = &container["resources"];
        Amounts { requests: quantities(&resources["requests"]), limits: quantities(&resources["limits"]) }
    }

    /// Of all containers and sidecars together, or of the init container that needs more beside the sidecars before it; amounts for
    /// the pod as a whole take the place of both.
    pub(super) fn of_pod(spec: &Value) -> Self {
        let of = |field: &str| spec[field].as_array().into_iter().flatten();
        let (mut all, mut sidecars, mut most) = (Amounts::default(), Amounts::default(), Amounts::default());
        for container in of("containers").map(Amounts::of) {
            all.add(&container);
        }
        for container in of("initContainers") {
            let own = Amounts::of(container);
            if container["restartPolicy"] == "Always" {
                all.add(&own);
                sidecars.add(&own);
            } else {
                let mut beside = sidecars.clone();
                beside.add(&own);
                at_least(&mut most.requests, &beside.requests);
                at_least(&mut most.limits, &beside.limits);
            }
        }
        at_least(&mut all.requests, &most.requests);
        at_least(&mut all.limits, &most.limits);
        let whole = Amounts::of(spec);
        all.requests.extend(whole.requests);
        all.limits.extend(whole.limits);
        all
    }

    /// The same with the pod's overhead, which counts as asked for, and on top of limits that there are.
    pub(super) fn of_pod_with_overhead(spec: &Value) -> Self {
        let mut all = Amounts::of_pod(spec);
        for (resource, amount) in quantities(&spec["overhead"]) {
            add(&mut all.requests, &resource, amount);
            if all.limits.contains_key(&resource) {
                add(&mut all.limits, &resource, amount);
            }
        }
        all
    }

    fn add(&mut self, other: &Amounts) {
        add_all(&mut self.requests, &other.requests);
        add_all(&mut self.limits, &other.limits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cpu(amount: &str) -> Value {
        json!({"resources": {"requests": {"cpu": amount}}})
    }

    #[test]
    fn a_pod_needs_what_its_containers_need_together_or_an_init_container_alone() {
        let sum = |init: Value| {
            let spec = json!({"containers": [cpu("500m"), cpu("1")], "initContainers": init});
            Amounts::of_pod(&spec).requests["cpu"].canonical()
        };
        assert_eq!(sum(json!([cpu("1")])), "1500m");
        assert_eq!(sum(json!([cpu("2")])), "2");
        let mut sidecar = cpu("1");
        sidecar["restartPolicy"] = "Always".into();
        assert_eq!(sum(json!([sidecar.clone()])), "2500m", "a sidecar runs beside the containers");
        assert_eq!(sum(json!([sidecar, cpu("2")])), "3", "and beside later init containers");
    }

    #[test]
    fn amounts_of_the_whole_pod_take_the_place_of_its_containers_and_overhead_comes_on_top() {
        let spec = json!({"containers": [cpu("500m")], "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "3"}},
            "overhead": {"cpu": "250m", "memory": "8Mi"}});
        let all = Amounts::of_pod_with_overhead(&spec);
        assert_eq!((all.requests["cpu"].canonical(), all.limits["cpu"].canonical()), ("2250m".into(), "3250m".into()));
        assert_eq!(all.requests["memory"].canonical(), "8Mi");
        assert!(!all.limits.contains_key("memory"), "what is not limited stays so");
    }
}
