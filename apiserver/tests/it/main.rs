//! The API server's edge: requests in, answers out, over the in-process router.

mod access;
mod added_kind;
mod admission;
mod apply;
mod bad_requests;
mod bound_tokens;
mod connections;
mod credentials;
mod deletion;
mod forms;
mod garbage;
mod health;
mod house;
mod objects;
mod own_schemas;
mod parts;
mod proxies;
mod quota;
mod races;
mod reads;
mod stream_client;
mod streams;
mod support;
mod upstream;
mod watches;
mod writes;
