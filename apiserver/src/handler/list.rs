//! GET of a collection: selected objects on one snapshot, in pages.

use super::Call;
use super::list_body::ListBody;
use crate::list_options::{Continue, ListOptions};
use crate::negotiate::{Form, Format};
use crate::status::Status;
use crate::{storage, table};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{KeyValue, Page, Range, RangeError, Revision};

const EXPIRED: &str = "The resourceVersion for the provided list is too old.";
const TOKEN_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
     without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing \
     with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the \
     first chunk was returned and now may show up in the list.";

/// The selected objects of one page.
pub(super) struct Selected {
    pub(super) revision: Revision,
    pub(super) items: Vec<KeyValue>,
    /// Where the next page begins, if there is one.
    next: Option<String>,
    /// How many come after it; only known without a selector.
    remaining: Option<usize>,
}

impl Call {
    pub(super) async fn list(&self) -> Result<Response, Status> {
        let options = ListOptions::new(&self.kind, &self.query, false)?;
        let selected = match (self.select(&options).await, &options.continue_from) {
            (Err(expired), Some(token)) if expired.code == 410 => return Ok(self.expired(&expired, token)),
            (selected, _) => selected?,
        };
        let mut metadata = json!({"resourceVersion": selected.revision.0.to_string()});
        if let Some(next) = selected.next {
            metadata["continue"] = next.into();
            if let Some(remaining) = selected.remaining {
                metadata["remainingItemCount"] = remaining.into();
            }
        }
        self.list_of(selected.items, metadata)
    }

    /// One page of what the options select.
    pub(super) async fn select(&self, options: &ListOptions) -> Result<Selected, Status> {
        let prefix = storage::prefix(&self.kind, self.namespace());
        if let Some(version) = options.resource_version {
            self.not_in_the_future(Revision(version))?;
        }
        let mut at = options.resource_version.filter(|_| options.exact).map(Revision);
        let mut after = None;
        if let Some(token) = &options.continue_from {
            at = token.revision;
            after = Some(Arc::from(format!("{prefix}{}", token.after)));
        }
        // A selector that says the name needs no scan.
        let one_namespace = !self.kind.namespaced || !self.namespace().is_empty();
        if let (Some(name), true, None, None) = (options.selector.name(), one_namespace, at, &after) {
            let revision = self.server.revision();
            let found = self.server.inner.store.get(&self.kind.key(self.namespace(), name)).await;
            let found = found.map_err(Status::internal)?;
            let revision = found.as_ref().map_or(revision, |kv| revision.max(kv.mod_revision));
            let mut items = Vec::new();
            for kv in found.into_iter() {
                if options.selector.matches_stored(&self.kind, &kv)? {
                    items.push(kv);
                }
            }
            return Ok(Selected { revision, items, next: None, remaining: None });
        }
        let mut items = Vec::new();
        loop {
            let limit =
                if options.selector.is_empty() || options.limit == 0 { options.limit } else { options.limit.max(500) };
            let range = Range { prefix: prefix.clone(), after: after.clone(), limit, at };
            let page = self.server.inner.store.range(range).await;
            let page = page.map_err(|error| self.range_error(error, options))?;
            let Page { revision, items: found, remaining } = page;
            at = Some(revision);
            let count = found.len();
            for (index, kv) in found.into_iter().enumerate() {
                let key = kv.key.clone();
                if options.selector.matches_stored(&self.kind, &kv)? {
                    items.push(kv);
                }
                let left = count - index - 1 + remaining;
                if options.limit > 0 && items.len() == options.limit && left > 0 {
                    let start = key[prefix.len()..].to_owned();
                    let next = Continue { revision: Some(revision), after: start }.encode();
                    let remaining = options.selector.is_empty().then_some(left);
                    return Ok(Selected { revision, items, next: Some(next), remaining });
                }
                after = Some(key);
            }
            if remaining == 0 {
                return Ok(Selected { revision, items, next: None, remaining: None });
            }
        }
    }

    /// A snapshot that is gone: the answer has a token for the rest, from the newest one.
    fn expired(&self, status: &Status, token: &Continue) -> Response {
        let mut body = status.to_json();
        body["metadata"]["continue"] = Continue { revision: None, after: token.after.clone() }.encode().into();
        body["metadata"]["resourceVersion"] = self.server.revision().0.to_string().into();
        self.plain(StatusCode::GONE, &body)
    }

    fn range_error(&self, error: RangeError, options: &ListOptions) -> Status {
        match error {
            RangeError::Unavailable(unavailable) => Status::internal(unavailable),
            RangeError::Future { asked, .. } => {
                self.not_in_the_future(asked).err().unwrap_or_else(|| Status::internal("a revision from the future"))
            }
            RangeError::Compacted { .. } if options.continue_from.is_some() => {
                Status::failure(410, "Expired", TOKEN_EXPIRED)
            }
            RangeError::Compacted { asked, oldest } => {
                Status::failure(410, "Expired", format!("{EXPIRED} ({} < {})", asked.0, oldest.0))
            }
        }
    }

    /// These objects as a list, in the form the client wants.
    pub(super) fn list_of(&self, items: Vec<KeyValue>, metadata: Value) -> Result<Response, Status> {
        let kind = &self.kind;
        if (self.media.form, self.media.format) == (Form::Object, Format::Json) {
            return ListBody::new(kind.clone(), items, &metadata).answer();
        }
        let objects = items.iter().map(|kv| storage::decode(kind, kv)).collect::<Result<Vec<Value>, _>>()?;
        let list = match self.media.form {
            Form::Object => json!({
                "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": objects,
            }),
            Form::Metadata { version } => {
                let items: Vec<Value> = objects.iter().map(|object| table::partial(object, version)).collect();
                let api_version = version.api_version();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": metadata, "items": items})
            }
            Form::Table { version, include } => {
                table::table(kind, &objects, (version, include), metadata, true, self.server.now())
            }
        };
        Ok(self.plain(StatusCode::OK, &list))
    }
}
