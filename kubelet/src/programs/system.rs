//! Small tools about the container and its command line: `echo`, `date`, `hostname`, `sleep`, `id`, `seq` and the like.

use super::options::{Options, Order, duration};
use super::stdio::Outcome;
use super::{Tool, clock, print};
use crate::program::Container;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::io;
use std::time::Duration;

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("[", |c| Box::pin(super::shell::test(c))),
    Tool::new("arch", |c| Box::pin(line(c, "x86_64"))),
    Tool::new("basename", |c| Box::pin(basename(c))),
    Tool::new("clear", |c| Box::pin(clear(c))),
    Tool::new("date", |c| Box::pin(date(c))),
    Tool::new("dirname", |c| Box::pin(dirname(c))),
    Tool::new("dnsdomainname", |c| Box::pin(dnsdomainname(c))),
    Tool::new("echo", |c| Box::pin(echo(c))),
    Tool::new("expr", |c| Box::pin(expr(c))),
    Tool::new("false", |_| Box::pin(async { Ok(1) })),
    Tool::new("groups", |c| Box::pin(line(c, "root"))),
    Tool::new("hostname", |c| Box::pin(hostname(c))),
    Tool::new("id", |c| Box::pin(id(c))),
    Tool::new("kill", |c| Box::pin(kill(c))),
    Tool::new("killall", |c| Box::pin(killall(c))),
    Tool::new("logname", |c| Box::pin(line(c, "root"))),
    Tool::new("nproc", |c| Box::pin(line(c, "1"))),
    Tool::new("pause", |_| Box::pin(std::future::pending())),
    Tool::new("printenv", |c| Box::pin(printenv(c))),
    Tool::new("printf", |c| Box::pin(printf(c))),
    Tool::new("ps", |c| Box::pin(ps(c))),
    Tool::new("pwd", |c| Box::pin(pwd(c))),
    Tool::new("reset", |c| Box::pin(clear(c))),
    Tool::new("seq", |c| Box::pin(seq(c))),
    Tool::new("sleep", |c| Box::pin(sleep(c))),
    Tool::new("stty", |c| Box::pin(stty(c))),
    Tool::new("sync", |_| Box::pin(async { Ok(0) })),
    Tool::new("test", |c| Box::pin(super::shell::test(c))),
    Tool::new("true", |_| Box::pin(async { Ok(0) })),
    Tool::new("tty", |c| Box::pin(tty(c))),
    Tool::new("ttysize", |c| Box::pin(tty_size(c))),
    Tool::new("uname", |c| Box::pin(uname(c))),
    Tool::new("uptime", |c| Box::pin(line(c, " up 0 min,  load average: 0.00, 0.00, 0.00"))),
    Tool::new("usleep", |c| Box::pin(usleep(c))),
    Tool::new("which", |c| Box::pin(which(c))),
    Tool::new("whoami", |c| Box::pin(line(c, "root"))),
    Tool::new("yes", |c| Box::pin(yes(c))),
];

/// Most numbers that `seq` prints.
const NUMBERS: u64 = 100_000_000;

async fn line(c: &mut Container, text: &str) -> Outcome {
    c.print(format!("{text}\n")).await?;
    Ok(0)
}

/// Complains as `<tool>: <message>` and fails with `status`.
pub(super) async fn refuse(c: &mut Container, message: impl std::fmt::Display, status: i32) -> Outcome {
    let name = c.args.first().map(|name| name.rsplit('/').next().unwrap_or_default().to_owned()).unwrap_or_default();
    c.complain(format!("{name}: {message}")).await;
    Ok(status)
}

async fn echo(c: &mut Container) -> Outcome {
    let (mut bytes, newline) = print::echo(&c.args[1..]);
    if newline {
        bytes.push(b'\n');
    }
    c.print(bytes).await?;
    Ok(0)
}

async fn printf(c: &mut Container) -> Outcome {
    let Some((format, values)) = c.args[1..].split_first() else {
        return refuse(c, "usage: printf FORMAT [ARG]...", 1).await;
    };
    let (bytes, errors) = print::printf(format, values);
    c.print(bytes).await?;
    for error in &errors {
        c.complain(format!("printf: {error}")).await;
    }
    Ok(i32::from(!errors.is_empty()))
}

async fn clear(c: &mut Container) -> Outcome {
    c.print("\x1b[H\x1b[J").await?;
    Ok(0)
}

async fn pwd(c: &mut Container) -> Outcome {
    let cwd = c.cwd.clone();
    line(c, &cwd).await
}

async fn tty(c: &mut Container) -> Outcome {
    let terminal = c.tty;
    line(c, if terminal { "/dev/pts/0" } else { "not a tty" }).await?;
    Ok(i32::from(!terminal))
}

