//! Builtins over jobs and signals: `wait`, `kill`, `trap`.

use super::super::expand::quoted;
use super::super::jobs::{SIGNALS, signal_number};
use super::super::{Shell, Step};
use crate::programs::stdio;

impl Shell {
    pub(super) async fn wait_builtin(&mut self, operands: &[String]) -> Step {
        let all = operands.iter().all(|operand| operand.starts_with("-"));
        let pids: Vec<u32> = if all {
            self.jobs.pids()
        } else {
            operands.iter().map(|operand| self.jobs.pid(operand).unwrap_or(0)).collect()
        };
        let mut status = 0;
        for pid in pids {
            status = self.wait_for(pid).await?;
            if operands.iter().any(|operand| operand == "-n") {
                return Ok(status);
            }
        }
        Ok(if all { 0 } else { status })
    }

    pub(super) async fn kill(&mut self, operands: &[String]) -> Step {
        let mut signal = 15;
        let mut rest = operands.iter().peekable();
        while let Some(option) = rest.next_if(|operand| operand.starts_with('-') && operand.len() > 1) {
            let name = match option.as_str() {
                "-l" => {
                    let names: Vec<String> =
                        SIGNALS.iter().map(|(name, number)| format!("{number:2}) {name}\n")).collect();
                    return self.print(&names.concat()).await;
                }
                "--" => break,
                "-s" => rest.next().cloned().unwrap_or_default(),
                name => name[1..].to_owned(),
            };
            match signal_number(&name) {
                Some(number) => signal = number,
                None => {
                    self.complain(&format!("kill: bad signal name '{name}'")).await;
                    return Ok(1);
                }
            }
        }
        let mut status = 0;
        for operand in rest {
            if let Some(pid) = self.jobs.pid(operand)
                && self.jobs.signal(pid, signal)
            {
                continue;
            }
            let sent = match operand.parse::<u32>() {
                Ok(pid) => self.world.programs.kill(pid, signal),
                Err(_) => {
                    self.complain(&format!("kill: invalid number '{operand}'")).await;
                    status = 1;
                    continue;
                }
            };
            if let Err(error) = sent {
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => "No such process".to_owned(),
                    _ => stdio::reason(&error),
                };
                self.complain(&format!("kill: can't kill pid {operand}: {why}")).await;
                status = 1;
            }
        }
        Ok(status)
    }

    pub(super) async fn trap_builtin(&mut self, operands: &[String]) -> Step {
        let operands = match operands {
            [dashes, rest @ ..] if dashes == "--" => rest,
            rest => rest,
        };
        let name = |number: i32| match SIGNALS.iter().find(|(_, known)| *known == number) {
            _ if number == 0 => "EXIT".to_owned(),
            Some((name, _)) => (*name).to_owned(),
            None => number.to_string(),
        };
        let Some((command, signals)) = operands.split_first() else {
            let lines: String = self
                .traps
                .lock()
                .iter()
                .filter(|(number, _)| **number >= 0)
                .map(|(number, command)| format!("trap -- {} {}\n", quoted(command), name(*number)))
                .collect();
            return self.print(&lines).await;
        };
        // `trap INT` and `trap - INT` both mean the default.
        let (command, signals) = match (signals.is_empty(), command.as_str()) {
            (true, _) => (None, operands),
            (false, "-") => (None, signals),
            (false, command) => (Some(command.to_owned()), signals),
        };
        let mut status = 0;
        for operand in signals {
            let Some(number) = signal_number(operand) else {
                if matches!(operand.as_str(), "ERR" | "DEBUG" | "RETURN") {
                    continue;
                }
                self.complain(&format!("trap: {operand}: invalid signal specification")).await;
                status = 1;
                continue;
            };
            match &command {
                Some(command) => self.traps.lock().insert(number, command.clone()),
                None => self.traps.lock().remove(&number),
            };
        }
        Ok(status)
    }
}
