//! Running commands: lists, pipelines, compound commands, functions. Simple commands are in [`super::invoke`].

use super::expand::Quoting;
use super::jobs::Task;
use super::variables::Value;
use super::{Descriptor, Interrupt, NESTING, Shell, Step, pattern};
use crate::program::ExitStatus;
use crate::programs::stdio::{SharedInput, pipe};
use brush_parser::ast;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

impl Shell {
    /// Runs a list. Boxed: lists are within one another.
    pub(super) fn list<'a>(&'a mut self, list: &'a ast::CompoundList) -> BoxFuture<'a, Step> {
        async move {
            let mut status = 0;
            for ast::CompoundListItem(and_or, separator) in &list.0 {
                status = match separator {
                    ast::SeparatorOperator::Sequence => self.and_or(and_or).await?,
                    ast::SeparatorOperator::Async => {
                        self.background(and_or).await;
                        0
                    }
                };
                self.status = status;
            }
            Ok(status)
        }
        .boxed()
    }

    async fn and_or(&mut self, list: &ast::AndOrList) -> Step {
        let last = list.additional.len();
        let mut status = self.pipeline(&list.first, last == 0).await?;
        self.status = status;
        for (at, next) in list.additional.iter().enumerate() {
            let (wanted, pipeline) = match next {
                ast::AndOr::And(pipeline) => (status == 0, pipeline),
                ast::AndOr::Or(pipeline) => (status != 0, pipeline),
            };
            if wanted {
                status = self.pipeline(pipeline, at + 1 == last).await?;
                self.status = status;
            }
        }
        Ok(status)
    }

    /// Runs a pipeline; `checked`: whether `set -e` applies to its status.
    async fn pipeline(&mut self, pipeline: &ast::Pipeline, checked: bool) -> Step {
        let begun = Instant::now();
        let checked = checked && !pipeline.bang;
        self.unchecked += usize::from(!checked);
        let step = match &pipeline.seq[..] {
            [] => Ok(0),
            [command] => self.command(command).await,
            commands => self.pipe(commands).await,
        };
        self.unchecked -= usize::from(!checked);
        let mut status = step?;
        if pipeline.bang {
            status = ExitStatus::from(status == 0);
        }
        if pipeline.timed.is_some() {
            let seconds = begun.elapsed().as_secs_f64();
            let minutes = (seconds / 60.0).floor();
            let rest = seconds - minutes * 60.0;
            let report = format!("real\t{minutes}m {rest:.2}s\nuser\t0m 0.00s\nsys\t0m 0.00s\n");
            self.print_error(&report).await;
        }
        if status != 0 && checked && self.unchecked == 0 && self.settings.exit_on_error {
            let judged_inside = matches!(
                &pipeline.seq[..],
                [ast::Command::Compound(compound, _)] if !matches!(
                    compound,
                    ast::CompoundCommand::Subshell(_) | ast::CompoundCommand::Arithmetic(_)
                )
            );
            if !judged_inside {
                return Err(Interrupt::Exit(status));
            }
        }
        Ok(status)
    }

    /// Runs commands side by side, each one's output the next one's input.
    async fn pipe(&mut self, commands: &[ast::Command]) -> Step {
        if self.nesting >= NESTING {
            return Err(self.too_deep().await);
        }
        let mut tasks = Vec::new();
        let mut input = None;
        for (at, command) in commands.iter().enumerate() {
            let mut member = self.fork();
            if let Some(input) = input.take() {
                member.descriptors.insert(0, Descriptor::Input(input));
            }
            if at + 1 < commands.len() {
                let (writer, reader) = pipe();
                member.descriptors.insert(1, Descriptor::Output(writer));
                input = Some(reader);
            }
            let command = command.clone();
            tasks.push(member.spawn(|shell| async move { shell.command(&command).await }.boxed()));
        }
        let mut statuses = Vec::new();
        for task in tasks {
            statuses.push(self.until_interrupted(task).await?);
        }
        let last = statuses.last().copied().unwrap_or(0);
        let failed = statuses.iter().rev().copied().find(|status| *status != 0).unwrap_or(0);
        Ok(if self.settings.pipe_fail { failed } else { last })
    }

