//! The figures of two consumers in an outage in which one of them is killed. With
//! `BREAKERBOX_TEST_MESSAGES=10000` the outage lasts for ten seconds.

use std::collections::BTreeSet;
use std::io::Write as _;

use serde_json::Value;

use super::nats::{NatsServer, PATIENCE, Stored, count, publish, stored, stream, until_count};
use super::sidecar::{Service, configure, until_made};
use super::*;
use crate::gateway::serve::{Sidecar, command};

/// Number of messages of the long tests.
fn messages() -> u32 {
    let asked = std::env::var("BREAKERBOX_TEST_MESSAGES");
    asked.map_or(400, |asked| asked.parse().unwrap())
}

/// The four messages over which the service always fails.
fn poison(all: u32) -> BTreeSet<u32> {
    (1..5).map(|part| part * all / 5).collect()
}

/// What is there after the outage.
struct Figures {
    all: u32,
    answers: Vec<Stored>,
    letters: Vec<Stored>,
    while_down: usize,
    /// Most calls that can be made while the service is down.
    bound: usize,
    twice: Vec<(String, usize)>,
    /// The books of the consumer that lives.
    books: Value,
}

/// Publishes the messages with these headers, half of them before the outage. Returns once all of them
/// have ended.
async fn measure(headers: &[(&str, &str)]) -> Option<Figures> {
    let nats = NatsServer::start().await?;
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let own = "ack_wait = \"2s\"\nmax_delay = \"1s\"";
    configure(folder.path(), &nats, &url, own);
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let first = Sidecar::start(command(folder.path()), 1);
    let second = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    let all = messages();
    let poison = poison(all);
    let put = async |number: u32| {
        let text = number.to_string();
        let path = match poison.contains(&number) {
            true => "/poison",
            false => "/work",
        };
        let mut all = vec![("Nats-Msg-Id", &*text), ("x-number", &*text)];
        all.push(("breakerbox-path", path));
        all.extend(headers);
        publish(&context, "calls.web.find", &all, "a question").await;
    };
    for number in 0..all / 2 {
        put(number).await;
    }
    service.set_down(true);
    let span = if all >= 10_000 { 10_000 } else { 2_000 };
    let begun = tokio::time::Instant::now();
    let half = begun + Duration::from_millis(span / 2);
    for number in all / 2..all {
        put(number).await;
    }
    tokio::time::sleep_until(half).await;
    first.signal("KILL");
    tokio::time::sleep_until(begun + Duration::from_millis(span)).await;
    let while_down = service.calls_while_down();
    let lasted = begun.elapsed();
    service.set_down(false);
    // MSG-5: poison alone keeps its breaker open, so that its failures count for nothing.
    let mut more = 0;
    let end = tokio::time::Instant::now() + PATIENCE;
    while count(&context, "dead_web").await < 4 || count(&context, "CALLS").await > 0 {
        assert!(tokio::time::Instant::now() < end, "some have not ended");
        if count(&context, "CALLS").await < 8 {
            put(all + more).await;
            more += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until_count(&context, "CALLS", 0).await;
    let books = reqwest::get(second.admin("/api/consumers")).await.unwrap();
    let books: Value = books.json().await.unwrap();
    let twice = service.by_number().into_iter();
    let periods = usize::try_from(lasted.as_millis() / 300).unwrap() + 1;
    Some(Figures {
        all: all + more,
        answers: stored(&context, "ANSWERS").await,
        letters: stored(&context, "dead_web").await,
        while_down,
        // The threshold and what was in flight at each of two, then one probe a period each.
        bound: 2 * (5 + 16) + 2 * periods,
        twice: twice.filter(|(_, calls)| *calls > 1).collect(),
        books: books[0].clone(),
    })
}

impl Figures {
    /// Checks what holds for messages of any kind. Returns the numbers of the dead letters.
    fn check(&self, name: &str) -> Vec<u32> {
        let ids = self.answers.iter().map(|one| one.header("nats-msg-id"));
        let ids: BTreeSet<&str> = ids.collect();
        let numbers = self.letters.iter().map(|one| one.header("x-number"));
        let numbers: Vec<u32> = numbers.map(|number| number.parse().unwrap()).collect();
        let ended = ids.len() + numbers.iter().collect::<BTreeSet<_>>().len();
        let (fetched, ends) = (self.number("fetched"), self.ends());
        let _ = writeln!(
            std::io::stderr(),
            "{name}: {} messages, lost {}, answered twice {}, {} calls while down (at most {}), executed \
             twice {}, {} dead letters; fetched {fetched} = answered {} + dead {} + given back {} + in flight {}",
            self.all,
            self.all as usize - ended,
            self.answers.len() - ids.len(),
            self.while_down,
            self.bound,
            self.twice.len(),
            numbers.len(),
            self.number("answered"),
            self.sum("dead_letters"),
            self.sum("returned"),
            self.number("in_flight"),
        );
        assert_eq!(ended, self.all as usize, "lost");
        assert_eq!(self.answers.len(), ids.len(), "answered twice");
        assert!(self.while_down <= self.bound, "{} calls", self.while_down);
        assert_eq!(fetched, ends, "{}", self.books);
        numbers
    }

    fn number(&self, name: &str) -> u64 {
        self.books[name].as_u64().unwrap()
    }

    fn sum(&self, name: &str) -> u64 {
        let all = self.books[name].as_object().unwrap().values();
        all.map(|count| count.as_u64().unwrap()).sum()
    }

    fn ends(&self) -> u64 {
        self.number("answered")
            + self.sum("dead_letters")
            + self.sum("returned")
            + self.number("in_flight")
    }
}

#[tokio::test]
async fn msg_3_nothing_is_lost_in_an_outage_with_one_of_two_consumers_killed() {
    let Some(figures) = measure(&[("idempotency-key", "k")]).await else {
        return;
    };
    let mut dead = figures.check("idempotent");
    dead.sort_unstable();
    let poison: Vec<u32> = poison(messages()).into_iter().collect();
    assert_eq!(
        dead, poison,
        "the poison messages are exactly the dead letters"
    );
    for letter in &figures.letters {
        let problem: Value = serde_json::from_str(letter.header("breakerbox-problem")).unwrap();
        assert_eq!(problem["reason"], "failures", "{problem}");
        assert_eq!(problem["executed"], "yes", "{problem}");
        assert_eq!(problem["failures"], 5, "{problem}");
        assert_eq!(problem["consumer"], "jobs", "{problem}");
    }
}

#[tokio::test]
async fn msg_7_what_is_not_idempotent_is_never_executed_twice_though_a_consumer_is_killed() {
    let Some(figures) = measure(&[]).await else {
        return;
    };
    let dead = figures.check("not idempotent");
    assert_eq!(figures.twice, Vec::new(), "executed twice");
    for number in poison(messages()) {
        assert!(dead.contains(&number), "{number} is no dead letter");
    }
    // Those that were called while it was down, and those in flight at the kill.
    assert!(dead.len() <= 4 + figures.while_down + 16, "{dead:?}");
    for letter in &figures.letters {
        let problem: Value = serde_json::from_str(letter.header("breakerbox-problem")).unwrap();
        let told = (&problem["reason"], &problem["executed"]);
        let is_told = told.0 == "maybe" || told.1 == "yes";
        assert!(is_told, "{problem}");
    }
}
