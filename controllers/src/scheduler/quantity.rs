//! Resource quantities as numbers, and what a pod asks for in sum.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Amounts per resource, in thousandths of its unit.
pub(super) type Resources = BTreeMap<String, i128>;

/// The quantity in thousandths, rounded up; nothing if it is malformed (the API server does not let such pass).
pub(super) fn milli(quantity: &Quantity) -> i128 {
    parse(&quantity.0).unwrap_or(0)
}

fn parse(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    // As a fraction: value = numerator / denominator.
    let (mut numerator, mut denominator) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000_i128 << 40, 1),
        "Pi" => (1_000_i128 << 50, 1),
        "Ei" => (1_000_i128 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let ten = 10_i128.checked_pow(power.unsigned_abs())?;
            if power >= 0 { (ten.checked_mul(1_000)?, 1) } else { (1_000, ten) }
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let value: i128 = format!("{whole}{fraction}").parse().ok()?;
    denominator *= 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    numerator = value.checked_mul(numerator)?;
    let rounded = numerator.checked_add(denominator - 1)? / denominator;
    Some(if negative { -rounded } else { rounded })
}

fn add(to: &mut Resources, from: &Resources) {
    for (name, amount) in from {
        *to.entry(name.clone()).or_insert(0) += amount;
    }
}

fn at_least(this: &mut Resources, that: &Resources) {
    for (name, amount) in that {
        let present = this.entry(name.clone()).or_insert(0);
        *present = (*present).max(*amount);
    }
}

fn of_container(container: &Container) -> Resources {
    let requests = container.resources.iter().flat_map(|resources| resources.requests.iter().flatten());
    requests.map(|(name, quantity)| (name.clone(), milli(quantity))).collect()
}

/// What the pod needs: all containers and sidecars together, or the most any init container needs beside the sidecars
/// started before it, whichever is more; then its overhead.
pub(super) fn requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::new() };
    let mut sum = Resources::new();
    for container in &spec.containers {
        add(&mut sum, &of_container(container));
    }
    let (mut sidecars, mut most) = (Resources::new(), Resources::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
        } else {
            let mut with_sidecars = sidecars.clone();
            add(&mut with_sidecars, &own);
            at_least(&mut most, &with_sidecars);
        }
    }
    at_least(&mut sum, &most);
    // Resources of the pod as a whole take the place of its containers' (KEP-2837).
    for (name, quantity) in spec.resources.iter().flat_map(|resources| resources.requests.iter().flatten()) {
        sum.insert(name.clone(), milli(quantity));
    }
    for (name, quantity) in spec.overhead.iter().flatten() {
        *sum.entry(name.clone()).or_insert(0) += milli(quantity);
    }
    sum.retain(|_, amount| *amount > 0);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_with_every_suffix() {
        let cases = [
            ("1", 1_000),
            ("100m", 100),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("1k", 1_000_000),
            ("2e3", 2_000_000),
            ("1e-3", 1),
            ("1u", 1),
            ("128Mi", 134_217_728_000),
            ("-1", -1_000),
            ("nonsense", 0),
            ("", 0),
            ("1Zi", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(milli(&Quantity(text.to_owned())), expected, "{text}");
        }
    }

    #[test]
    fn a_pod_needs_its_containers_or_its_largest_init_container() {
        let container = |cpu: &str, restart: Option<&str>| json!({"name": cpu, "restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}});
        let cpu = |containers: serde_json::Value, init: serde_json::Value| {
            let pod = json!({"spec": {"containers": containers, "initContainers": init, "overhead": {"cpu": "10m"}}});
            requests(&serde_json::from_value(pod).expect("a Pod"))["cpu"]
        };
        assert_eq!(cpu(json!([container("1", None), container("500m", None)]), json!([container("1", None)])), 1_510);
        assert_eq!(cpu(json!([container("1", None)]), json!([container("3", None)])), 3_010);
        // A sidecar runs beside later init containers and beside the containers.
        assert_eq!(
            cpu(json!([container("1", None)]), json!([container("1", Some("Always")), container("3", None)])),
            4_010
        );
    }
}