/// Says the terminal's size; all settings are taken and mean nothing, since the line discipline here has none.
async fn stty(c: &mut Container) -> Outcome {
    if !c.tty {
        return refuse(c, "standard input: Not a tty", 1).await;
    }
    let size = *c.window.borrow();
    match c.args.get(1).map(String::as_str) {
        Some("size") => line(c, &format!("{} {}", size.rows, size.columns)).await,
        None | Some("-a") => {
            line(c, &format!("speed 38400 baud; rows {}; columns {}; line = 0;", size.rows, size.columns)).await
        }
        Some(_) => Ok(0),
    }
}

/// BusyBox' `ttysize`: columns and rows; those of a VT100 where there is no terminal.
async fn tty_size(c: &mut Container) -> Outcome {
    let size = *c.window.borrow();
    let (columns, rows) = if c.tty && size.columns > 0 { (size.columns, size.rows) } else { (80, 24) };
    let text = match c.args.get(1).map(String::as_str) {
        Some("w") => columns.to_string(),
        Some("h") => rows.to_string(),
        _ => format!("{columns} {rows}"),
    };
    line(c, &text).await
}

async fn basename(c: &mut Container) -> Outcome {
    let operands: Vec<String> = c.args[1..].iter().filter(|arg| *arg != "--").cloned().collect();
    let Some(path) = operands.first() else {
        return refuse(c, "missing operand", 1).await;
    };
    let trimmed = path.trim_end_matches('/');
    let mut name =
        if trimmed.is_empty() && path.starts_with('/') { "/" } else { trimmed.rsplit('/').next().unwrap_or("") };
    if let Some(suffix) = operands.get(1)
        && name != suffix
    {
        name = name.strip_suffix(suffix.as_str()).unwrap_or(name);
    }
    line(c, name).await
}

async fn dirname(c: &mut Container) -> Outcome {
    let Some(path) = c.args.get(1).cloned() else {
        return refuse(c, "missing operand", 1).await;
    };
    let trimmed = path.trim_end_matches('/');
    let directory = match trimmed.rfind('/') {
        _ if trimmed.is_empty() => "/",
        None => ".",
        Some(at) => match trimmed[..at].trim_end_matches('/') {
            "" => "/",
            directory => directory,
        },
    };
    line(c, directory).await
}

async fn sleep(c: &mut Container) -> Outcome {
    let mut total = Duration::ZERO;
    let operands = c.args[1..].to_vec();
    if operands.is_empty() {
        return refuse(c, "missing operand", 1).await;
    }
    for operand in &operands {
        match duration(operand) {
            Some(part) => total = total.saturating_add(part),
            None => return refuse(c, format!("invalid number '{operand}'"), 1).await,
        }
    }
    tokio::time::sleep(total).await;
    Ok(0)
}

