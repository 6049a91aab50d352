//! The stand-in for an image that is not run (to be filled by the programs' author).

use crate::program::{Container, ExitStatus, Program};
use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;
use std::sync::Arc;

struct StandIn;

#[async_trait]
impl Program for StandIn {
    async fn run(&self, _container: Container) -> ExitStatus {
        std::future::pending().await
    }
}

/// The program.
pub fn program() -> Arc<dyn Program> {
    Arc::new(StandIn)
}

/// Its arguments for a container: the ports it declares, as `tcp:8080` and `udp:53`.
pub fn arguments(container: &core::Container) -> Vec<String> {
    let ports = container.ports.iter().flatten();
    let args = ports
        .map(|port| format!("{}:{}", port.protocol.as_deref().unwrap_or("TCP").to_lowercase(), port.container_port));
    std::iter::once("standin".to_owned()).chain(args).collect()
}
