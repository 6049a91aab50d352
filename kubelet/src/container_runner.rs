//! The life of one container: configure, start, watch over, restart with back-off, stop.
//!
//! One runner per container, owned by the pod's worker ([`crate::pod_worker`]). It writes what happens into its [`Record`]
//! and tells the worker, which writes the pod's status.

use crate::environment;
use crate::files::Files;
use crate::kubelet::Shared;
use crate::logs::Log;
use crate::probe::{self, Outcome, Target};
use crate::program::ExitStatus;
use crate::sandbox::Sandbox;
use crate::virtual_runtime::{self, Instance, StartError, Surroundings};
use crate::volumes;
use informer::Working;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// kubelet's crash-loop back-off: 10 s doubled up to 5 min, forgotten after 10 min of running.
const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);
const BACK_OFF_RESET: Duration = Duration::from_secs(600);
/// How long to wait before a missing ConfigMap or Secret is looked for again.
const CONFIG_RETRY: Duration = Duration::from_secs(1);

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting { reason: &'static str, message: String },
    Running { since: Timestamp },
    Terminated(Termination),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Termination {
    pub(crate) exit_code: ExitStatus,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
}

/// Everything known of one container.
pub(crate) struct Record {
    pub(crate) image: String,
    pub(crate) state: State,
    pub(crate) last: Option<Termination>,
    pub(crate) restarts: i32,
    pub(crate) ready: bool,
    pub(crate) started: bool,
    /// It will not run again.
    pub(crate) finished: bool,
    pub(crate) instance: Option<Arc<Instance>>,
    pub(crate) log: Option<Log>,
    pub(crate) previous_log: Option<Log>,
}

impl Record {
    fn new(container: &core::Container) -> Self {
        Record {
            image: container.image.clone().unwrap_or_default(),
            state: State::Waiting { reason: "ContainerCreating", message: String::new() },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            finished: false,
            instance: None,
            log: None,
            previous_log: None,
        }
    }
}

/// The records of a pod's containers, by container name. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Records {
    records: Arc<Mutex<BTreeMap<String, Record>>>,
    changed: mpsc::UnboundedSender<Working>,
}

impl Records {
    pub(crate) fn new(
        containers: impl Iterator<Item = core::Container>,
        changed: mpsc::UnboundedSender<Working>,
    ) -> Self {
        let records = containers.map(|container| (container.name.clone(), Record::new(&container)));
        Records { records: Arc::new(Mutex::new(records.collect())), changed }
    }

    /// Adds an ephemeral container.
    pub(crate) fn add(&self, container: &core::Container) {
        self.records.lock().insert(container.name.clone(), Record::new(container));
    }

    pub(crate) fn read<T>(&self, name: &str, read: impl FnOnce(&Record) -> T) -> Option<T> {
        self.records.lock().get(name).map(read)
    }

    /// Changes a record and tells the worker.
    pub(crate) fn change(&self, name: &str, working: Working, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.lock().get_mut(name) {
            change(record);
        }
        let _ = self.changed.send(working);
    }
}

/// The order to stop: all containers get SIGTERM now and SIGKILL at the deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) deadline: Instant,
}

/// When a container that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// Why a run is over.
enum End {
    Exited(ExitStatus),
    Unhealthy(String),
    Stopped(Stop),
}

/// Runs one container until it will not run again.
pub(crate) struct Runner {
    pub(crate) kubelet: Arc<Shared>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) pod: watch::Receiver<Arc<core::Pod>>,
    pub(crate) spec: core::Container,
    pub(crate) restart: Restart,
    pub(crate) records: Records,
    pub(crate) stop: watch::Receiver<Option<Stop>>,
}

