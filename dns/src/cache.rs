//! Remembered answers of upstreams: for as long as their records live, never longer than the configured time.

use crate::upstream::Answer;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Answers kept; the oldest make room.
const CAPACITY: usize = 4096;

type Question = (Name, RecordType);

#[derive(Debug)]
struct Entry {
    answer: Answer,
    since: Instant,
    until: Instant,
}

/// Answers by question.
#[derive(Debug)]
pub(crate) struct Cache {
    longest: Duration,
    entries: HashMap<Question, Entry>,
    /// Every entry once, by the time it came in. May name entries that have been replaced since.
    order: VecDeque<(Question, Instant)>,
}

impl Cache {
    /// Keeps answers for `longest` at most.
    pub(crate) fn new(longest: Duration) -> Cache {
        Cache { longest, entries: HashMap::new(), order: VecDeque::new() }
    }

    /// An answer that is still good, its times to live shortened by its age.
    pub(crate) fn get(&mut self, name: &Name, kind: RecordType, now: Instant) -> Option<Answer> {
        let question = (name.clone(), kind);
        let entry = self.entries.get(&question)?;
        if now >= entry.until {
            self.entries.remove(&question);
            return None;
        }
        let age = u32::try_from(now.duration_since(entry.since).as_secs()).unwrap_or(u32::MAX);
        let mut answer = entry.answer.clone();
        let Answer { answers, authorities, additionals, .. } = &mut answer;
        for record in [answers, authorities, additionals].into_iter().flatten() {
            record.decrement_ttl(age);
        }
        Some(answer)
    }

    pub(crate) fn insert(&mut self, name: &Name, kind: RecordType, answer: Answer, now: Instant) {
        let lifetime = lifetime(&answer).min(self.longest);
        if lifetime.is_zero() {
            return;
        }
        while self.order.len() >= CAPACITY {
            let Some((question, since)) = self.order.pop_front() else { break };
            if self.entries.get(&question).is_some_and(|entry| entry.since == since) {
                self.entries.remove(&question);
            }
        }
        let question = (name.clone(), kind);
        self.order.push_back((question.clone(), now));
        self.entries.insert(question, Entry { answer, since: now, until: now + lifetime });
    }
}

/// The shortest life among the records; of a negative answer, what its SOA says (RFC 2308 5), and none without one.
fn lifetime(answer: &Answer) -> Duration {
    let seconds = if answer.code == ResponseCode::NoError && !answer.answers.is_empty() {
        answer.answers.iter().map(|record| record.ttl).min()
    } else {
        answer.authorities.iter().find_map(negative_ttl)
    };
    Duration::from_secs(seconds.unwrap_or(0).into())
}

fn negative_ttl(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::{A, SOA};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn positive(ttl: u32) -> Answer {
        let record = Record::from_rdata(name("a.example."), ttl, RData::A(A([192, 0, 2, 1].into())));
        Answer { code: ResponseCode::NoError, answers: vec![record], authorities: vec![], additionals: vec![] }
    }

    fn negative(ttl: u32, minimum: u32) -> Answer {
        let soa = RData::SOA(SOA::new(name("ns."), name("me."), 1, 1, 1, 1, minimum));
        let authorities = vec![Record::from_rdata(name("example."), ttl, soa)];
        Answer { code: ResponseCode::NXDomain, answers: vec![], authorities, additionals: vec![] }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_as_long_as_its_records_live_and_thirty_seconds_at_most() {
        for (answer, kept) in [
            (positive(300), 30),
            (positive(7), 7),
            (positive(0), 0),
            (negative(60, 5), 5),
            (negative(3, 60), 3),
            (Answer { authorities: vec![], ..negative(60, 60) }, 0),
        ] {
            let mut cache = Cache::new(Duration::from_secs(30));
            let now = Instant::now();
            cache.insert(&name("a.example."), RecordType::A, answer, now);
            let mut lives = |seconds: f64| {
                cache.get(&name("A.Example."), RecordType::A, now + Duration::from_secs_f64(seconds)).is_some()
            };
            assert!(kept == 0 || lives(f64::from(kept) - 0.1), "{kept}");
            assert!(!lives(f64::from(kept)), "{kept}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_answers_time_to_live_runs_down() {
        let mut cache = Cache::new(Duration::from_secs(30));
        let now = Instant::now();
        cache.insert(&name("a.example."), RecordType::A, positive(300), now);
        let answer = cache.get(&name("a.example."), RecordType::A, now + Duration::from_secs(10)).unwrap();
        assert_eq!(answer.answers[0].ttl, 290);
        assert_eq!(cache.get(&name("a.example."), RecordType::AAAA, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_answers_make_room() {
        let mut cache = Cache::new(Duration::from_secs(30));
        let now = Instant::now();
        for n in 0..=CAPACITY {
            cache.insert(&name(&format!("{n}.example.")), RecordType::A, positive(30), now);
        }
        assert_eq!((cache.entries.len(), cache.order.len()), (CAPACITY, CAPACITY));
        assert_eq!(cache.get(&name("0.example."), RecordType::A, now), None);
        assert!(cache.get(&name("1.example."), RecordType::A, now).is_some());
    }
}
