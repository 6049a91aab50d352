//! `awk`: patterns and actions over records and fields (POSIX), without output to files and pipes, `getline` and own functions.

mod ast;
mod functions;
mod lexer;
mod parse;
mod run;
mod value;

use super::Tool;
use super::options::{Options, Order};
use super::stdio::{Outcome, reason};
use super::system::refuse;
use crate::program::Container;
use run::Machine;
use std::io;

pub(super) const TOOLS: &[Tool] = &[Tool::new("awk", |c| Box::pin(awk(c))), Tool::new("gawk", |c| Box::pin(awk(c)))];

async fn awk(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "F: v: f: W:", Order::OptionsFirst) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut operands = options.operands.clone();
    let source = match options.value("f").map(str::to_owned) {
        Some(path) => match c.content(&path).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return refuse(c, format!("can't open '{path}': {}", reason(&error)), 1).await,
        },
        None if operands.is_empty() => {
            c.complain("Usage: awk [-F SEP] [-v VAR=VALUE] [-f PROGFILE | CMDLINE] [FILE]...").await;
            return Ok(1);
        }
        None => operands.remove(0),
    };
    let program = match parse::program(&source) {
        Ok(program) => program,
        Err(message) => return refuse(c, format!("cmd. line: {message}"), 1).await,
    };
    let mut machine = Machine::new(&c.env);
    if let Some(separator) = options.value("F") {
        machine.assign_text("FS", separator);
    }
    for assignment in options.values("v") {
        match assignment.split_once('=') {
            Some((name, value)) => machine.assign_text(name, value),
            None => return refuse(c, format!("bad assignment '{assignment}'"), 1).await,
        }
    }
    let outcome = execute(c, &mut machine, &program, &operands).await;
    match outcome {
        Ok(status) => Ok(status),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let rest = machine.take_output();
            c.print(rest).await?;
            refuse(c, error, 2).await
        }
        Err(error) => Err(error),
    }
}

async fn execute(c: &mut Container, machine: &mut Machine, program: &ast::Program, operands: &[String]) -> Outcome {
    let wrong = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
    machine.begin(program).map_err(wrong)?;
    c.print(machine.take_output()).await?;
    let mut ended = machine.exit_status();
    if ended.is_none() && program.reads() {
        let mut files: Vec<String> = Vec::new();
        for operand in operands {
            files.push(operand.clone());
        }
        if !files.iter().any(|file| !is_assignment(file)) {
            files.push("-".to_owned());
        }
        'files: for file in files {
            if let Some((name, value)) = file.split_once('=').filter(|_| is_assignment(&file)) {
                machine.assign_text(name, value);
                continue;
            }
            let bytes = match c.content(&file).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    refuse(c, format!("{file}: {}", reason(&error)), 2).await?;
                    continue;
                }
            };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            machine.open(&file);
            for record in machine.records(&text) {
                machine.record(program, record).map_err(wrong)?;
                if machine.output_waiting() {
                    c.print(machine.take_output()).await?;
                }
                ended = machine.exit_status();
                if ended.is_some() {
                    break 'files;
                }
                tokio::task::coop::consume_budget().await;
            }
        }
    }
    machine.end(program).map_err(wrong)?;
    c.print(machine.take_output()).await?;
    Ok(machine.exit_status().or(ended).unwrap_or(0))
}

/// `name=value` among the files is an assignment.
fn is_assignment(operand: &str) -> bool {
    operand.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use crate::programs::harness::Machine;

    #[tokio::test(start_paused = true)]
    async fn programs_select_compute_and_print() {
        let machine = Machine::new();
        for (program, input, output) in [
            ("{print $1}", "a b\nc d\n", "a\nc\n"),
            ("{print $NF, NR}", "a b\nc d e\n", "b 1\ne 2\n"),
            ("/b/", "a\nb\n", "b\n"),
            ("NR==2", "1\n2\n3\n", "2\n"),
            ("NR>1 && $1 != \"x\" {print $2}", "h h\nx 1\ny 2\n", "2\n"),
            ("{s+=$1} END {print s, s/NR}", "1\n2\n3\n", "6 2\n"),
            ("BEGIN {x=3; while (x>0) {printf \"%d \", x; x--}; print \"\"}", "", "3 2 1 \n"),
            ("{n[$1]++} END {for (k in n) print k, n[k]}", "a\nb\na\n", "a 2\nb 1\n"),
            ("{gsub(/o/, \"0\"); print length($0), toupper($1)}", "foo\n", "3 F00\n"),
            ("{split($0, p, \":\"); print p[2] \"-\" p[1]}", "a:b\n", "b-a\n"),
            ("{print ($1 > 1 ? \"big\" : \"small\")}", "1\n2\n", "small\nbig\n"),
            ("$1 ~ /^a/ {next} {print}", "ab\nb\n", "b\n"),
            ("BEGIN {OFS=\",\"} {$1=$1; print}", "a b c\n", "a,b,c\n"),
            ("{print substr($1, 2, 2), index($1, \"c\")}", "abcd\n", "bc 3\n"),
            ("BEGIN { for (i = 1; i <= 3; i++) print i ^ 2 }", "", "1\n4\n9\n"),
            ("/start/,/end/ {print}", "x\nstart\ny\nend\nz\n", "start\ny\nend\n"),
            ("BEGIN {printf \"%5.2f|%-4s|%c\\n\", 3.14159, \"ab\", \"z\"}", "", " 3.14|ab  |z\n"),
            ("!seen[$0]++", "a\na\nb\n", "a\nb\n"),
            ("END {print NR; exit 0}", "1\n2\n", "2\n"),
            ("{ if ($1 == 1) print \"one\"; else print \"other\" }", "1\n2\n", "one\nother\n"),
        ] {
            let ran = machine.run(&["awk", program], input).await;
            assert_eq!(ran.stdout, output, "{program}: {}", ran.stderr);
        }
        assert_eq!(machine.run(&["awk", "-F:", "{print $2}"], "a:b\n").await.stdout, "b\n");
        assert_eq!(machine.run(&["awk", "-v", "n=2", "{print n*$1}"], "4\n").await.stdout, "8\n");
        assert_eq!(machine.run(&["awk", "BEGIN {exit 3}"], "").await.status, 3);
        assert_eq!(machine.run(&["awk", "{print"], "").await.status, 1);
        let deep = format!("BEGIN {{print {}1{}}}", "(".repeat(500), ")".repeat(500));
        assert_eq!(machine.run(&["awk", &deep], "").await.status, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_program_is_stopped() {
        let machine = Machine::new();
        let ran = machine.run(&["awk", "BEGIN {while (1) x++}"], "").await;
        assert_eq!(ran.status, 2, "{ran:?}");
    }
}