impl Runner {
    /// The last run's exit status; `working` is held until the first run has started.
    pub(crate) async fn run(mut self, working: Working) -> ExitStatus {
        let mut working = Some(working);
        let mut back_off = Duration::ZERO;
        let files = Files::new();
        loop {
            let busy = working.take().unwrap_or_else(|| self.kubelet.activity().begin());
            let instance = match self.start(&files).await {
                Ok(instance) => Arc::new(instance),
                Err(error) => {
                    self.change(busy, |record| {
                        record.state = State::Waiting { reason: error.reason, message: error.message.clone() };
                    });
                    self.kubelet.event(&self.pod(), "Warning", "Failed", &format!("Error: {}", error.message));
                    let delay = if error.reason == "RunContainerError" { LONGEST_BACK_OFF } else { CONFIG_RETRY };
                    if self.stopped_within(delay).await {
                        return self.finish_unstarted();
                    }
                    continue;
                }
            };
            let since = self.kubelet.now();
            let began = Instant::now();
            self.kubelet.event(&self.pod(), "Normal", "Started", &format!("Started container {}", self.spec.name));
            let startup = self.spec.startup_probe.is_some();
            let ready = !startup && self.spec.readiness_probe.is_none();
            self.change(busy, |record| {
                record.state = State::Running { since };
                // A restart counts when it happens, not while it is waited for.
                record.restarts += i32::from(record.last.is_some());
                record.previous_log = record.log.replace(instance.log.clone());
                record.instance = Some(instance.clone());
                record.started = !startup;
                record.ready = ready;
            });
            self.run_post_start_hook(&instance).await;
            let end = self.supervise(&instance).await;
            let busy = self.kubelet.activity().begin();
            let (exit_code, message) = match &end {
                End::Exited(code) => (*code, String::new()),
                End::Unhealthy(why) => {
                    let text = format!("Container {} failed liveness probe, will be restarted", self.spec.name);
                    self.kubelet.event(&self.pod(), "Normal", "Killing", &text);
                    let grace =
                        self.pod().spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
                    let deadline = Instant::now() + Duration::from_secs(grace.max(0) as u64);
                    (self.terminate(&instance, Stop { deadline }).await, why.clone())
                }
                End::Stopped(stop) => {
                    self.change(self.kubelet.activity().begin(), |record| record.ready = false);
                    (self.terminate(&instance, *stop).await, String::new())
                }
            };
            let reason = if exit_code == 0 { "Completed" } else { "Error" };
            let ended = Termination { exit_code, reason, message, started: since, finished: self.kubelet.now() };
            let stopping = matches!(end, End::Stopped(_)) || self.stop.borrow().is_some();
            let again = !stopping
                && match self.restart {
                    Restart::Always => true,
                    Restart::OnFailure => exit_code != 0,
                    Restart::Never => false,
                };
            if began.elapsed() > BACK_OFF_RESET {
                back_off = Duration::ZERO;
            }
            let name = self.spec.name.clone();
            self.change(busy, |record| {
                record.instance = None;
                record.ready = false;
                record.started = false;
                record.finished = !again;
                record.state = State::Terminated(ended.clone());
                if again {
                    record.last = Some(ended.clone());
                    if !back_off.is_zero() {
                        let message = format!("back-off {}s restarting failed container={name}", back_off.as_secs());
                        record.state = State::Waiting { reason: "CrashLoopBackOff", message };
                    }
                }
            });
            if !again {
                return exit_code;
            }
            if !back_off.is_zero() {
                let text = format!("Back-off restarting failed container {name}");
                self.kubelet.event(&self.pod(), "Warning", "BackOff", &text);
            }
            if self.stopped_within(back_off).await {
                self.change(self.kubelet.activity().begin(), |record| {
                    record.finished = true;
                    record.state = State::Terminated(ended);
                });
                return exit_code;
            }
            back_off = if back_off.is_zero() { FIRST_BACK_OFF } else { (back_off * 2).min(LONGEST_BACK_OFF) };
        }
    }

    fn pod(&self) -> Arc<core::Pod> {
        self.pod.borrow().clone()
    }

    fn change(&self, working: Working, change: impl FnOnce(&mut Record)) {
        self.records.change(&self.spec.name, working, change);
    }

