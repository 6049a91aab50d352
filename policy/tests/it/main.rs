//! What NetworkPolicies mean, rule by rule; the compiled rules beside a naive reading of them; and real connections.

mod dice;
mod domain_names;
mod live_properties;
mod naive;
mod network;
mod properties;
mod spec_11_network_policy;
mod spec_12_cluster_network_policy;
mod spec_13_explanation;
mod support;
