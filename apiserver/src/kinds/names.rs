//! What names, labels, keys, ports and addresses may look like: each function answers with the complaints, none if the value is good.
//!
//! Follows RFC 1035 §2.3.1, RFC 1123 §2.1 and RFC 6335 §5.1 in the reading of `k8s.io/apimachinery/pkg/util/validation`, and says so in its
//! words.

use std::net::IpAddr;

const DNS_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

fn pattern(what: &str, examples: &[&str], regex: &str) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{what} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

fn too_long(value: &str, most: usize) -> Option<String> {
    (value.len() > most).then(|| format!("must be no more than {most} bytes"))
}

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn label_shaped(value: &str) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    lower_alphanumeric(*first)
        && lower_alphanumeric(*last)
        && bytes.iter().all(|byte| lower_alphanumeric(*byte) || *byte == b'-')
}

fn subdomain_shaped(value: &str) -> bool {
    value.split('.').all(label_shaped)
}

/// DNS-1123 label.
pub(crate) fn dns_label(value: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(value, 63).into_iter().collect();
    if !label_shaped(value) {
        complaints.push(if subdomain_shaped(value) {
            "must not contain dots".to_owned()
        } else {
            pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
                 alphanumeric character",
                &["my-name", "123-abc"],
                DNS_LABEL,
            )
        });
    }
    complaints
}

/// DNS-1035 label.
pub(crate) fn dns_1035_label(value: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(value, 63).into_iter().collect();
    if !label_shaped(value) || !value.starts_with(|first: char| first.is_ascii_lowercase()) {
        complaints.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end \
             with an alphanumeric character",
            &["my-name", "abc-123"],
            "[a-z]([-a-z0-9]*[a-z0-9])?",
        ));
    }
    complaints
}

/// DNS-1123 subdomain.
pub(crate) fn dns_subdomain(value: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(value, 253).into_iter().collect();
    if !subdomain_shaped(value) {
        complaints.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with \
             an alphanumeric character",
            &["example.com"],
            &format!("{DNS_LABEL}(\\.{DNS_LABEL})*"),
        ));
    }
    complaints
}

/// `*.` and a DNS-1123 subdomain.
pub(crate) fn wildcard_dns_subdomain(value: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(value, 253).into_iter().collect();
    if !value.strip_prefix("*.").is_some_and(subdomain_shaped) {
        complaints.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case \
             alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &["*.example.com"],
            &format!("\\*\\.{DNS_LABEL}(\\.{DNS_LABEL})*"),
        ));
    }
    complaints
}

fn qualified_part(value: &str) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// A name with an optional DNS prefix: `app`, `example.com/app`. Keys of labels and annotations.
pub(crate) fn qualified_name(value: &str) -> Vec<String> {
    const WHAT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    const REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    let mut complaints = Vec::new();
    let name = match value.split_once('/') {
        None => value,
        Some((_, rest)) if rest.contains('/') => {
            let text = pattern(&format!("a qualified name {WHAT}"), &EXAMPLES, REGEX);
            return vec![format!("{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
        Some(("", name)) => {
            complaints.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            complaints.extend(dns_subdomain(prefix).into_iter().map(|complaint| format!("prefix part {complaint}")));
            name
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if let Some(complaint) = too_long(name, 63) {
        complaints.push(format!("name part {complaint}"));
    }
    if !qualified_part(name) {
        complaints.push(pattern(&format!("name part {WHAT}"), &EXAMPLES, REGEX));
    }
    complaints
}

/// The value of a label.
pub(crate) fn label_value(value: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(value, 63).into_iter().collect();
    if !value.is_empty() && !qualified_part(value) {
        complaints.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
             an alphanumeric character",
            &["MyValue", "my_value", "12345"],
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
        ));
    }
    complaints
}

/// One segment of a URL's path.
pub(crate) fn path_segment(value: &str) -> Vec<String> {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        _ => ["/", "%"]
            .into_iter()
            .filter(|forbidden| value.contains(forbidden))
            .map(|forbidden| format!("may not contain '{forbidden}'"))
            .collect(),
    }
}

/// An IANA service name: what a container port is called.
pub(crate) fn port_name(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > 15 {
        complaints.push("must be no more than 15 characters".to_owned());
    }
    if !value.bytes().all(|byte| lower_alphanumeric(byte) || byte == b'-') || value.is_empty() {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

/// The name of an HTTP header.
pub(crate) fn http_header(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        &["X-Header-Name"],
        "[-A-Za-z0-9]+",
    )]
}

/// A port number.
pub(crate) fn port_number(value: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&value)).then_some("must be between 1 and 65535, inclusive")
}