    /// Waits, but not longer than until the order to stop; says whether that came.
    async fn stopped_within(&mut self, delay: Duration) -> bool {
        let stop = async { self.stop.wait_for(Option::is_some).await.is_ok() };
        tokio::time::timeout(delay, stop).await.unwrap_or(false)
    }

    fn finish_unstarted(&self) -> ExitStatus {
        let now = self.kubelet.now();
        let ended = Termination {
            exit_code: 137,
            reason: "ContainerStatusUnknown",
            message: "never started".into(),
            started: now,
            finished: now,
        };
        self.change(self.kubelet.activity().begin(), |record| {
            record.finished = true;
            record.state = State::Terminated(ended);
        });
        137
    }

    async fn start(&self, files: &Files) -> Result<Instance, StartError> {
        let pod = self.pod();
        let config_error =
            |error: environment::ConfigError| StartError { reason: "CreateContainerConfigError", message: error.0 };
        let pod_spec = pod.spec.as_ref().cloned().unwrap_or_default();
        let class = pod_spec.runtime_class_name.as_deref();
        let programs = self.kubelet.programs().clone();
        let mut resolved = virtual_runtime::resolve(&self.spec, class, &self.kubelet.config.functions, &programs)?;
        let references = self.kubelet.references(&pod).await.map_err(config_error)?;
        self.sandbox.fill_volumes(&self.kubelet, &pod, &references).await.map_err(config_error)?;
        for (path, content) in &resolved.files {
            files.mount(path, content.clone(), 0o755);
        }
        volumes::mount(&self.spec, files, &self.sandbox.volumes).map_err(config_error)?;
        files.mount("/etc/hosts", self.sandbox.hosts.clone(), 0o644);
        files.mount("/etc/resolv.conf", self.sandbox.resolv_conf.text.clone(), 0o644);
        files.mount("/etc/hostname", format!("{}\n", self.sandbox.hostname), 0o644);
        let links = pod_spec.enable_service_links.unwrap_or(true);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut base = vec![
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
            ("HOSTNAME".to_owned(), self.sandbox.hostname.clone()),
        ];
        if self.spec.tty == Some(true) {
            base.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        base.extend(resolved.env.iter().cloned());
        base.extend(environment::service_variables(&self.kubelet.services.list(), namespace, links));
        if resolved.stand_in {
            resolved.args.push(format!("--namespace={namespace}"));
            resolved.args.push(format!("--node={}", self.kubelet.config.node_name));
            let text = format!(
                "Image {:?} is not run: a stand-in listens on the declared ports and answers for it",
                self.spec.image.as_deref().unwrap_or_default()
            );
            self.kubelet.event(&pod, "Normal", "StandIn", &text);
        }
        let addresses = self.sandbox.addresses(&self.kubelet);
        let env = environment::variables(&pod, &self.spec, &addresses, base, &references).map_err(config_error)?;
        for arg in &mut resolved.args {
            *arg = environment::expand(arg, &env);
        }
        let surroundings = Surroundings {
            env,
            cwd: self.spec.working_dir.clone().filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".to_owned()),
            host: self.sandbox.host.clone(),
            files: files.clone(),
            hostname: self.sandbox.hostname.clone(),
            programs,
        };
        if !resolved.stand_in {
            let image = self.spec.image.as_deref().unwrap_or_default();
            self.kubelet.event(&pod, "Normal", "Pulled", &format!("Container image {image:?} is built in"));
        }
        self.kubelet.event(&pod, "Normal", "Created", &format!("Created container {}", self.spec.name));
        let clock = self.kubelet.config.clock;
        Ok(Instance::start(resolved, surroundings, &self.spec, move || clock.now()))
    }

    async fn run_post_start_hook(&self, instance: &Arc<Instance>) {
        let hook = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        if let Some(hook) = hook {
            self.run_hook(hook, instance).await;
        }
    }

    async fn run_hook(&self, hook: &core::LifecycleHandler, instance: &Arc<Instance>) {
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        }
        if let Some(exec) = &hook.exec {
            let (_keep, signals) = watch::channel(0);
            let command = exec.command.clone().unwrap_or_default();
            let (stdin, stdout) = (Box::new(tokio::io::empty()), Box::new(tokio::io::sink()));
            instance.exec(command, stdin, stdout, Box::new(tokio::io::sink()), None, signals).await;
        }
        if let Some(get) = &hook.http_get {
            let probe = core::Probe { http_get: Some(get.clone()), failure_threshold: Some(1), ..Default::default() };
            probe::watch(&probe, &self.target(instance), |_| {}, |_| true).await;
        }
    }

