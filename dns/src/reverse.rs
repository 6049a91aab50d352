//! Names below `in-addr.arpa` and `ip6.arpa` (RFC 1035 3.5, RFC 3596 2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A name in a reverse zone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReverseName {
    /// The zone it is in.
    pub(crate) zone: &'static str,
    /// The address it stands for; `None` if it is not a whole address.
    pub(crate) address: Option<IpAddr>,
}

impl ReverseName {
    /// Reads a name's labels, in lower case.
    pub(crate) fn of(labels: &[String]) -> Option<ReverseName> {
        let [digits @ .., family, top] = labels else { return None };
        match family.as_str() {
            _ if top != "arpa" => None,
            "in-addr" => Some(ReverseName { zone: "in-addr.arpa.", address: v4(digits).map(IpAddr::V4) }),
            "ip6" => Some(ReverseName { zone: "ip6.arpa.", address: v6(digits).map(IpAddr::V6) }),
            _ => None,
        }
    }
}

fn v4(labels: &[String]) -> Option<Ipv4Addr> {
    let [d, c, b, a] = labels else { return None };
    // The standard parser refuses leading zeros and signs.
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

fn v6(labels: &[String]) -> Option<Ipv6Addr> {
    if labels.len() != 32 || labels.iter().any(|label| label.len() != 1) {
        return None;
    }
    let digits: String = labels.iter().rev().map(String::as_str).collect();
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(name: &str) -> Option<Option<IpAddr>> {
        let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
        ReverseName::of(&labels).map(|name| name.address)
    }

    #[test]
    fn a_reverse_name_stands_for_a_whole_address_or_none() {
        let v6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(address("10.0.96.10.in-addr.arpa"), Some(Some([10, 96, 0, 10].into())));
        assert_eq!(address(v6), Some(Some("fd00::5".parse().unwrap())));
        for partial in ["0.96.10.in-addr.arpa", "in-addr.arpa", "010.0.96.10.in-addr.arpa", "256.0.0.1.in-addr.arpa"] {
            assert_eq!(address(partial), Some(None), "{partial}");
        }
        assert_eq!(address(&v6.replacen('5', "+", 1)), Some(None));
        assert_eq!(address("arpa"), None);
        assert_eq!(address("a.example"), None);
    }
}
