//! Certificates asked for: what each of the cluster's signers signs.

use super::CertificateAuthority;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use std::time::Duration;

/// Certificates asked for are valid for a year at most, and from five minutes ago, since clocks differ.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
const BACKDATED: Duration = Duration::from_secs(300);

impl CertificateAuthority {
    /// A certificate for what a CertificateSigningRequest asks for, as PEM; valid for `duration` at most.
    ///
    /// # Errors
    /// Why the request is not one that `purpose` allows, or no request at all.
    pub fn sign_request(
        &self,
        pem: &str,
        purpose: Purpose,
        usages: &[String],
        duration: Duration,
    ) -> Result<String, String> {
        let mut request = request_params(pem)?;
        purpose.check(&request.params, usages)?;
        let params = &mut request.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = usages.iter().filter_map(|usage| key_usage(usage)).collect();
        params.extended_key_usages = usages.iter().filter_map(|usage| extended_key_usage(usage)).collect();
        params.use_authority_key_identifier_extension = true;
        let now = jiff::Timestamp::now().as_second().max(0).unsigned_abs();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATED.as_secs()));
        params.not_after = epoch + Duration::from_secs(now) + duration.min(LONGEST);
        request.signed_by(&self.issuer).map(|certificate| certificate.pem()).map_err(|why| why.to_string())
    }
}

/// What a signer's certificates are for. Follows Kubernetes' "Kubernetes signers".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `kubernetes.io/kube-apiserver-client`: any user.
    Client,
    /// `kubernetes.io/kube-apiserver-client-kubelet`: a node as a client.
    NodeClient,
    /// `kubernetes.io/kubelet-serving`: a node as a server.
    NodeServing,
}

impl Purpose {
    /// Of the signer of this name, if it is one of the cluster's.
    pub fn of_signer(name: &str) -> Option<Purpose> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(Purpose::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Purpose::NodeClient),
            "kubernetes.io/kubelet-serving" => Some(Purpose::NodeServing),
            _ => None,
        }
    }

    fn check(self, params: &CertificateParams, usages: &[String]) -> Result<(), String> {
        let wanted = if self == Purpose::NodeServing { "server auth" } else { "client auth" };
        let known = ["digital signature", "key encipherment", wanted];
        let all: Vec<&str> = usages.iter().map(String::as_str).collect();
        if !all.contains(&wanted) || !all.iter().all(|usage| known.contains(usage)) {
            return Err(format!(
                "usages did not match: {wanted:?} must be, \"digital signature\" and \"key encipherment\" may be among them, and nothing else"
            ));
        }
        if self == Purpose::Client {
            return Ok(());
        }
        if organizations(params) != ["system:nodes"] {
            return Err("subject organization is not system:nodes".to_owned());
        }
        if !common_name(params).starts_with("system:node:") {
            return Err("subject common name does not begin with system:node: ".trim().to_owned());
        }
        let names = &params.subject_alt_names;
        if self == Purpose::NodeClient && !names.is_empty() {
            return Err("subjectAltNames are not allowed".to_owned());
        }
        let serving = |name: &SanType| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_));
        if self == Purpose::NodeServing && (names.is_empty() || !names.iter().all(serving)) {
            return Err("DNS or IP subjectAltName is required, and no others are allowed".to_owned());
        }
        Ok(())
    }
}

/// The common name of a request that `purpose` allows.
///
/// # Errors
/// Why it is none.
pub fn requested_name(pem: &str, purpose: Purpose, usages: &[String]) -> Result<String, String> {
    let request = request_params(pem)?;
    purpose.check(&request.params, usages)?;
    Ok(common_name(&request.params))
}

fn request_params(pem: &str) -> Result<CertificateSigningRequestParams, String> {
    CertificateSigningRequestParams::from_pem(pem).map_err(|why| why.to_string())
}

fn texts<'a>(params: &'a CertificateParams, kind: &'a DnType) -> impl Iterator<Item = String> + 'a {
    params.distinguished_name.iter().filter(move |(of, _)| *of == kind).map(|(_, value)| match value {
        DnValue::PrintableString(text) => text.as_str().to_owned(),
        DnValue::Utf8String(text) => text.clone(),
        DnValue::Ia5String(text) => text.as_str().to_owned(),
        _ => String::new(),
    })
}

fn common_name(params: &CertificateParams) -> String {
    texts(params, &DnType::CommonName).next().unwrap_or_default()
}

fn organizations(params: &CertificateParams) -> Vec<String> {
    texts(params, &DnType::OrganizationName).collect()
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "digital signature" | "signing" => KeyUsagePurpose::DigitalSignature,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        _ => return None,
    })
}

fn extended_key_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match usage {
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tls::tests::{der, tls};
    use super::*;
    use rcgen::KeyPair;

    fn request(name: &str, groups: &[&str], alternative: &[&str]) -> String {
        let names: Vec<String> = alternative.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = super::super::name(name, groups);
        params.serialize_request(&KeyPair::generate().expect("a key")).expect("a request").pem().expect("PEM")
    }

    #[test]
    fn a_request_is_signed_for_its_purpose_only() {
        let authority = CertificateAuthority::generate().expect("an authority");
        let sign = |request: &str, purpose, usages: &[&str]| {
            let usages: Vec<String> = usages.iter().map(|usage| (*usage).to_owned()).collect();
            authority.sign_request(request, purpose, &usages, Duration::from_secs(3600))
        };
        let jane = request("jane", &["dev"], &[]);
        let signed = sign(&jane, Purpose::Client, &["client auth", "digital signature"]).expect("signed");
        let user = tls(&authority).0.peer(Some(&[der(&signed)])).expect("accepted").expect("a user");
        assert_eq!(
            (user.name.as_str(), user.groups),
            ("jane", vec!["dev".to_owned(), "system:authenticated".to_owned()])
        );
        assert!(sign(&jane, Purpose::Client, &["server auth"]).expect_err("no client").contains("client auth"));
        assert!(sign(&jane, Purpose::Client, &["client auth", "cert sign"]).is_err(), "an authority");
        assert!(sign(&jane, Purpose::NodeClient, &["client auth"]).expect_err("no node").contains("organization"));
        let node = request("system:node:n", &["system:nodes"], &[]);
        assert!(sign(&node, Purpose::NodeClient, &["client auth"]).is_ok());
        assert!(sign(&node, Purpose::NodeServing, &["server auth"]).expect_err("no names").contains("DNS or IP"));
        let served = request("system:node:n", &["system:nodes"], &["n", "10.0.0.1"]);
        assert!(sign(&served, Purpose::NodeServing, &["server auth"]).is_ok());
        assert!(sign("nonsense", Purpose::Client, &["client auth"]).is_err());
    }
}
