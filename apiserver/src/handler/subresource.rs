//! Subresources that the generic handler knows: status, scale, and so on.

use super::{Call, no_such_resource};
use crate::status::Status;
use axum::body::Body;
use axum::response::Response;

impl Call {
    pub(super) async fn subresource(&self, _body: Body) -> Result<Response, Status> {
        Err(no_such_resource())
    }
}
