//! The command line.

use coracle::Cluster;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let start = std::time::Instant::now();
    let cluster = Cluster::builder()
        .api("127.0.0.1:0".parse()?)
        .unix_socket("/tmp/coracle.sock")
        .host_ports(true)
        .forward_outside(true)
        .start_with(|what| eprintln!("{what} {:?}", start.elapsed()))
        .await?;
    std::fs::write("/tmp/coracle.kubeconfig", cluster.kubeconfig("coracle").unwrap_or_default())?;
    tokio::signal::ctrl_c().await?;
    cluster.stop().await;
    Ok(())
}