async fn usleep(c: &mut Container) -> Outcome {
    let micros = c.args.get(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    tokio::time::sleep(Duration::from_micros(micros)).await;
    Ok(0)
}

async fn yes(c: &mut Container) -> Outcome {
    let text = if c.args.len() > 1 { c.args[1..].join(" ") } else { "y".to_owned() };
    let lines = format!("{text}\n").repeat(1 + 1024 / (text.len() + 1));
    loop {
        c.print(&lines).await?;
        tokio::task::coop::consume_budget().await;
    }
}

async fn seq(c: &mut Container) -> Outcome {
    let parsed = Options::parse(&numbers_are_operands(&c.args[1..]), "s: w f:", Order::Permuted);
    let options = match parsed {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let mut values = Vec::new();
    for operand in &options.operands {
        match operand.trim_start_matches('\u{1}').parse::<f64>() {
            Ok(value) if value.is_finite() => values.push(value),
            _ => return refuse(c, format!("invalid number '{operand}'"), 1).await,
        }
    }
    let (first, step, last) = match values[..] {
        [last] => (1.0, 1.0, last),
        [first, last] => (first, 1.0, last),
        [first, step, last] => (first, step, last),
        _ => return refuse(c, "missing operand", 1).await,
    };
    if step == 0.0 {
        return refuse(c, "increment must not be 0", 1).await;
    }
    let digits =
        options.operands.iter().map(|text| text.split_once('.').map_or(0, |(_, fraction)| fraction.len())).max();
    let digits = digits.unwrap_or(0);
    let separator = options.value("s").unwrap_or("\n").to_owned();
    let width =
        if options.has("w") { format!("{first:.digits$}").len().max(format!("{last:.digits$}").len()) } else { 0 };
    let mut text = String::new();
    for at in 0..NUMBERS {
        let value = first + step * at as f64;
        if step > 0.0 && value > last + 1e-9 || step < 0.0 && value < last - 1e-9 {
            break;
        }
        if at > 0 {
            text.push_str(&separator);
        }
        text.push_str(&format!("{value:0width$.digits$}"));
        if text.len() > 8192 {
            c.print(std::mem::take(&mut text)).await?;
            tokio::task::coop::consume_budget().await;
        }
    }
    c.print(text + "\n").await?;
    Ok(0)
}

/// Marks negative numbers, so that they are not taken for options.
fn numbers_are_operands(args: &[String]) -> Vec<String> {
    let mark = |arg: &String| match arg.strip_prefix('-') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') => format!("\u{1}{arg}"),
        _ => arg.clone(),
    };
    args.iter().map(mark).collect()
}

async fn printenv(c: &mut Container) -> Outcome {
    let names = c.args[1..].to_vec();
    if names.is_empty() {
        let text: String = c.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        c.print(text).await?;
        return Ok(0);
    }
    let mut status = 0;
    for name in names {
        match c.variable(&name).map(str::to_owned) {
            Some(value) => c.print(format!("{value}\n")).await?,
            None => status = 1,
        }
    }
    Ok(status)
}

async fn date(c: &mut Container) -> Outcome {
    let parsed = Options::parse(&c.args[1..], "u|utc d:|date: I R s: iso-8601|iso-8601 r:", Order::Permuted);
    let options = match parsed {
        Ok(options) => options,
        Err(message) if message.ends_with(": s") && c.args.iter().any(|arg| arg == "-Iseconds") => {
            let now = clock::now().to_zoned(TimeZone::UTC);
            return line(c, &now.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()).await;
        }
        Err(message) => return refuse(c, message, 1).await,
    };
    let time = match options.value("d") {
        None | Some("now") => clock::now(),
        Some(text) => {
            let parsed = match text.strip_prefix('@') {
                Some(seconds) => seconds.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()),
                None => text.parse::<Timestamp>().ok().or_else(|| {
                    let civil: jiff::civil::DateTime = text.replace(' ', "T").parse().ok()?;
                    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
                }),
            };
            match parsed {
                Some(time) => time,
                None => return refuse(c, format!("invalid date '{text}'"), 1).await,
            }
        }
    };
    let zoned = time.to_zoned(TimeZone::UTC);
    let format = match options.operands.first() {
        Some(format) if format.starts_with('+') => format[1..].to_owned(),
        Some(operand) => return refuse(c, format!("invalid date '{operand}'"), 1).await,
        None if options.has("I") => "%Y-%m-%d".to_owned(),
        None if options.has("R") => "%a, %d %b %Y %H:%M:%S +0000".to_owned(),
        None => "%a %b %e %H:%M:%S UTC %Y".to_owned(),
    };
    let format = format.replace("%N", &format!("{:09}", time.subsec_nanosecond()));
    match jiff::fmt::strtime::format(&format, &zoned) {
        Ok(text) => line(c, &text).await,
        Err(_) => line(c, &format).await,
    }
}

async fn hostname(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "i I f|fqdn s d", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    if options.has("i") || options.has("I") {
        let addresses: Vec<String> = c.host.addresses().iter().map(ToString::to_string).collect();
        return line(c, &addresses.join(" ")).await;
    }
    let name = c.hostname.clone();
    if options.has("f") {
        let full = full_name(c);
        return line(c, &full).await;
    }
    if options.has("d") {
        return dnsdomainname(c).await;
    }
    let name = if options.has("s") { name.split('.').next().unwrap_or_default().to_owned() } else { name };
    line(c, &name).await
}

/// The first name of the line in /etc/hosts that names this host.
fn full_name(c: &Container) -> String {
    let hosts = c.files.read("/etc/hosts").unwrap_or_default();
    let text = String::from_utf8_lossy(&hosts);
    for entry in text.lines() {
        let mut names = entry.split('#').next().unwrap_or_default().split_whitespace().skip(1);
        let first = names.next().unwrap_or_default();
        if first == c.hostname || names.any(|name| name == c.hostname) {
            return first.to_owned();
        }
    }
    c.hostname.clone()
}

async fn dnsdomainname(c: &mut Container) -> Outcome {
    let full = full_name(c);
    match full.split_once('.') {
        Some((_, domain)) => line(c, domain).await,
        None => Ok(0),
    }
}

async fn id(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "u g n G r", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let text = match (options.has("u") || options.has("g") || options.has("G"), options.has("n")) {
        (true, true) => "root",
        (true, false) => "0",
        (false, _) => "uid=0(root) gid=0(root) groups=0(root)",
    };
    line(c, text).await
}

