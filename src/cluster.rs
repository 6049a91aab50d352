//! The whole cluster in this process: started from the store upwards, stopped in reverse.
//!
//! Only wiring: which component gets which informer, identity, address and hook. What they do is in their crates.

use crate::addresses::Addresses;
use crate::answered::PolicyAnswers;
use crate::bootstrap;
use crate::builder::Builder;
use crate::cni_profile;
use crate::dns_faults::DnsFaults;
#[cfg(target_os = "linux")]
use crate::host_network;
use crate::host_network::HostNetwork;
use crate::host_ports::{HostPorts, Reporter};
use crate::identities;
use crate::in_process::{self, client};
use crate::introspection;
use crate::nodes::{Nodes, PolicyGate};
use crate::pki::Pki;
use crate::residents::Residents;
use crate::signer::ClusterSigner;
use crate::snapshot;
use anyhow::{Context, Result};
use apiserver::ApiServer;
use apiserver::admission::Admission;
use apiserver::authentication::TokenAuthenticator;
use apiserver::authn::UserInfo;
use apiserver::authz::{Authorizer, Union};
use apiserver::certificate_requests::CertificateRequests;
use apiserver::node_authorizer::NodeAuthorizer;
use apiserver::node_restriction::NodeRestriction;
use apiserver::rbac::Rbac;
use apiserver::rbac_escalation::RbacEscalation;
use apiserver::server::Server;
use apiserver::tokens::BoundObject;
use controllers::{Clients, Controllers, SecretAccount, SecretTokens};
use dns::Dns;
use informer::{Activity, Informers};
use kubelet::resolv_conf::ClusterDns;
use kubelet::{Clock, Functions, Kubelet};
use netstack::{Gateway, GatewayConfig, Hooks, Host, Network};
use policy::Policy;
use proxy::Proxy;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use store::{EmbeddedStore, MemoryStore, Store};
use tokio::task::JoinSet;

/// The Kubernetes version that is served.
pub const KUBERNETES_VERSION: &str = "v1.36.0";

/// Zone of the cluster's names.
pub const ZONE: &str = "cluster.local";

/// Events are forgotten after an hour, as upstream's are.
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// Quotas are counted anew this often, as upstream's are, though every write keeps them.
const QUOTA_RESYNC: Duration = Duration::from_secs(300);

/// How long the cluster's DNS may take at the start, how long each answer is waited for, and the pause after a refusal: its pod
/// may still be waiting for a controller's next try.
const DNS_TIMEOUT: Duration = Duration::from_secs(30);
const DNS_PATIENCE: Duration = Duration::from_millis(500);
const DNS_PAUSE: Duration = Duration::from_millis(10);

/// Most nodes that fit into the address plan.
const MOST_NODES: u32 = 200;

impl Builder {
    /// Like [`Builder::start`]; `progress` is told each component as it is up.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start_with(mut self, progress: impl Fn(&str)) -> Result<Cluster> {
        anyhow::ensure!(
            (1..=MOST_NODES).contains(&self.nodes),
            "nodes: invalid value {}: must be between 1 and {MOST_NODES}",
            self.nodes
        );
        let listener = match self.api {
            Some(address) => Some(
                tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?,
            ),
            None => None,
        };
        let profile = self.cni_profile;
        self.addresses = profile.addresses(self.addresses);
        let dns_sockets = self.dns.sockets().await?;
        let seed = self.seed.unwrap_or_else(rand::random);
        let start = k8s_openapi::jiff::Timestamp::now();
        let clock = Clock::starting_at(start);
        let (store, embedded, archive) = open_store(self.data_dir.as_deref()).await?;
        progress("store");

