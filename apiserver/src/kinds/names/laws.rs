//! Names against naive checkers: the regular expressions that Kubernetes publishes with its complaints, and the lengths of the RFCs.

use super::*;
use proptest::prelude::*;
use regex::Regex;
use std::sync::LazyLock;

type Rule = fn(&str) -> Vec<String>;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const PART: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A rule, the regular expression that a whole value has to match, and how many bytes it may have.
static RULES: LazyLock<Vec<(&str, Rule, Regex, usize)>> = LazyLock::new(|| {
    let whole = |pattern: &str| Regex::new(&format!(r"\A(?:{pattern})\z")).expect("a pattern");
    vec![
        ("DNS-1123 label", dns_label as Rule, whole(LABEL), 63),
        ("DNS-1035 label", dns_1035_label, whole("[a-z]([-a-z0-9]*[a-z0-9])?"), 63),
        ("DNS-1123 subdomain", dns_subdomain, whole(&format!(r"{LABEL}(\.{LABEL})*")), 253),
        ("wildcard subdomain", wildcard_dns_subdomain, whole(&format!(r"\*\.{LABEL}(\.{LABEL})*")), 253),
        ("label value", label_value, whole(&format!("({PART})?")), 63),
        ("header", http_header, whole("[-A-Za-z0-9]+"), usize::MAX),
        ("environment variable", environment_variable, whole("[ -<>-~]+"), usize::MAX),
    ]
});

/// Text that is often nearly a name: its characters, its neighbours in ASCII, and lengths around the limits.
fn name() -> impl Strategy<Value = String> {
    let long = ["[a-z]", "[a-z0-9.-]", "[a-z]\\.?"].map(|piece| format!("{piece}{{60,66}}|{piece}{{250,256}}"));
    prop_oneof![
        8 => "[a-z0-9]{0,2}[-._/A-Za-z0-9]{0,6}[a-z0-9]{0,2}",
        2 => "[-._/%=:@ *ÄäA-Z0-9a-z`{\\n\\t\\x00]{0,6}",
        1 => "(\\*\\.)?[a-z0-9-]{1,4}(\\.[a-z0-9-]{0,4}){0,3}\\n?",
        1 => proptest::string::string_regex(&long.join("|")).expect("a pattern"),
        1 => any::<String>(),
    ]
}

/// A label without its prefix, or with one that is a subdomain.
fn naive_qualified(value: &str) -> bool {
    let parts: Vec<&str> = value.split('/').collect();
    let subdomain = |text: &str| RULES[2].2.is_match(text) && text.len() <= 253;
    let part = |text: &str| !text.is_empty() && RULES[4].2.is_match(text) && text.len() <= 63;
    match parts.as_slice() {
        [name] => part(name),
        [prefix, name] => subdomain(prefix) && part(name),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_name_is_taken_when_the_published_expression_matches_it_and_it_is_short_enough(value in name()) {
        for (what, rule, pattern, most) in RULES.iter() {
            let good = pattern.is_match(&value) && value.len() <= *most;
            prop_assert_eq!(rule(&value).is_empty(), good, "{} {:?}: {:?}", what, value, rule(&value));
        }
    }

    #[test]
    fn a_qualified_name_is_one_part_with_at_most_one_subdomain_before_it(prefix in name(), slashes in 0..3_usize, rest in name()) {
        let value = format!("{prefix}{}{rest}", "/".repeat(slashes));
        prop_assert_eq!(qualified_name(&value).is_empty(), naive_qualified(&value), "{:?}: {:?}", value, qualified_name(&value));
    }

    #[test]
    fn a_path_segment_stays_one_segment_whoever_decodes_it(value in name()) {
        // Joined, split and decoded like a path: the same one segment comes back, and no step leads up.
        let split: Vec<&str> = value.split('/').collect();
        let good = split.len() == 1 && !value.contains('%') && value != "." && value != "..";
        prop_assert_eq!(path_segment(&value).is_empty(), good, "{:?}", value);
    }

    #[test]
    fn a_port_name_is_a_service_name_of_rfc_6335(value in prop_oneof![name(), "[a-z0-9-]{1,17}"]) {
        let bytes = value.as_bytes();
        let good = (1..=15).contains(&bytes.len())
            && bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && bytes.iter().any(|byte| byte.is_ascii_lowercase())
            && bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-')
            && bytes.windows(2).all(|pair| pair != b"--");
        prop_assert_eq!(port_name(&value).is_empty(), good, "{:?}: {:?}", value, port_name(&value));
    }

    #[test]
    fn a_key_of_a_configmap_is_a_file_name_that_leads_nowhere(value in prop_oneof![name(), "\\.{0,3}[a-zA-Z_-]{0,3}"]) {
        let letters = value.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        let good = !value.is_empty() && value.len() <= 253 && letters && value != "." && !value.starts_with("..");
        prop_assert_eq!(config_key(&value).is_empty(), good, "{:?}: {:?}", value, config_key(&value));
    }
}
