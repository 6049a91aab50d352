//! The time of day as programs see it: the operating system's at the first look, then tokio's clock.

use jiff::Timestamp;
use std::sync::OnceLock;
use tokio::time::Instant;

/// Now. Follows a paused clock.
pub(super) fn now() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (start, instant) = START.get_or_init(|| (Timestamp::now(), Instant::now()));
    let elapsed = Instant::now().saturating_duration_since(*instant);
    start.checked_add(elapsed).unwrap_or(*start)
}
