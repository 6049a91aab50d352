//! `GET …/log`: a container's output as a chunked text.

use crate::pod_streams::{ContainerRef, LogOptions, LogStream, PodStreams};
use crate::request::Query;
use crate::status::{FieldError, Status};
use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use std::convert::Infallible;

pub(super) async fn answer(
    streams: &dyn PodStreams,
    container: &ContainerRef,
    options: LogOptions,
) -> Result<Response, Status> {
    let logs = streams.logs(container, options).await?;
    let mut response = Response::new(Body::from_stream(logs.map(Ok::<_, Infallible>)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The options of a request, checked.
pub(super) fn options(query: &Query, now: jiff::Timestamp) -> Result<LogOptions, Status> {
    let mut errors = Vec::new();
    let mut number = |name: &str, least: i64| -> Option<u64> {
        let text = query.text(name)?;
        match text.parse::<i64>() {
            Ok(value) if value >= least => u64::try_from(value).ok(),
            _ => {
                let detail = format!("must be greater than or equal to {least}");
                errors.push(FieldError::invalid(name, &text.into(), detail));
                None
            }
        }
    };
    let (tail_lines, limit_bytes) = (number("tailLines", 0), number("limitBytes", 1));
    let since_seconds = number("sinceSeconds", 1);
    let since_time = query.text("sinceTime").map(|text| (text, text.parse::<jiff::Timestamp>()));
    if let Some((text, Err(why))) = &since_time {
        errors.push(FieldError::invalid("sinceTime", &(*text).into(), format!("must be an RFC 3339 time: {why}")));
    }
    if since_seconds.is_some() && since_time.is_some() {
        errors.push(FieldError::forbidden(
            "sinceSeconds",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    let stream = match query.text("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some(LogStream::Stdout),
        Some("Stderr") => Some(LogStream::Stderr),
        Some(other) => {
            errors.push(FieldError::not_supported("stream", &other.into(), &["All", "Stderr", "Stdout"]));
            None
        }
    };
    if stream.is_some() && tail_lines.is_some() {
        let detail = "`tailLines` and specific `stream` are mutually exclusive for now";
        errors.push(FieldError::forbidden("tailLines", detail));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", "", &errors));
    }
    let ago = |seconds: u64| now.checked_sub(jiff::SignedDuration::from_secs(seconds.min(1 << 32) as i64)).ok();
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines,
        since: since_time.and_then(|(_, time)| time.ok()).or_else(|| since_seconds.and_then(ago)),
        limit_bytes,
        stream,
    })
}