    /// Runs one command.
    async fn command(&mut self, command: &ast::Command) -> Step {
        tokio::task::coop::consume_budget().await;
        self.deliver_signals().await?;
        match command {
            ast::Command::Simple(simple) => self.simple(simple, false).await,
            ast::Command::Compound(compound, None) => self.compound(compound).await,
            ast::Command::Compound(compound, Some(redirects)) => {
                let saved = self.descriptors.clone();
                let step = match self.redirect(redirects.0.iter()).await {
                    Ok(()) => self.compound(compound).await,
                    Err(step) => step,
                };
                self.descriptors = saved;
                step
            }
            ast::Command::Function(function) => {
                self.functions.insert(function.fname.value.clone(), Arc::new(function.body.clone()));
                Ok(0)
            }
            ast::Command::ExtendedTest(test, redirects) => {
                let saved = self.descriptors.clone();
                let redirects = redirects.iter().flat_map(|list| list.0.iter());
                let step = match self.redirect(redirects).await {
                    Ok(()) => self.extended_test(&test.expr).await.map(|holds| ExitStatus::from(!holds)),
                    Err(step) => step,
                };
                self.descriptors = saved;
                step
            }
        }
    }

    async fn compound(&mut self, compound: &ast::CompoundCommand) -> Step {
        use ast::CompoundCommand as Compound;
        match compound {
            Compound::BraceGroup(group) => self.list(&group.list).await,
            Compound::Subshell(subshell) => {
                if self.nesting >= NESTING {
                    return Err(self.too_deep().await);
                }
                let list = subshell.list.clone();
                let task = self.fork().spawn(|shell| async move { shell.list(&list).await }.boxed());
                self.until_interrupted(task).await
            }
            Compound::IfClause(clause) => self.if_clause(clause).await,
            Compound::WhileClause(clause) => self.while_clause(clause, true).await,
            Compound::UntilClause(clause) => self.while_clause(clause, false).await,
            Compound::ForClause(clause) => self.for_clause(clause).await,
            Compound::ArithmeticForClause(clause) => self.arithmetic_for(clause).await,
            Compound::CaseClause(clause) => self.case_clause(clause).await,
            Compound::Arithmetic(command) => {
                let value = self.arithmetic(&command.expr.value).await?;
                Ok(ExitStatus::from(value == 0))
            }
            Compound::Coprocess(_) => Err(self.mistake("coproc: not supported").await),
        }
    }

    /// Runs a list whose status is only looked at.
    async fn condition(&mut self, list: &ast::CompoundList) -> Result<bool, Interrupt> {
        self.unchecked += 1;
        let step = self.list(list).await;
        self.unchecked -= 1;
        step.map(|status| status == 0)
    }

    async fn if_clause(&mut self, clause: &ast::IfClauseCommand) -> Step {
        if self.condition(&clause.condition).await? {
            return self.list(&clause.then).await;
        }
        for branch in clause.elses.iter().flatten() {
            let taken = match &branch.condition {
                Some(condition) => self.condition(condition).await?,
                None => true,
            };
            if taken {
                return self.list(&branch.body).await;
            }
        }
        Ok(0)
    }

    async fn while_clause(&mut self, clause: &ast::WhileOrUntilClauseCommand, wanted: bool) -> Step {
        let mut status = 0;
        loop {
            tokio::task::coop::consume_budget().await;
            match self.condition(&clause.0).await {
                Ok(holds) if holds == wanted => {}
                Ok(_) => return Ok(status),
                Err(interrupt) => match leave_loop(interrupt)? {
                    true => return Ok(status),
                    false => continue,
                },
            }
            match self.list(&clause.1.list).await {
                Ok(ended) => status = ended,
                Err(interrupt) => {
                    if leave_loop(interrupt)? {
                        return Ok(0);
                    }
                    status = 0;
                }
            }
        }
    }

    async fn for_clause(&mut self, clause: &ast::ForClauseCommand) -> Step {
        let values = match &clause.values {
            Some(words) => self.expand_words(words.iter()).await?,
            None => self.positional.clone(),
        };
        let mut status = 0;
        for value in values {
            tokio::task::coop::consume_budget().await;
            self.assign(&clause.variable_name, Value::Scalar(value)).await?;
            match self.list(&clause.body.list).await {
                Ok(ended) => status = ended,
                Err(interrupt) => {
                    status = 0;
                    if leave_loop(interrupt)? {
                        break;
                    }
                }
            }
        }
        Ok(status)
    }

    async fn arithmetic_for(&mut self, clause: &ast::ArithmeticForClauseCommand) -> Step {
        if let Some(initializer) = &clause.initializer {
            self.arithmetic(&initializer.value).await?;
        }
        let mut status = 0;
        loop {
            tokio::task::coop::consume_budget().await;
            if let Some(condition) = &clause.condition
                && !condition.value.trim().is_empty()
                && self.arithmetic(&condition.value).await? == 0
            {
                return Ok(status);
            }
            match self.list(&clause.body.list).await {
                Ok(ended) => status = ended,
                Err(interrupt) => {
                    status = 0;
                    if leave_loop(interrupt)? {
                        return Ok(status);
                    }
                }
            }
            if let Some(updater) = &clause.updater {
                self.arithmetic(&updater.value).await?;
            }
        }
    }