async fn uname(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "a s n r v m p i o", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let all = options.has("a");
    let hostname = c.hostname.clone();
    let machine = std::env::consts::ARCH;
    let parts = [
        ("s", "Linux"),
        ("n", hostname.as_str()),
        ("r", "6.6.0-coracle"),
        ("v", "#1 SMP"),
        ("m", machine),
        ("o", "GNU/Linux"),
    ];
    let mut chosen: Vec<&str> =
        parts.iter().filter(|(flag, _)| all || options.has(flag)).map(|(_, text)| *text).collect();
    if chosen.is_empty() {
        chosen.push("Linux");
    }
    let text = chosen.join(" ");
    line(c, &text).await
}

async fn which(c: &mut Container) -> Outcome {
    let mut status = 0;
    let names = c.args.clone();
    for name in &names[1..] {
        match c.programs.program(name) {
            Some(_) if name.starts_with('/') => c.print(format!("{name}\n")).await?,
            Some(_) => c.print(format!("/bin/{name}\n")).await?,
            None => status = 1,
        }
    }
    Ok(status)
}

async fn ps(c: &mut Container) -> Outcome {
    c.print("PID   USER     TIME  COMMAND\n    1 root      0:00 {container}\n    7 root      0:00 ps\n").await?;
    Ok(0)
}

/// For those that do not come from the shell, whose own `kill` knows its jobs too.
async fn kill(c: &mut Container) -> Outcome {
    let mut signal = 15;
    let mut status = 0;
    let args = c.args.clone();
    let mut operands = args[1..].iter();
    while let Some(operand) = operands.next() {
        if let Some(name) = operand.strip_prefix('-') {
            let name = if name == "s" { operands.next().cloned().unwrap_or_default() } else { name.to_owned() };
            match super::shell::jobs::signal_number(&name) {
                Some(number) => signal = number,
                None => return refuse(c, format!("bad signal name '{name}'"), 1).await,
            }
            continue;
        }
        let sent = match operand.parse() {
            Ok(pid) => c.programs.kill(pid, signal),
            Err(_) => return refuse(c, format!("invalid number '{operand}'"), 1).await,
        };
        if let Err(error) = sent {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "No such process".to_owned(),
                _ => super::stdio::reason(&error),
            };
            refuse(c, format!("can't kill pid {operand}: {why}"), 1).await?;
            status = 1;
        }
    }
    Ok(status)
}

async fn killall(c: &mut Container) -> Outcome {
    let name = c.args.last().cloned().unwrap_or_default();
    refuse(c, format!("{name}: no process killed"), 1).await
}

/// `expr`: arithmetic, comparison and `:` matching of three operands, as scripts of old use it.
async fn expr(c: &mut Container) -> Outcome {
    let operands = c.args[1..].to_vec();
    let value = match &operands[..] {
        [value] => value.clone(),
        [keyword, text] if keyword == "length" => text.chars().count().to_string(),
        [text, colon, pattern] if colon == ":" => {
            let Ok(regex) = super::grep::basic_expression(&format!("^{pattern}"), false) else {
                return refuse(c, "invalid expression", 2).await;
            };
            match regex.captures(text.as_bytes()) {
                Some(captures) => match captures.get(1) {
                    Some(group) => String::from_utf8_lossy(group.as_bytes()).into_owned(),
                    None => String::from_utf8_lossy(&captures[0]).chars().count().to_string(),
                },
                None => "0".to_owned(),
            }
        }
        [left, operator, right] => {
            let numbers = left.parse::<i64>().ok().zip(right.parse::<i64>().ok());
            let compared = match numbers {
                Some((left, right)) => left.cmp(&right),
                None => left.cmp(right),
            };
            let truth = |holds: bool| Some(i64::from(holds).to_string());
            let number = |compute: fn(i64, i64) -> Option<i64>| {
                numbers.and_then(|(left, right)| compute(left, right)).map(|value| value.to_string())
            };
            let result = match operator.as_str() {
                "+" => number(i64::checked_add),
                "-" => number(i64::checked_sub),
                "*" => number(i64::checked_mul),
                "/" => number(i64::checked_div),
                "%" => number(i64::checked_rem),
                "=" | "==" => truth(compared.is_eq()),
                "!=" => truth(compared.is_ne()),
                "<" => truth(compared.is_lt()),
                "<=" => truth(compared.is_le()),
                ">" => truth(compared.is_gt()),
                ">=" => truth(compared.is_ge()),
                _ => None,
            };
            match result {
                Some(result) => result,
                None => return refuse(c, "non-integer argument", 2).await,
            }
        }
        _ => return refuse(c, "syntax error", 2).await,
    };
    let status = i32::from(value.is_empty() || value == "0");
    line(c, &value).await?;
    Ok(status)
}