        let pki = Pki::load(
            self.data_dir.as_deref(),
            &self.addresses,
            self.nodes,
            listener.as_ref().and_then(|listener| listener.local_addr().ok()),
        )?;
        let rbac = Rbac::start(store.clone()).await;
        let node_authorizer = NodeAuthorizer::start(store.clone()).await;
        let authorizer: Arc<dyn Authorizer> = Arc::new(Union(vec![Arc::new(node_authorizer), Arc::new(rbac.clone())]));
        let access: [Arc<dyn Admission>; 4] = [
            Arc::new(DnsFaults),
            Arc::new(NodeRestriction),
            Arc::new(RbacEscalation { rbac, authorizer: authorizer.clone() }),
            Arc::new(CertificateRequests { authorizer: authorizer.clone() }),
        ];
        let tokens =
            Arc::new(TokenAuthenticator::new(store.clone(), pki.signer.clone(), pki.admin_token.clone(), move || {
                clock.now()
            }));
        let config = apiserver::Config {
            seed: self.seed,
            start,
            authenticator: tokens.clone(),
            authorizer: authorizer.clone(),
            admission: access.into_iter().chain(apiserver::admission::standard()).chain(profile.admission()).collect(),
            ..apiserver::Config::default()
        };
        let networking = apiserver::kinds::Networking {
            service_cidrs: self
                .addresses
                .service_networks()
                .into_iter()
                .map(|(address, prefix)| apiserver::kinds::Cidr { address, prefix })
                .collect(),
            dual_stack: self.addresses.ipv6.is_some(),
            seed,
            ..apiserver::kinds::Networking::default()
        };
        let api = ApiServer::new(store.clone(), apiserver::kinds::registry(networking), config);
        apiserver::install_defaults(&api, &tokens, &pki.signer);
        api.follow_flow_control().await;
        api.add_routes(snapshot::routes(archive));
        let found =
            api.repair().await.map_err(|why| anyhow::anyhow!("allocations cannot be checked: {}", why.message))?;
        bootstrap::objects(&api, &self.addresses, self.nodes)
            .await
            .context("the cluster's own objects cannot be written")?;
        progress("apiserver");

        let activity = Activity::default();
        let informers = Informers::new(client(&api, identities::controller_manager()), activity.clone());
        let own = bootstrap::keep_own_objects(api.clone(), informers.clone(), self.addresses.clone());
        let network = Network::new(netstack::Config { mtu: profile.mtu(), seed });
        let mut tasks = JoinSet::new();
        let expiring = api.clone();
        tasks.spawn(async move { expiring.expire_events(EVENT_TTL).await });
        let counting = api.clone();
        tasks.spawn(async move { counting.keep_quotas(QUOTA_RESYNC).await });
        tasks.spawn(bootstrap::keep_repaired(api.clone(), found));
        tasks.spawn(own);
        tasks.spawn(pki.keep_serving());
        let kept = api.clone();
        tasks.spawn(async move { kept.keep_flow_control().await });
        let nodes: Vec<(String, Vec<IpAddr>)> =
            (1..=self.nodes).map(|index| (format!("node-{index}"), self.addresses.node_addresses(index))).collect();
        let gateway_addresses = self.addresses.gateways();
        let inside = self.addresses.inside();
        let gateway = network
            .attach_gateway(GatewayConfig {
                addresses: gateway_addresses.clone(),
                aliases: self.addresses.hosts(),
                inside: inside.clone(),
                forward: self.forward_outside,
            })
            .context("the gateway cannot be attached")?;
        let proxy = Arc::new(proxy::start(
            &informers,
            network.clone(),
            proxy::Config {
                service_cidrs: self.addresses.service_networks(),
                cluster_cidrs: profile.pod_networks(&self.addresses, self.nodes),
                gateway_addresses,
                seed,
            },
        ));
        let progress_api = api.clone();
        let request_progress: Arc<dyn Fn() + Send + Sync> = Arc::new(move || progress_api.request_progress());
        let policy = Arc::new(policy::start(
            &informers,
            network.clone(),
            policy::Config {
                node_addresses: nodes.iter().flat_map(|(name, ips)| ips.iter().map(|ip| (name.clone(), *ip))).collect(),
                cluster_network_policies: true,
                request_progress,
                denial: self.deny_mode,
                established: self.policy_established,
                // Where policies have no effect, nobody says in their status that they have.
                reports: profile.enforces_policies().then(|| policy::Reports {
                    client: client(&api, identities::component("network-policy-controller")),
                    now: Arc::new(move || clock.now()),
                }),
            },
        ));
        network.install(Hooks { translate: proxy.translator(), filter: profile.filter(policy.filter()) });
        progress("network");

