//! What Services mean, rule by rule: on tables alone, and with real connections through a network.

mod network;
mod node_health;
mod random;
mod spec_4_endpoint_slices;
mod spec_5_12_health_checks;
mod spec_5_choosing_an_endpoint;
mod spec_6_nat_and_conntrack;
mod spec_7_load_balancers;
mod storm;
mod support;
