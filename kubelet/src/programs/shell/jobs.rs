//! Tasks of the shell: subshells, pipeline members, and jobs in the background with `wait`, `jobs` and `kill`.

use super::{Interrupt, Shell, Step, untrapped};
use crate::program::ExitStatus;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Ended jobs whose status can still be asked for.
const REMEMBERED: usize = 256;

/// A running subshell; dropping it kills it.
pub(super) struct Task(AbortOnDropHandle<ExitStatus>);

impl Future for Task {
    type Output = ExitStatus;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ExitStatus> {
        Pin::new(&mut self.0).poll(cx).map(|joined| joined.unwrap_or(137))
    }
}

struct Job {
    number: usize,
    pid: u32,
    text: String,
    task: Task,
    signal: watch::Sender<i32>,
}

/// The background jobs of one shell.
pub(super) struct Jobs {
    pub(super) started: Instant,
    running: Vec<Job>,
    ended: VecDeque<(u32, ExitStatus)>,
    /// `$!`.
    pub(super) last: Option<u32>,
}

impl Default for Jobs {
    fn default() -> Self {
        Jobs { started: Instant::now(), running: Vec::new(), ended: VecDeque::new(), last: None }
    }
}

impl Jobs {
    /// Adds a job and returns its number.
    pub(super) fn add(&mut self, pid: u32, text: String, task: Task, signal: watch::Sender<i32>) -> usize {
        self.reap();
        let number = self.running.last().map_or(1, |job| job.number + 1);
        self.running.push(Job { number, pid, text, task, signal });
        self.last = Some(pid);
        number
    }

    /// Takes note of jobs that have ended: number and text of each.
    pub(super) fn reap(&mut self) -> Vec<(usize, String, ExitStatus)> {
        let mut ended = Vec::new();
        let mut at = 0;
        while at < self.running.len() {
            match (&mut self.running[at].task).now_or_never() {
                Some(status) => {
                    let job = self.running.remove(at);
                    self.remember(job.pid, status);
                    ended.push((job.number, job.text, status));
                }
                None => at += 1,
            }
        }
        ended
    }

    fn remember(&mut self, pid: u32, status: ExitStatus) {
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((pid, status));
    }

    /// The pid that `%1`, `%%` or a number means, if it is or was a job of this shell.
    pub(super) fn pid(&self, operand: &str) -> Option<u32> {
        if let Some(number) = operand.strip_prefix('%') {
            let job = match number {
                "" | "%" | "+" => self.running.last(),
                number => self.running.iter().find(|job| Some(job.number) == number.parse().ok()),
            };
            return job.map(|job| job.pid);
        }
        let pid = operand.parse().ok()?;
        let known = self.running.iter().any(|job| job.pid == pid) || self.ended.iter().any(|(ended, _)| *ended == pid);
        known.then_some(pid)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.running.iter().map(|job| job.pid).collect()
    }

    /// Sends a signal (0 only asks whether it runs).
    pub(super) fn signal(&mut self, pid: u32, signal: i32) -> bool {
        self.reap();
        let Some(at) = self.running.iter().position(|job| job.pid == pid) else {
            return false;
        };
        match signal {
            0 => {}
            9 => {
                self.running.remove(at);
                self.remember(pid, 137);
            }
            _ => {
                self.running[at].signal.send_replace(signal);
            }
        }
        true
    }

    /// `jobs`: number, state and command of each.
    pub(super) fn listing(&mut self) -> Vec<String> {
        self.reap();
        let last = self.running.len();
        let mark = |at: usize| match last - at {
            1 => '+',
            2 => '-',
            _ => ' ',
        };
        let line =
            |(at, job): (usize, &Job)| format!("[{}]{} Running                    {}", job.number, mark(at), job.text);
        self.running.iter().enumerate().map(line).collect()
    }
}

impl Shell {
    /// Runs something in this subshell, as a task.
    pub(super) fn spawn(
        mut self,
        body: impl for<'a> FnOnce(&'a mut Shell) -> BoxFuture<'a, Step> + Send + 'static,
    ) -> Task {
        Task(AbortOnDropHandle::new(tokio::spawn(async move {
            let step = body(&mut self).await;
            self.finish(step).await
        })))
    }

    /// As [`Shell::spawn`], but a signal to the job ends it.
    pub(super) fn spawn_job(
        mut self,
        body: impl for<'a> FnOnce(&'a mut Shell) -> BoxFuture<'a, Step> + Send + 'static,
    ) -> Task {
        let mut signals = self.signals.clone();
        let traps = self.traps.clone();
        Task(AbortOnDropHandle::new(tokio::spawn(async move {
            let run = async move {
                let step = body(&mut self).await;
                self.finish(step).await
            };
            tokio::select! {
                biased;
                status = run => status,
                signal = untrapped(&mut signals, &traps, false) => 128 + signal,
            }
        })))
    }

    /// `wait` for one job: its status. A trapped signal ends the waiting.
    pub(super) async fn wait_for(&mut self, pid: u32) -> Step {
        loop {
            if let Some((_, status)) = self.jobs.ended.iter().find(|(ended, _)| *ended == pid) {
                return Ok(*status);
            }
            let Some(at) = self.jobs.running.iter().position(|job| job.pid == pid) else {
                return Ok(127);
            };
            let signal = tokio::select! {
                status = &mut self.jobs.running[at].task => {
                    self.jobs.running.remove(at);
                    self.jobs.remember(pid, status);
                    return Ok(status);
                }
                changed = self.signals.changed() => match changed {
                    Ok(()) => *self.signals.borrow_and_update(),
                    Err(_) => {
                        let status = (&mut self.jobs.running[at].task).await;
                        self.jobs.running.remove(at);
                        self.jobs.remember(pid, status);
                        return Ok(status);
                    }
                },
            };
            if self.trap(signal).await? {
                return Ok(128 + signal);
            }
        }
    }

    /// Runs the traps of signals that have come.
    pub(super) async fn deliver_signals(&mut self) -> Result<(), Interrupt> {
        while self.signals.has_changed().unwrap_or(false) {
            let signal = *self.signals.borrow_and_update();
            self.trap(signal).await?;
        }
        Ok(())
    }

    /// Runs the trap of a signal, if there is one. `$?` stays what it was.
    pub(super) async fn trap(&mut self, signal: i32) -> Result<bool, Interrupt> {
        let command = self.traps.lock().get(&signal).cloned();
        match command {
            Some(command) => {
                let status = self.status;
                if !command.is_empty() {
                    self.run_text(&command).await?;
                }
                self.status = status;
                Ok(!command.is_empty())
            }
            None if self.interactive && signal == 2 => Err(Interrupt::Abandon(130)),
            None => Ok(false),
        }
    }
}

/// Signals by name, without `SIG`.
pub(crate) const SIGNALS: [(&str, i32); 19] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
];

/// A signal by name or number; `EXIT` is 0.
pub(crate) fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (0..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if name == "EXIT" {
        return Some(0);
    }
    SIGNALS.iter().find(|(signal, _)| *signal == name).map(|(_, number)| *number)
}