        let node_resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut dns_config = dns::Config::new(ZONE);
        dns_config.seed = seed;
        let machine = |(inside, _)| ("host.coracle.internal".to_owned(), inside);
        dns_config.hosts = self.addresses.hosts().into_iter().map(machine).collect();
        let usual = if self.forward_outside { dns::upstreams(&node_resolv_conf) } else { Vec::new() };
        self.dns.apply(&mut dns_config, usual);
        dns_config.listener = Some(Arc::new(PolicyAnswers::new(&policy, ZONE)));
        let dns = Arc::new(dns::start(&informers, dns_config));
        let dns_address = dns_sockets.as_ref().and_then(|sockets| sockets.local_addr().ok());
        if let Some(sockets) = dns_sockets {
            let serving = dns.clone();
            tasks.spawn(async move {
                if let Err(error) = serving.serve_machine(sockets).await {
                    tracing::warn!(%error, "DNS is no longer reachable on the machine");
                }
            });
        }
        let functions = Functions::default();
        functions.insert(bootstrap::DNS_FUNCTION, Arc::new(in_process::DnsServer(dns.clone())));
        progress("dns");

        let controllers = controllers::start(
            client(&api, identities::controller_manager()),
            informers.clone(),
            controllers::Config {
                seed,
                clock: controllers::Clock::starting_now(),
                ca_pem: pki.authority.certificate().to_owned(),
                load_balancer_pool: self.addresses.load_balancer_networks(),
                clients: Some(Clients(Arc::new({
                    let api = api.clone();
                    move |component| client(&api, identities::component(component))
                }))),
                certificates: Some(Arc::new(ClusterSigner(pki.authority.clone()))),
                secret_tokens: Some(SecretTokens(Arc::new({
                    let signer = pki.signer.clone();
                    move |account: &SecretAccount<'_>| {
                        let bound = BoundObject { name: account.name.to_owned(), uid: account.uid.to_owned() };
                        signer.sign_for_secret(account.namespace, &bound, account.secret).map_err(|why| why.message)
                    }
                }))),
            },
        );
        progress("controllers");

        let node_searches =
            if self.forward_outside { kubelet::resolv_conf::searches(&node_resolv_conf) } else { Vec::new() };
        let cluster_dns =
            ClusterDns { service: self.addresses.dns().into(), zone: ZONE.to_owned(), node_searches, node_resolv_conf };
        let tags = Arc::new(AtomicU64::new(1));
        let residents = Arc::new(Residents::default());
        let gate = Arc::new(PolicyGate {
            policy: policy.clone(),
            residents: residents.clone(),
            dns: dns.clone(),
            cluster_dns: cluster_dns.clone(),
        });
        let mut kubelets = Vec::new();
        for (index, (name, ips)) in (1..).zip(&nodes) {
            let config = kubelet::Config {
                node_name: name.clone(),
                node_ips: ips.clone(),
                pod_networks: self.addresses.pod_networks_of(index),
                labels: profile.node_labels(index),
                capacity: (4, 8 << 30, profile.pods_per_node()),
                dns: cluster_dns.clone(),
                clock,
                functions: functions.clone(),
                programs: kubelet::programs::builtins(),
                hooks: gate.clone(),
                tags: tags.clone(),
                version: KUBERNETES_VERSION.to_owned(),
            };
            let identity = client(&api, identities::node(name));
            kubelets.push(Kubelet::start(config, identity, &informers, network.clone()).await?);
        }
        let node_hosts: Vec<Host> = kubelets.iter().map(|kubelet| kubelet.host().clone()).collect();
        tasks.spawn(proxy.serve_health_checks(node_hosts.clone()));
        tasks.spawn(proxy.serve_node_health(node_hosts, move || clock.now()));
        let nodes = Arc::new(Nodes::new(kubelets, gateway.host()));
        api.set_pod_streams(nodes.clone());
        let asked = (&proxy, &policy, &dns, &nodes);
        let known = (residents, self.addresses.gateway.into(), profile);
        let events = client(&api, identities::component("network-policy-events"));
        if let Some(warning) = profile.warning() {
            tasks
                .spawn(cni_profile::tell_not_enforced(informers.clone(), events.clone(), warning, move || clock.now()));
        }
        let reader = client(&api, identities::controller_manager());
        let parts = (cluster_dns, inside);
        let sources = introspection::Sources::new(&informers, network.clone(), parts, asked, known, reader);
        tasks.spawn(introspection::install(&api, sources, events));
        progress("nodes");

        let mut server = Server::new(api.router(), pki.tls()?);
        let listening = gateway.host().tcp_listen(in_process::API_PORT).context("the API's port inside the network")?;
        tasks.spawn(in_process::serve_inside(listening, server.endpoint()));
        let api_address = match listener {
            Some(listener) => Some(server.listen_tcp(listener).context("the API's listener")?),
            None => None,
        };
        if let Some(path) = &self.unix_socket {
            server.listen_unix(path).with_context(|| format!("cannot listen on the unix socket {}", path.display()))?;
        }
        if self.host_ports {
            let ports = HostPorts::new(gateway.host(), proxy.external_frontends(), &self.addresses);
            let reporter = Reporter {
                client: client(&api, identities::component("host-port-controller")),
                services: informers.of(),
                pods: informers.of(),
                sides: ports.sides(),
                clock,
            };
            tasks.spawn(reporter.run());
            tasks.spawn(ports.run());
        }
        let host_device = match self.host_network {
            HostNetwork::Loopback => None,
            #[cfg(target_os = "linux")]
            HostNetwork::Tun => {
                let attached = host_network::Attached::new(&network, &self.addresses, profile.mtu(), ZONE).await?;
                let device = attached.device().to_owned();
                tasks.spawn(attached.run());
                Some(device)
            }
            #[cfg(not(target_os = "linux"))]
            HostNetwork::Tun => anyhow::bail!("host network: unsupported value \"tun\": it exists on Linux only"),
        };
        let admin = client(&api, UserInfo::admin());
        let cluster = Cluster {
            api,
            admin,
            informers,
            activity,
            network,
            gateway,
            functions,
            pki,
            api_address,
            dns_address,
            host_device,
            addresses: self.addresses,
            embedded,
            unix_socket: self.unix_socket,
            running: Some(Running { server, nodes, controllers, proxy, policy, dns, tasks }),
        };
        cluster.wait_for_dns().await.context("DNS does not answer")?;
        progress("ready");
        Ok(cluster)
    }
}

