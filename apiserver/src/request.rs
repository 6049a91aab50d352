//! What a request asks for: method and path → [`RequestInfo`]; and its query parameters.
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/request` (`RequestInfoFactory`). Whether the resource exists is not asked here.

use http::{Method, Uri};

/// What a request is about, as the authorizer and the handler see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource (`/api/v1/pods`) or something else (`/healthz`, `/apis/apps/v1`).
    pub is_resource: bool,
    /// The whole path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the method in lower case if not a resource.
    pub verb: String,
    /// API group; `""` is core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Such as `status`; `""` is the object itself.
    pub subresource: String,
    /// `""` for all namespaces, and for kinds outside namespaces. For a Namespace its own name.
    pub namespace: String,
    /// The object's name; `""` for collections, unless a field selector narrows a list or watch to one name.
    pub name: String,
    /// What follows the subresource, slashes included (`proxy/…`).
    pub rest: String,
    /// The field selector of a collection, as it was sent.
    pub field_selector: String,
}

impl RequestInfo {
    /// Reads a request line.
    pub fn new(method: &Method, uri: &Uri) -> Self {
        let path = uri.path();
        let other = || RequestInfo {
            path: path.to_owned(),
            verb: method.as_str().to_ascii_lowercase(),
            ..RequestInfo::default()
        };
        let decoded: Vec<String> = path.trim_matches('/').split('/').map(percent_decode).collect();
        let mut parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let (group, skipped) = match parts.first() {
            Some(&"api") if parts.len() >= 3 => ("", 1),
            Some(&"apis") if parts.len() >= 4 => (parts[1], 2),
            _ => return other(),
        };
        let version = parts[skipped];
        let mut info = RequestInfo {
            is_resource: true,
            path: path.to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            ..RequestInfo::default()
        };
        let mut verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            // No verb of the API, but one that may be passed on to a pod.
            Method::OPTIONS => "",
            _ => return other(),
        };
        parts.drain(..=skipped);
        // The old form of watches: /api/v1/watch/pods.
        if parts.first() == Some(&"watch") && parts.len() > 1 {
            verb = "watch";
            parts.remove(0);
        }
        if parts.first() == Some(&"namespaces") && parts.len() > 1 {
            info.namespace = parts[1].to_owned();
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts.drain(..2);
            }
        }
        let mut rest = parts.into_iter();
        info.resource = rest.next().unwrap_or_default().to_owned();
        info.name = rest.next().unwrap_or_default().to_owned();
        info.subresource = rest.next().unwrap_or_default().to_owned();
        info.rest = rest.collect::<Vec<_>>().join("/");
        if verb.is_empty() && info.subresource != "proxy" {
            return other();
        }
        if info.name.is_empty() {
            let query = Query::new(uri);
            verb = match verb {
                "get" if query.flag("watch") => "watch",
                "get" => "list",
                "delete" => "deletecollection",
                verb => verb,
            };
            info.field_selector = query.text("fieldSelector").unwrap_or_default().to_owned();
            // A collection narrowed to one name may be read by who may read that name.
            if let ("list" | "watch", Some(name)) = (verb, selected_name(&query)) {
                info.name = name;
            }
        }
        info.verb = verb.to_owned();
        info
    }

    /// Resource and subresource, as RBAC rules write them: `pods/log`.
    pub fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// The name in a field selector `metadata.name=NAME`.
fn selected_name(query: &Query) -> Option<String> {
    let mut terms = query.text("fieldSelector")?.split(',');
    let name = terms.find_map(|term| term.strip_prefix("metadata.name="))?;
    let name = name.strip_prefix('=').unwrap_or(name);
    (!name.is_empty() && !name.contains(['/', '%', '\\'])).then(|| name.to_owned())
}

/// `%2F` is `/`.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The query's parameters, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of a request; none of a query that cannot be read.
    pub fn new(uri: &Uri) -> Self {
        axum::extract::Query::try_from_uri(uri)
            .map_or_else(|_| Query::default(), |axum::extract::Query(pairs)| Query(pairs))
    }

    /// The first value of a parameter that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        values.next().map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of a parameter that may be repeated.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A boolean as Kubernetes reads it: there, and neither `0` nor `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or_default()
    }

    /// A boolean that may be absent.
    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.values(name).next().map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, uri: &str) -> String {
        let info = RequestInfo::new(&method, &uri.parse().expect("a URI"));
        if !info.is_resource {
            return format!("{} path {}", info.verb, info.path);
        }
        let RequestInfo { verb, group, version, resource, subresource, namespace, name, rest, .. } = info;
        format!("{verb} {group}|{version}|{resource}|{subresource} ns={namespace} name={name} rest={rest}")
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let cases = [
            (Method::GET, "/api/v1/pods", "list |v1|pods| ns= name= rest="),
            (Method::GET, "/api/v1/pods?watch=1", "watch |v1|pods| ns= name= rest="),
            (Method::GET, "/api/v1/watch/pods", "watch |v1|pods| ns= name= rest="),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Da", "list |v1|pods| ns= name=a rest="),
            (Method::GET, "/api/v1/namespaces", "list |v1|namespaces| ns= name= rest="),
            (Method::GET, "/api/v1/namespaces/a", "get |v1|namespaces| ns=a name=a rest="),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update |v1|namespaces|finalize ns=a name=a rest="),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "get |v1|pods|log ns=a name=b rest="),
            (Method::GET, "/api/v1/namespaces/a/services/b/proxy/c/d", "get |v1|services|proxy ns=a name=b rest=c/d"),
            (Method::OPTIONS, "/api/v1/namespaces/a/pods/b/proxy/c", " |v1|pods|proxy ns=a name=b rest=c"),
            (Method::OPTIONS, "/api/v1/namespaces/a/pods", "options path /api/v1/namespaces/a/pods"),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection apps|v1|deployments| ns=a name= rest=",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "patch apps|v1|deployments|scale ns=a name=b rest=",
            ),
            (Method::GET, "/apis/g/v1/clusterroles/system%3Anode", "get g|v1|clusterroles| ns= name=system:node rest="),
            (Method::GET, "/apis/apps/v1", "get path /apis/apps/v1"),
            (Method::GET, "/healthz", "get path /healthz"),
            (Method::GET, "/api/v1", "get path /api/v1"),
        ];
        for (method, uri, expected) in cases {
            assert_eq!(info(method, uri), expected, "{uri}");
        }
    }

    #[test]
    fn a_boolean_is_true_unless_it_says_0_or_false() {
        let query = Query::new(&"/?a&b=true&c=0&d=False&e=x".parse().expect("a URI"));
        assert_eq!(
            ["a", "b", "c", "d", "e", "f"].map(|name| query.flag(name)),
            [true, true, false, false, true, false]
        );
    }
}
