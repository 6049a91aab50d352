//! One handler for every kind: it looks up the row of the registry and does what the verb says.
//!
//! Each verb is a file; what they share (the [`Call`]) is here. Discovery, OpenAPI and health are not here.

mod admission;
mod body;
mod create;
mod delete;
mod list;
mod list_body;
mod options;
mod patch;
mod pods;
mod subresource;
mod update;
mod watch;
mod write;

use crate::authn::UserInfo;
use crate::extension::{VirtualRequest, key};
use crate::list_options::read_version;
use crate::negotiate::{Form, Format, Media};
use crate::registry::ResourceKind;
use crate::request::{Query, RequestInfo};
use crate::status::Status;
use crate::storage::{self, Stored};
use crate::streams::watch_socket::Socket;
use crate::{ApiServer, encode, schema, table};
use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::WARNING;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{KeyValue, Revision};

/// One request for a resource, with everything found out about it.
pub(crate) struct Call {
    pub(crate) server: ApiServer,
    pub(crate) kind: Arc<ResourceKind>,
    pub(crate) info: RequestInfo,
    pub(crate) user: UserInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) media: Media,
    warnings: Mutex<Vec<String>>,
}

/// Serves what no other route took.
pub(crate) async fn handle(
    Extension(server): Extension<ApiServer>,
    Extension(info): Extension<RequestInfo>,
    Extension(user): Extension<UserInfo>,
    request: Request,
) -> Response {
    match dispatch(server, info, user, request).await {
        Ok(response) => response,
        Err(status) => encode::failure(&status),
    }
}

/// Answers a method that a route beside the resources does not know.
pub(crate) async fn refuse_method() -> Response {
    encode::failure(&not_allowed())
}

/// The answer to a path that leads nowhere.
pub(crate) fn no_such_resource() -> Status {
    let mut status = Status::failure(404, "NotFound", "the server could not find the requested resource");
    status.details = Some(json!({}));
    status
}

fn not_allowed() -> Status {
    let mut status =
        Status::failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    status.details = Some(json!({}));
    status
}

async fn dispatch(server: ApiServer, info: RequestInfo, user: UserInfo, request: Request) -> Result<Response, Status> {
    if !info.is_resource {
        let method = request.method();
        let unusual = matches!(*method, Method::OPTIONS | Method::TRACE | Method::CONNECT);
        let of_resource = unusual && RequestInfo::new(&Method::GET, request.uri()).is_resource;
        return Err(if of_resource { not_allowed() } else { no_such_resource() });
    }
    let extension = key(&info.group, &info.version, &info.resource_path());
    let connector = server.inner.connectors.read().get(&extension).cloned();
    if let Some(connector) = connector {
        return connector.connect(&server, request).await;
    }
    let kind = server.registry().lookup(&info.group, &info.version, &info.resource).cloned();
    let kind = kind.ok_or_else(no_such_resource)?;
    let (mut parts, body) = request.into_parts();
    let socket = if info.verb == "watch" { Socket::asked(&mut parts).await } else { None };
    let query = Query::new(&parts.uri);
    let media = Media::new(&parts.headers, &query)?;
    let warnings = Mutex::new(deprecation(&kind).map(str::to_owned).into_iter().collect());
    let call = Call { server: server.clone(), kind, info, user, query, headers: parts.headers, media, warnings };
    let computed = server.inner.virtual_resources.read().get(&extension).cloned();
    let mut response = if let Some(computed) = computed {
        call.check_verb().map_err(|refusal| match computed.instead(&call.info.verb) {
            Some(message) => Status { message: message.to_owned(), ..refusal },
            None => refusal,
        })?;
        let body = call.question(body).await?;
        let (info, query) = (&call.info, &call.query);
        let answer = computed.answer(VirtualRequest { server: &server, user: &call.user, info, query, body }).await?;
        let code = if call.info.verb == "create" { StatusCode::CREATED } else { StatusCode::OK };
        call.computed(code, &answer)
    } else {
        call.check_path()?;
        if call.info.verb == "watch" {
            let watch = call.watch().await?;
            return Ok(match socket {
                Some(socket) => socket.carry(watch),
                None => watch,
            });
        }
        call.serve(body).await?
    };
    for warning in call.warnings.into_inner() {
        // RFC 9110 (5.5): what cannot stand in a header is left out.
        if let Ok(value) = HeaderValue::from_str(&schema::check::warning_header(&warning)) {
            response.headers_mut().append(WARNING, value);
        }
    }
    Ok(response)
}

