//! What curl says about a transfer: `--write-out` and the progress meter.

use super::transfer::Transfer;

impl Transfer<'_> {
    /// The text of `-w`.
    pub(super) fn write_out(&self, template: &str, status: i32, message: &str) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['%', '\\']) {
            text.push_str(&rest[..at]);
            let mark = &rest[at..];
            if let Some(after) = mark.strip_prefix("%{") {
                match after.split_once('}') {
                    Some((name, after)) => {
                        text.push_str(&self.fact(name, status, message));
                        rest = after;
                    }
                    None => {
                        text.push_str("%{");
                        rest = after;
                    }
                }
                continue;
            }
            let escapes = [("%%", "%"), ("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t"), ("\\\\", "\\")];
            match escapes.iter().find(|(escape, _)| mark.starts_with(escape)) {
                Some((escape, meaning)) => {
                    text.push_str(meaning);
                    rest = &mark[escape.len()..];
                }
                None => {
                    text.push_str(&mark[..1]);
                    rest = &mark[1..];
                }
            }
        }
        text.push_str(rest);
        text
    }

    fn fact(&self, name: &str, status: i32, message: &str) -> String {
        let seconds = |time: std::time::Duration| format!("{:.6}", time.as_secs_f64());
        let speed = |bytes: u64| match self.times.total.as_secs_f64() {
            0.0 => bytes,
            seconds => (bytes as f64 / seconds) as u64,
        };
        let ip =
            |address: Option<std::net::SocketAddr>| address.map(|address| address.ip().to_string()).unwrap_or_default();
        let port = |address: Option<std::net::SocketAddr>| address.map_or(0, |address| address.port()).to_string();
        match name {
            "http_code" | "response_code" => format!("{:03}", self.code),
            "http_connect" => "000".to_owned(),
            "exitcode" => status.to_string(),
            "errormsg" => message.to_owned(),
            "time_total" => seconds(self.times.total),
            "time_namelookup" => seconds(self.times.name),
            "time_connect" => seconds(self.times.connected),
            "time_appconnect" => seconds(self.times.secured),
            "time_pretransfer" => seconds(self.times.connected.max(self.times.secured)),
            "time_starttransfer" => seconds(self.times.first_byte),
            "time_redirect" => seconds(self.times.redirects),
            "remote_ip" => ip(self.remote),
            "remote_port" => port(self.remote),
            "local_ip" => ip(self.local),
            "local_port" => port(self.local),
            "size_download" => self.received.to_string(),
            "size_upload" => self.sent.to_string(),
            "size_header" => self.header_bytes.to_string(),
            "speed_download" => speed(self.received).to_string(),
            "speed_upload" => speed(self.sent).to_string(),
            "content_type" => self.content_type.clone(),
            "url" => self.url.clone(),
            "url_effective" => self.effective.clone(),
            "scheme" => self.effective.split("://").next().unwrap_or_default().to_owned(),
            "method" => self.method.to_string(),
            "http_version" => self.version.to_owned(),
            "num_redirects" => self.redirects.to_string(),
            "redirect_url" => self.redirect_url.clone(),
            "num_connects" => self.connects.to_string(),
            "ssl_verify_result" => "0".to_owned(),
            "filename_effective" => self.output.clone().unwrap_or_default(),
            // Both streams are where they are: the text is written to standard output.
            "stderr" | "stdout" | "onerror" => String::new(),
            _ => format!("%{{{name}}}"),
        }
    }
}

/// The progress meter of a transfer that is done.
pub(super) fn meter(transfer: &Transfer<'_>) -> String {
    let (received, sent) = (transfer.received, transfer.sent);
    let seconds = transfer.times.total.as_secs_f64();
    let speed = |bytes: u64| if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { bytes };
    let total = received + sent;
    let spent = if seconds >= 1.0 {
        let whole = seconds as u64;
        format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
    } else {
        "--:--:--".to_owned()
    };
    let percent = |bytes: u64| if bytes > 0 { 100 } else { 0 };
    format!(
        "  % Total    % Received % Xferd  Average Speed   Time    Time     Time  Current\n                                 Dload  Upload   Total   Spent    Left  Speed\n\
         {:3} {:>5}  {:3} {:>5}  {:3} {:>5} {:>6} {:>6} {spent} {spent} --:--:-- {:>5}",
        percent(total),
        short(total),
        percent(received),
        short(received),
        percent(sent),
        short(sent),
        short(speed(received)),
        short(speed(sent)),
        short(speed(total)),
    )
}

/// A number in at most five characters: `12345`, `1234k`, `12.3M`.
fn short(bytes: u64) -> String {
    match bytes {
        0..100_000 => bytes.to_string(),
        100_000..10_240_000 => format!("{}k", bytes / 1024),
        10_240_000..104_857_600 => format!("{:.1}M", bytes as f64 / 1_048_576.0),
        104_857_600..10_737_418_240 => format!("{}M", bytes / 1_048_576),
        _ => format!("{}G", bytes / 1_073_741_824),
    }
}