/// The store as the API server sees it, as what has to be closed if it is on disk, and as what can be saved.
async fn open_store(dir: Option<&Path>) -> Result<(Arc<dyn Store>, Option<EmbeddedStore>, snapshot::Source)> {
    let Some(dir) = dir else {
        let store = MemoryStore::new();
        let saved = store.clone();
        return Ok((Arc::new(store), None, Arc::new(move || saved.archive())));
    };
    let path = dir.join("store");
    // Opening reads the log and the checkpoint: not on an async worker.
    let opened = tokio::task::spawn_blocking({
        let path = path.clone();
        move || EmbeddedStore::open(path, store::Options::default())
    });
    let store = opened.await?.with_context(|| format!("the store in {} cannot be opened", path.display()))?;
    let saved = store.clone();
    Ok((Arc::new(store.clone()), Some(store), Arc::new(move || saved.archive())))
}

struct Running {
    server: Server,
    nodes: Arc<Nodes>,
    controllers: Controllers,
    proxy: Arc<Proxy>,
    policy: Arc<Policy>,
    dns: Arc<Dns>,
    tasks: JoinSet<()>,
}

/// A running cluster. [`Cluster::stop`] ends it and waits; dropping it ends it without waiting.
pub struct Cluster {
    api: ApiServer,
    admin: kube::Client,
    informers: Informers,
    activity: Activity,
    network: Network,
    gateway: Gateway,
    functions: Functions,
    pki: Pki,
    api_address: Option<SocketAddr>,
    dns_address: Option<SocketAddr>,
    host_device: Option<String>,
    addresses: Addresses,
    embedded: Option<EmbeddedStore>,
    unix_socket: Option<PathBuf>,
    running: Option<Running>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("api", &self.api_address).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster with the defaults: two nodes, in memory, reachable from this process only.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client with all rights, in process.
    pub fn client(&self) -> kube::Client {
        self.admin.clone()
    }

