//! Wall time that follows `tokio::time`: the wall clock at the start plus what the runtime's clock has measured since.
//!
//! Every timestamp the controllers write and every age they compute comes from here, so that a cluster under tokio's
//! paused clock sees one consistent time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The cluster's wall clock. Cheap to copy; all components of one cluster are given the same.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    since: Instant,
}

impl Clock {
    /// A clock which shows `wall` at the moment `since` of the runtime's clock.
    pub fn new(wall: SystemTime, since: Instant) -> Self {
        Clock { wall: Timestamp::try_from(wall).unwrap_or(Timestamp::UNIX_EPOCH), since }
    }

    /// A clock which shows the machine's wall time now and follows the runtime's clock from then on.
    pub fn starting_now() -> Self {
        Clock::new(SystemTime::now(), Instant::now())
    }

    /// The wall time now.
    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    /// The wall time now, as API objects carry it: whole seconds.
    pub(crate) fn time(&self) -> Time {
        whole_seconds(self.now())
    }
}

/// `at`, without the fraction of its second.
pub(crate) fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// How long after `now` the moment `then + delay` comes; `None` when it has come already.
pub(crate) fn until(now: Timestamp, then: Timestamp, delay: Duration) -> Option<Duration> {
    let due =
        then.saturating_add(SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX);
    Duration::try_from(due.duration_since(now)).ok().filter(|left| !left.is_zero())
}

/// Whole seconds of an API field as a duration; negative counts as none.
pub(crate) fn seconds(count: impl Into<i64>) -> Duration {
    Duration::from_secs(u64::try_from(count.into()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_the_runtime() {
        let clock = Clock::new(SystemTime::UNIX_EPOCH + Duration::from_millis(1500), Instant::now());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(clock.now().as_millisecond(), 61_500);
        assert_eq!(clock.time().0.as_millisecond(), 61_000);
    }

    #[test]
    fn what_is_due_already_has_no_time_left() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        assert_eq!(until(at(10), at(5), seconds(10)), Some(Duration::from_secs(5)));
        assert_eq!(until(at(15), at(5), seconds(10)), None);
        assert_eq!(until(at(99), at(5), seconds(10)), None);
    }
}
