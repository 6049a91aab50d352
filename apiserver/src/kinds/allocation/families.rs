//! Which IP families a Service gets: `ipFamilyPolicy` and `ipFamilies` from what the user said and the cluster has.
//!
//! Follows KEP-563; the order of the checks and their texts are those of upstream's allocator, since users read them.

use super::Allocator;
use crate::kinds::field::invalid;
use crate::kinds::json::{is_unset, list, same, text, texts};
use crate::kinds::names::Cidr;
use crate::kinds::service::{is_headless, service_type};
use crate::status::FieldError;
use serde_json::{Value, json};

const POLICY: &str = "spec.ipFamilyPolicy";

fn family_of(ip: &str) -> &'static str {
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}

fn other_family(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

impl Allocator {
    fn default_family(&self) -> &'static str {
        if self.networks.first().is_none_or(|network| network.address.is_ipv4()) { "IPv4" } else { "IPv6" }
    }

    fn has_family(&self, family: &str) -> bool {
        self.networks.iter().any(|Cidr { address, .. }| (if address.is_ipv4() { "IPv4" } else { "IPv6" }) == family)
    }

    /// Fills in policy and families, or says why they cannot be had.
    pub(super) fn settle_families(&self, new: &mut Value, old: Option<&Value>) -> Result<(), Vec<FieldError>> {
        if service_type(new) == "ExternalName" {
            return Ok(());
        }
        let old = old.filter(|old| service_type(old) != "ExternalName");
        // What prefers two families stays as it is when the cluster changes; only the user's own change counts.
        if let Some(old) = old
            && text(new, "/spec/ipFamilyPolicy") == "PreferDualStack"
            && text(old, "/spec/ipFamilyPolicy") == "PreferDualStack"
            && same(new, old, "/spec/clusterIPs")
            && same(new, old, "/spec/ipFamilies")
        {
            return Ok(());
        }
        let headless = is_headless(new);
        let selectorless = is_unset(new, "/spec/selector");
        if is_unset(new, "/spec/ipFamilyPolicy") {
            let before = old.map(|old| text(old, "/spec/ipFamilyPolicy")).filter(|policy| !policy.is_empty());
            new["spec"]["ipFamilyPolicy"] = match before {
                Some(policy) => policy.into(),
                None if headless && selectorless => "RequireDualStack".into(),
                None => "SingleStack".into(),
            };
        }
        let policy = text(new, "/spec/ipFamilyPolicy").to_owned();
        let single = policy == "SingleStack";
        let complaint = |detail: &str| invalid(POLICY, &policy, detail);
        let mut errors = Vec::new();

        if let Some(old) = old {
            for (field, thing) in [("/spec/clusterIPs", "cluster IP"), ("/spec/ipFamilies", "IP family")] {
                if single {
                    // Nothing changed but the policy: the second goes.
                    if same(new, old, field)
                        && let Some(items) = new.pointer_mut(field).and_then(Value::as_array_mut)
                    {
                        items.truncate(1);
                    }
                } else if list(old, field).len() == 2
                    && list(new, field).len() == 1
                    && list(old, field)[0] == list(new, field)[0]
                {
                    errors.push(complaint(&format!("must be 'SingleStack' to release the secondary {thing}")));
                }
            }
        }
        if single {
            for (field, things) in [("/spec/clusterIPs", "cluster IPs"), ("/spec/ipFamilies", "IP families")] {
                if list(new, field).len() == 2 {
                    let must = "must be 'RequireDualStack' or 'PreferDualStack' when multiple";
                    errors.push(complaint(&format!("{must} {things} are specified")));
                }
            }
        }
        let ips = texts(new, "/spec/clusterIPs");
        let mut families: Vec<String> = texts(new, "/spec/ipFamilies").into_iter().map(str::to_owned).collect();
        if !headless {
            for (index, ip) in ips.iter().enumerate().skip(families.len()) {
                let family = family_of(ip);
                if self.has_family(family) {
                    families.push(family.to_owned());
                } else {
                    let detail = format!("{family} is not configured on this cluster");
                    errors.push(FieldError::invalid(format!("spec.clusterIPs[{index}]"), &json!(ips), detail));
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let dual = self.networks.len() > 1;
        // Endpoints that the user brings himself may be of any family, whatever the cluster's Services have.
        let anything_goes = headless && selectorless;
        if !anything_goes {
            if policy == "RequireDualStack" && !dual {
                errors.push(complaint("this cluster is not configured for dual-stack services"));
            }
            for (index, family) in families.iter().enumerate().filter(|(_, family)| !self.has_family(family)) {
                let field = format!("spec.ipFamilies[{index}]");
                errors.push(invalid(field, family, "not configured on this cluster"));
            }
            if !errors.is_empty() {
                return Err(errors);
            }
        }
        if families.is_empty() {
            families.push(self.default_family().to_owned());
        }
        if !single && families.len() == 1 && (dual || anything_goes) {
            let second = other_family(&families[0]).to_owned();
            families.push(second);
        }
        new["spec"]["ipFamilies"] = families.into();
        Ok(())
    }
}
