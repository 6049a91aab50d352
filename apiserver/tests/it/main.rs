//! The API server's edge: requests in, answers out, over the in-process router.

mod objects;
mod support;
mod watches;