    async fn case_clause(&mut self, clause: &ast::CaseClauseCommand) -> Step {
        let value = self.expand_to_string(&clause.value.value, Quoting::Unquoted).await?;
        let mut falling = false;
        let mut status = 0;
        for case in &clause.cases {
            let mut taken = falling;
            for word in &case.patterns {
                if taken {
                    break;
                }
                let wanted = self.expand_to_pattern(&word.value).await?;
                taken = pattern::matches(&wanted, &value);
            }
            if !taken {
                continue;
            }
            if let Some(list) = &case.cmd {
                status = self.list(list).await?;
            }
            match case.post_action {
                ast::CaseItemPostAction::ExitCase => return Ok(status),
                ast::CaseItemPostAction::UnconditionallyExecuteNextCaseItem => falling = true,
                ast::CaseItemPostAction::ContinueEvaluatingCases => falling = false,
            }
        }
        Ok(status)
    }

    /// Calls a function. Its body runs as a task, so that recursion costs no stack.
    pub(super) async fn call(&mut self, body: Arc<ast::FunctionBody>, args: Vec<String>) -> Step {
        let positional = std::mem::replace(&mut self.positional, args);
        self.hidden.push(Default::default());
        let step = self
            .aside(|shell| {
                async move {
                    let saved = shell.descriptors.clone();
                    let redirects = body.1.iter().flat_map(|list| list.0.iter());
                    let step = match shell.redirect(redirects).await {
                        Ok(()) => shell.compound(&body.0).await,
                        Err(step) => step,
                    };
                    shell.descriptors = saved;
                    step
                }
                .boxed()
            })
            .await;
        self.unhide();
        self.positional = positional;
        match step {
            Err(Interrupt::Return(status)) => Ok(status),
            other => other,
        }
    }

    /// Runs something with this very shell, but in a task of its own.
    pub(super) async fn aside(
        &mut self,
        body: impl for<'a> FnOnce(&'a mut Shell) -> BoxFuture<'a, Step> + Send + 'static,
    ) -> Step {
        if self.nesting >= NESTING {
            return Err(self.too_deep().await);
        }
        let vacant = self.vacant();
        let mut shell = std::mem::replace(self, vacant);
        shell.nesting += 1;
        let running = AbortOnDropHandle::new(tokio::spawn(async move {
            let step = body(&mut shell).await;
            (shell, step)
        }));
        match running.await {
            Ok((mut shell, step)) => {
                shell.nesting -= 1;
                *self = shell;
                step
            }
            Err(_) => Err(Interrupt::Exit(2)),
        }
    }

    pub(super) async fn too_deep(&mut self) -> Interrupt {
        self.mistake(&format!("nested deeper than {NESTING}")).await
    }

    /// Runs a command in the background.
    async fn background(&mut self, and_or: &ast::AndOrList) {
        if self.nesting >= NESTING {
            let _ = self.too_deep().await;
            return;
        }
        let mut member = self.fork();
        if !self.interactive {
            member.descriptors.insert(0, Descriptor::Input(SharedInput::null()));
        }
        member.interactive = false;
        let pid = self.next_pid();
        let (sender, signals) = tokio::sync::watch::channel(0);
        member.signals = signals;
        let text = and_or.to_string();
        let and_or = and_or.clone();
        let task = member.spawn_job(|shell| async move { shell.and_or(&and_or).await }.boxed());
        let number = self.jobs.add(pid, text, task, sender);
        if self.interactive {
            self.print_error(&format!("[{number}] {pid}\n")).await;
        }
    }

    /// Waits for a task, or for Ctrl-C.
    pub(super) async fn until_interrupted(&mut self, task: Task) -> Step {
        if !self.interactive {
            return Ok(task.await);
        }
        tokio::select! {
            status = task => Ok(status),
            () = interrupted(&mut self.signals) => Err(Interrupt::Abandon(130)),
        }
    }
}

/// Resolves at SIGINT.
pub(super) async fn interrupted(signals: &mut tokio::sync::watch::Receiver<i32>) {
    loop {
        if signals.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if *signals.borrow_and_update() == 2 {
            return;
        }
    }
}

/// What `break` and `continue` mean to the innermost loop: `true` leaves it, `false` goes on.
fn leave_loop(interrupt: Interrupt) -> Result<bool, Interrupt> {
    match interrupt {
        Interrupt::Break(levels) if levels > 1 => Err(Interrupt::Break(levels - 1)),
        Interrupt::Continue(levels) if levels > 1 => Err(Interrupt::Continue(levels - 1)),
        Interrupt::Break(_) => Ok(true),
        Interrupt::Continue(_) => Ok(false),
        other => Err(other),
    }
}
