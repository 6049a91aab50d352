//! The whole house, from outside: a cluster in this process or from the binary, and the clients people use, unmodified.

mod bad_input;
mod cli;
mod clients;
mod cni_profiles;
mod dns;
mod dns_log;
mod domain_names;
mod dual_stack;
mod fixture;
mod floors;
mod flow_log;
mod host_network;
mod host_side;
mod introspection;
mod kubectl;
mod least_rights;
mod pods;
mod policies;
mod proxy;
mod reachability_test;
mod snapshot;
mod spec_1_network_model;
mod streams;
mod support;
mod walk;
