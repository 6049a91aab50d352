//! The programs compiled into the binary: `sh`, the busybox, curl and dnsutils tools, and agnhost.

pub mod images;
pub mod standin;
