//! The Kubernetes REST API over a [`store::Store`].
//!
//! A request's journey: `server` → `request` → `authn` → `authz` → [`registry`] → decode, default, admit, validate →
//! store transaction → encode. One generic handler for all kinds; what differs between kinds is a row of the registry.

pub mod kinds;
pub mod pod_streams;
pub mod registry;
pub mod status;