    /// A client who is this user in these groups: to see what RBAC allows them.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        client(&self.api, UserInfo::new(user, groups))
    }

    /// The API as an HTTP service with all rights, for requests that no typed client sends.
    pub fn router(&self) -> axum::Router {
        self.api.router_as(UserInfo::admin())
    }

    /// Where the API listens on the machine, if it does.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api_address
    }

    /// Where the cluster's DNS answers on the machine, if it does.
    pub fn dns_address(&self) -> Option<SocketAddr> {
        self.dns_address
    }

    /// The machine's TUN device on the cluster's network, if it has one.
    pub fn host_device(&self) -> Option<&str> {
        self.host_device.as_deref()
    }

    /// The owner's unix socket, if there is one.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.unix_socket.as_deref()
    }

    /// A kubeconfig with all rights for clients outside this process.
    pub fn kubeconfig(&self, name: &str) -> Option<String> {
        Some(self.pki.kubeconfig(name, self.api_address?))
    }

    /// The bearer token of the owner.
    pub fn admin_token(&self) -> &str {
        &self.pki.admin_token
    }

    /// The network: captures, flows, further hosts.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// A host beside the nodes, outside the pods: dials pods, Services and node ports as a client from outside would.
    pub fn outside(&self) -> Host {
        self.gateway.host()
    }

    /// The address plan.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Makes a program the image `coracle.dev/function/<name>`, for pods that run it in this process.
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Waits for ever, unless the store on disk has to stop; then says why.
    pub async fn store_failed(&self) -> String {
        match &self.embedded {
            Some(store) => store.stopped().await.to_string(),
            None => std::future::pending().await,
        }
    }

    pub(crate) fn api(&self) -> &ApiServer {
        &self.api
    }

    pub(crate) fn nodes(&self) -> Option<&Arc<Nodes>> {
        self.running.as_ref().map(|running| &running.nodes)
    }

    /// Waits until everything that has been written has had all its consequences: every informer has followed the store to its
    /// newest revision and no component has work in hand. What waits for time to pass (a probe, a back-off) is not waited for.
    pub async fn settled(&self) {
        loop {
            let revision = self.api.revision();
            self.api.request_progress();
            self.informers.applied(revision.0).await;
            self.activity.idle().await;
            // Let tasks that have just been woken take their work in hand.
            tokio::task::yield_now().await;
            if self.api.revision() == revision && self.activity.working() == 0 {
                return;
            }
        }
    }

    /// Asks the cluster's DNS for the API's own name, over the network and through its Service, until it answers.
    async fn wait_for_dns(&self) -> Result<()> {
        self.settled().await;
        let socket = self.gateway.host().udp_bind(0)?;
        let server = SocketAddr::from((self.addresses.dns(), 53));
        let question = in_process::dns_question(&format!("kubernetes.default.svc.{ZONE}"));
        let mut answer = [0; 512];
        let answered = async {
            loop {
                socket.send_to(&question, server).await?;
                match tokio::time::timeout(DNS_PATIENCE, socket.recv_from(&mut answer)).await {
                    Ok(Ok((length, _))) if in_process::answers(&question, &answer[..length]) => return Ok(()),
                    Ok(_) => tokio::time::sleep(DNS_PAUSE).await,
                    Err(_) => {}
                }
            }
        };
        let timeout = || anyhow::anyhow!("{server} has not answered within {} s", DNS_TIMEOUT.as_secs());
        tokio::time::timeout(DNS_TIMEOUT, answered).await.unwrap_or_else(|_| Err(timeout()))
    }

    /// Stops everything, in reverse order, and waits for it. The state on disk is complete.
    pub async fn stop(mut self) {
        if let Some(mut running) = self.running.take() {
            running.tasks.shutdown().await;
            self.api.stop();
            running.server.stop().await;
            running.nodes.stop().await;
            running.controllers.stop().await;
            drop((running.dns, running.policy, running.proxy));
        }
        self.informers.stop();
        self.network.stop();
        if let Some(store) = self.embedded.take() {
            store.close().await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.informers.stop();
        self.network.stop();
    }
}