    fn target<'a>(&'a self, instance: &'a Arc<Instance>) -> Target<'a> {
        Target { container: &self.spec, instance, node: self.kubelet.node_host(), pod_ip: self.sandbox.ip() }
    }

    /// Watches over a running container: its own end, its probes, the order to stop.
    async fn supervise(&self, instance: &Arc<Instance>) -> End {
        let mut stop = self.stop.clone();
        let stopped = async {
            let order = stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
            match order {
                Some(order) => order,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            status = instance.wait() => End::Exited(status),
            stop = stopped => End::Stopped(stop),
            why = self.probe(instance) => End::Unhealthy(why),
        }
    }

    /// Runs the probes; returns why the container must be restarted.
    async fn probe(&self, instance: &Arc<Instance>) -> String {
        let target = self.target(instance);
        let unhealthy = |kind: &'static str| {
            move |why: &str| {
                self.kubelet.event(&self.pod(), "Warning", "Unhealthy", &format!("{kind} probe failed: {why}"));
            }
        };
        if let Some(startup) = &self.spec.startup_probe {
            let mut verdict = None;
            probe::watch(startup, &target, unhealthy("Startup"), |outcome| {
                verdict = Some(outcome);
                true
            })
            .await;
            if let Some(Outcome::Failure(why)) = verdict {
                return why;
            }
            let ready = self.spec.readiness_probe.is_none();
            self.change(self.kubelet.activity().begin(), |record| {
                record.started = true;
                record.ready = ready;
            });
        }
        let readiness = async {
            if let Some(readiness) = &self.spec.readiness_probe {
                probe::watch(readiness, &target, unhealthy("Readiness"), |outcome| {
                    let ready = matches!(outcome, Outcome::Success);
                    if self.records.read(&self.spec.name, |record| record.ready) != Some(ready) {
                        self.change(self.kubelet.activity().begin(), |record| record.ready = ready);
                    }
                    false
                })
                .await;
            }
            std::future::pending::<String>().await
        };
        let liveness = async {
            let Some(liveness) = &self.spec.liveness_probe else { return std::future::pending().await };
            let mut why = String::new();
            probe::watch(liveness, &target, unhealthy("Liveness"), |outcome| match outcome {
                Outcome::Success => false,
                Outcome::Failure(reason) => {
                    why = reason;
                    true
                }
            })
            .await;
            why
        };
        tokio::select! {
            why = readiness => why,
            why = liveness => why,
        }
    }

    /// preStop hook, SIGTERM, and SIGKILL at the deadline, which may be moved nearer meanwhile (`kubectl delete --now`).
    async fn terminate(&self, instance: &Arc<Instance>, mut stop: Stop) -> ExitStatus {
        self.kubelet.event(&self.pod(), "Normal", "Killing", &format!("Stopping container {}", self.spec.name));
        let gracefully = async {
            if let Some(hook) = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
                self.run_hook(hook, instance).await;
            }
            instance.signal(15);
            instance.wait().await
        };
        tokio::pin!(gracefully);
        let mut orders = self.stop.clone();
        loop {
            let nearer = async {
                loop {
                    let order = *orders.borrow_and_update();
                    if let Some(order) = order.filter(|order| order.deadline < stop.deadline) {
                        return order;
                    }
                    if orders.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                }
            };
            tokio::select! {
                status = &mut gracefully => return status,
                () = tokio::time::sleep_until(stop.deadline) => {
                    instance.kill();
                    return 137;
                }
                order = nearer => stop = order,
            }
        }
    }
}
