//! Which form of an answer the client wants: `Accept` → [`Media`].
//!
//! client-go's typed clients ask for protobuf first and take JSON; they get JSON.
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`, and RFC 9110 (12.5.1) for `q`.

use crate::request::Query;
use crate::status::Status;
use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Media {
    pub(crate) form: Form,
    pub(crate) format: Format,
}

/// What is made of the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects themselves.
    #[default]
    Object,
    /// `metav1.Table`.
    Table { version: MetaVersion, include: Include },
    /// `metav1.PartialObjectMetadata` and its list.
    Metadata { version: MetaVersion },
}

/// A version of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetaVersion {
    V1,
    V1Beta1,
}

impl MetaVersion {
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What a table's row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// How it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Json,
    /// Indented, for people.
    Pretty,
    Yaml,
}

const ACCEPTED: &str = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";

impl Media {
    /// The first form of the `Accept` header which the server has, the highest `q` first.
    ///
    /// # Errors
    /// 406 if it has none of them; 400 for an unknown `includeObject`.
    pub(crate) fn new(headers: &HeaderMap, query: &Query) -> Result<Self, Status> {
        let json = if wants_pretty(headers, query) { Format::Pretty } else { Format::Json };
        let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let accept = accept.join(",");
        if accept.trim().is_empty() {
            return Ok(Media { form: Form::Object, format: json });
        }
        let mut clauses: Vec<Clause<'_>> =
            accept.split(',').map(Clause::new).filter(|clause| clause.quality > 0).collect();
        clauses.sort_by_key(|clause| std::cmp::Reverse(clause.quality)); // stable: the client's order among equals
        for clause in clauses {
            let format = match clause.kind {
                "application/json" | "*/*" | "application/*" | "application/vnd.kubernetes.protobuf" => json,
                "application/yaml" => Format::Yaml,
                _ => continue,
            };
            if let Some(form) = clause.form(query)? {
                return Ok(Media { form, format });
            }
        }
        Err(Status::failure(406, "NotAcceptable", ACCEPTED))
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self.format {
            Format::Json | Format::Pretty => "application/json",
            Format::Yaml => "application/yaml",
        }
    }
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let person = ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| agent.starts_with(tool));
    query.optional_flag("pretty").unwrap_or(person)
}

/// One media range of the header.
struct Clause<'a> {
    kind: &'a str,
    target: Option<&'a str>,
    group: &'a str,
    version: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Clause<'a> {
    fn new(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let mut clause = Clause { kind, target: None, group: "", version: "", quality: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "as" => clause.target = Some(value),
                "g" => clause.group = value,
                "v" => clause.version = value,
                "q" => clause.quality = value.parse::<f32>().map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16),
                _ => {}
            }
        }
        clause
    }

    fn form(&self, query: &Query) -> Result<Option<Form>, Status> {
        let version = match (self.group, self.version) {
            ("meta.k8s.io", "v1") => Some(MetaVersion::V1),
            ("meta.k8s.io", "v1beta1") => Some(MetaVersion::V1Beta1),
            _ => None,
        };
        Ok(match (self.target, version) {
            (None, _) => Some(Form::Object),
            (Some("Table"), Some(version)) => {
                let include = match query.text("includeObject") {
                    None | Some("Metadata") => Include::Metadata,
                    Some("None") => Include::Nothing,
                    Some("Object") => Include::Object,
                    Some(other) => {
                        let why =
                            format!("unrecognized includeObject value: {other:?}: must be None, Metadata or Object");
                        return Err(Status::bad_request(why));
                    }
                };
                Some(Form::Table { version, include })
            }
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some(version)) => {
                Some(Form::Metadata { version })
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(accept: &str, query: &str) -> Result<Media, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        Media::new(&headers, &Query::new(&format!("/?{query}").parse().expect("a URI"))).map_err(|status| status.code)
    }

    #[test]
    fn the_first_form_that_can_be_given_is_given() {
        let object = Media::default();
        let table = |version, include| Media { form: Form::Table { version, include }, ..object };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, query, expected) in [
            ("application/json", "", Ok(object)),
            ("application/vnd.kubernetes.protobuf,application/json", "", Ok(object)),
            ("application/vnd.kubernetes.protobuf", "", Ok(object)),
            ("text/html, */*;q=0.1", "", Ok(object)),
            ("text/html", "", Err(406)),
            ("application/json;q=0", "", Err(406)),
            (kubectl, "", Ok(table(MetaVersion::V1, Include::Metadata))),
            (kubectl, "includeObject=Object", Ok(table(MetaVersion::V1, Include::Object))),
            (kubectl, "includeObject=All", Err(400)),
            ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", "", Ok(object)),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", "", Err(406)),
            ("application/json;q=0.5,application/yaml", "", Ok(Media { format: Format::Yaml, ..object })),
            ("application/json", "pretty=true", Ok(Media { format: Format::Pretty, ..object })),
        ] {
            assert_eq!(media(accept, query), expected, "{accept} {query}");
        }
    }
}