/// What is said to everybody who uses a kind that Kubernetes has given up.
fn deprecation(kind: &ResourceKind) -> Option<&'static str> {
    match (&*kind.group, &*kind.version, &*kind.kind) {
        ("", "v1", "Endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "v1", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

impl Call {
    /// Whether the kind has what the path and verb ask for.
    fn check_path(&self) -> Result<(), Status> {
        let (kind, info) = (&self.kind, &self.info);
        let in_namespace = !info.namespace.is_empty();
        if !kind.namespaced && in_namespace && kind.plural != "namespaces" {
            return Err(no_such_resource());
        }
        let collection = matches!(info.verb.as_str(), "list" | "watch");
        if kind.namespaced && !in_namespace && !collection {
            return Err(if info.name.is_empty() { not_allowed() } else { no_such_resource() });
        }
        let to_collection = matches!(info.verb.as_str(), "create" | "deletecollection");
        let misplaced = info.subresource.is_empty() && !collection && to_collection != info.name.is_empty();
        if misplaced { Err(not_allowed()) } else { self.check_verb() }
    }

    /// Whether discovery says that this can be done with the resource.
    fn check_verb(&self) -> Result<(), Status> {
        let (kind, info) = (&self.kind, &self.info);
        let verbs = if info.subresource.is_empty() {
            &kind.verbs
        } else {
            let mut all = kind.subresources.iter();
            &all.find(|subresource| subresource.name == info.subresource).ok_or_else(no_such_resource)?.verbs
        };
        if verbs.iter().any(|verb| *verb == info.verb) { Ok(()) } else { Err(not_allowed()) }
    }

    async fn serve(&self, body: Body) -> Result<Response, Status> {
        let kind = &self.kind;
        match (self.info.verb.as_str(), self.info.subresource.as_str()) {
            ("get", "") => self.get().await,
            ("list", "") => self.list().await,
            ("create", "") if (kind.group.as_ref(), kind.plural.as_ref()) == ("", "bindings") => {
                self.bind_named(body).await
            }
            // What is asked, not kept, and nobody is there to answer.
            ("create", "") if !kind.verbs.iter().any(|verb| verb == "get") => Err(no_such_resource()),
            ("create", "") => self.create(body).await,
            ("update", _) => self.update(body).await,
            ("patch", _) => self.patch(body).await,
            ("delete", "") => self.delete(body).await,
            ("deletecollection", "") => self.delete_collection(body).await,
            _ => self.subresource(body).await,
        }
    }

    /// Says something to the user beside the answer.
    pub(crate) fn warn(&self, warning: impl Into<String>) {
        let (warning, mut said) = (warning.into(), self.warnings.lock());
        if !said.contains(&warning) {
            said.push(warning);
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        if self.kind.namespaced { &self.info.namespace } else { "" }
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.kind.group, &self.kind.plural, &self.info.name)
    }

    pub(crate) fn conflict(&self, name: &str, why: &str) -> Status {
        Status::conflict(&self.kind.group, &self.kind.plural, name, why)
    }

    pub(crate) async fn existing(&self) -> Result<Stored, Status> {
        let found = self.server.read(&self.kind, self.namespace(), &self.info.name).await?;
        found.ok_or_else(|| self.not_found())
    }

    async fn get(&self) -> Result<Response, Status> {
        let key = self.kind.key(self.namespace(), &self.info.name);
        let found = self.server.inner.store.get(&key).await.map_err(Status::internal)?;
        if let Some(at_least) = self.query.text("resourceVersion") {
            let at_least = read_version(&self.kind, &self.info.name, at_least)?;
            self.not_in_the_future(Revision(at_least))?;
        }
        self.object(StatusCode::OK, &found.ok_or_else(|| self.not_found())?)
    }

    /// A client that has seen another, newer history is told so, to try again.
    pub(crate) fn not_in_the_future(&self, asked: Revision) -> Result<(), Status> {
        let newest = self.server.revision();
        if asked <= newest {
            return Ok(());
        }
        let message = format!("Too large resource version: {}, current: {}", asked.0, newest.0);
        let mut status = Status::failure(504, "Timeout", format!("Timeout: {message}"));
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        status.details = Some(json!({"causes": causes, "retryAfterSeconds": 1}));
        Err(status)
    }

    /// One object, in the form the client wants.
    pub(crate) fn object(&self, code: StatusCode, kv: &KeyValue) -> Result<Response, Status> {
        if self.media == Media::default() {
            let mut out = Vec::with_capacity(kv.value.len() + 64);
            storage::append(&self.kind, &mut out, kv)?;
            return Ok(encode::json_bytes(code, out));
        }
        Ok(self.value(code, &storage::decode(&self.kind, kv)?))
    }

    /// The same of an object that is already decoded.
    pub(crate) fn value(&self, code: StatusCode, object: &Value) -> Response {
        match self.media.form {
            Form::Object => encode::value(code, object, self.media),
            Form::Metadata { version } => encode::value(code, &table::partial(object, version), self.media),
            Form::Table { version, include } => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let now = self.server.now();
                let table = table::table(&self.kind, [object], (version, include), metadata, true, now);
                encode::value(code, &table, self.media)
            }
        }
    }

    /// A computed object or list, which may be wanted as a table too.
    fn computed(&self, code: StatusCode, answer: &Value) -> Response {
        let Form::Table { version, include } = self.media.form else { return self.plain(code, answer) };
        let of_kind = |object: &Value| object["kind"].as_str() == Some(&self.kind.kind);
        match answer["items"].as_array() {
            Some(items) => {
                let metadata = answer["metadata"].clone();
                let table = table::table(&self.kind, items, (version, include), metadata, true, self.server.now());
                encode::value(code, &table, self.media)
            }
            None if of_kind(answer) => self.value(code, answer),
            None => self.plain(code, answer),
        }
    }

    /// Something that has only one form.
    pub(crate) fn plain(&self, code: StatusCode, value: &Value) -> Response {
        let format = if self.media.format == Format::Pretty { Format::Pretty } else { self.media.format };
        encode::value(code, value, Media { form: Form::Object, format })
    }
}