/// The name of an environment variable.
pub(crate) fn environment_variable(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// A key of a ConfigMap or Secret.
pub(crate) fn config_key(value: &str) -> Vec<String> {
    let mut complaints: Vec<String> = too_long(value, 253).into_iter().collect();
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        complaints.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            &["key.name", "KEY_NAME", "key-name"],
            "[-._a-zA-Z0-9]+",
        ));
    }
    match value {
        "." | ".." => complaints.push(format!("must not be '{value}'")),
        _ if value.starts_with("..") => complaints.push("must not start with '..'".to_owned()),
        _ => {}
    }
    complaints
}

/// An IP address.
pub(crate) fn ip(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// An IP network with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address as written.
    pub address: IpAddr,
    /// Number of leading bits that are the network's.
    pub prefix: u8,
}

/// A text that is no network in CIDR notation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: wanted one such as 10.96.0.0/12 or fd00:10:96::/112")]
pub struct NotACidr(String);

impl std::str::FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(value: &str) -> Result<Cidr, NotACidr> {
        Cidr::parse(value).ok_or_else(|| NotACidr(value.to_owned()))
    }
}

impl Cidr {
    /// `10.0.0.0/8`; `None` if it is none.
    pub(crate) fn parse(value: &str) -> Option<Cidr> {
        let (address, prefix) = value.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let prefix: u8 = prefix.parse().ok()?;
        (prefix <= Cidr::bits(address)).then_some(Cidr { address, prefix })
    }

    fn bits(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u32::from(address).into(),
            IpAddr::V6(address) => address.into(),
        }
    }

    /// Number of host bits.
    pub(crate) fn host_bits(&self) -> u32 {
        u32::from(Cidr::bits(self.address) - self.prefix)
    }

    /// First address of the network as a number.
    pub(crate) fn base(&self) -> u128 {
        let host_bits = self.host_bits();
        if host_bits == 128 { 0 } else { Cidr::number(self.address) >> host_bits << host_bits }
    }

    /// Whether the address belongs to the network.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let other = Cidr { address, prefix: self.prefix };
        self.address.is_ipv4() == address.is_ipv4() && self.base() == other.base()
    }

    /// The address at `offset` from the base.
    pub(crate) fn nth(&self, offset: u128) -> IpAddr {
        let number = self.base().wrapping_add(offset);
        if self.address.is_ipv4() {
            IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into())
        } else {
            IpAddr::V6(number.into())
        }
    }

    /// How far `address` stands from the base; `None` outside.
    pub(crate) fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| Cidr::number(address) - self.base())
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.nth(0), self.prefix)
    }
}

/// A network in CIDR notation.
pub(crate) fn cidr(value: &str) -> Vec<String> {
    match Cidr::parse(value) {
        Some(_) => Vec::new(),
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()],
    }
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_by_their_rfc() {
        //     (rule, good, bad)
        type Rule = fn(&str) -> Vec<String>;
        let cases: [(Rule, &[&str], &[&str]); 8] = [
            (dns_label, &["a", "0-a"], &["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)]),
            (dns_1035_label, &["a", "a0"], &["", "0a", "a.b", "a-"]),
            (dns_subdomain, &["a", "a.b-c.0"], &["", ".", "a..b", "a.", "A.b", &"x".repeat(254)]),
            (wildcard_dns_subdomain, &["*.a.b"], &["*", "*.", "a.b", "*.*.a"]),
            (qualified_name, &["a", "A_b.c-0", "x.y/z"], &["", "/a", "a/", "a/b/c", "-a", "A.B/c", &"x".repeat(64)]),
            (label_value, &["", "a", "A_.0"], &["-", "a ", "ä", &"x".repeat(64)]),
            (port_name, &["http", "p2p-0"], &["", "80", "-a", "a--b", "HTTP", "abcdefghijklmnop"]),
            (config_key, &["a", ".dot", "A_b-c"], &["", ".", "..", "..a", "a/b", "a b"]),
        ];
        for (rule, good, bad) in cases {
            for value in good {
                assert_eq!(rule(value), Vec::<String>::new(), "{value:?} is allowed");
            }
            for value in bad {
                assert_ne!(rule(value), Vec::<String>::new(), "{value:?} is not allowed");
            }
        }
    }

    #[test]
    fn a_network_knows_its_addresses() {
        let net = Cidr::parse("10.96.0.7/12").unwrap();
        assert_eq!(net.to_string(), "10.96.0.0/12");
        assert_eq!(net.nth(10).to_string(), "10.96.0.10");
        assert!(net.contains("10.111.255.255".parse().unwrap()) && !net.contains("10.112.0.0".parse().unwrap()));
        assert_eq!(net.offset("10.97.0.0".parse().unwrap()), Some(65536));
        assert_eq!(net.offset("::1".parse().unwrap()), None);
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+1", "x/8", "::/129"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
        assert!(Cidr::parse("::/0").unwrap().contains("ff::1".parse().unwrap()));
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains("1.2.3.4".parse().unwrap()));
    }
}
