//! Metrics of consumers of messages. The label is the name of a consumer of the configuration or of
//! the program: no message can make up a series.

use breakerbox_policy::{DeadReason, ReturnReason};

use super::series::SeriesFamily;
use super::truth;
use crate::{ConsumerPause, ConsumerStatus};

/// Returns the families of all consumers.
pub(super) fn families(consumers: &[ConsumerStatus]) -> [SeriesFamily; 8] {
    let mut fetched = SeriesFamily::counter(
        "breakerbox_consumer_fetched_total",
        "Deliveries of messages that were fetched.",
    );
    let mut redelivered = SeriesFamily::counter(
        "breakerbox_consumer_redelivered_total",
        "Those among them that were not the first of their message.",
    );
    let mut answered = SeriesFamily::counter(
        "breakerbox_consumer_answered_total",
        "Messages that ended with an answer.",
    );
    let mut returned = SeriesFamily::counter(
        "breakerbox_consumer_returned_total",
        "Deliveries that were given back, by the reason.",
    );
    let mut dead = SeriesFamily::counter(
        "breakerbox_consumer_dead_letters_total",
        "Messages that became dead letters, by the reason.",
    );
    let mut in_flight = SeriesFamily::gauge(
        "breakerbox_consumer_in_flight",
        "Messages with an open fate.",
    );
    let mut pending = SeriesFamily::gauge(
        "breakerbox_consumer_pending",
        "Messages of the stream that wait.",
    );
    let mut paused = SeriesFamily::gauge(
        "breakerbox_consumer_paused",
        "1 while nothing is fetched for this reason.",
    );
    for one in consumers {
        let name = ("consumer", one.name.as_str());
        let tally = &one.tally;
        fetched.add(&[name], tally.fetched);
        redelivered.add(&[name], tally.redelivered);
        answered.add(&[name], tally.answered);
        for reason in ReturnReason::ALL {
            let labels = [name, ("reason", reason.as_str())];
            returned.add(&labels, tally.returned(reason));
        }
        for reason in DeadReason::ALL {
            dead.add(&[name, ("reason", reason.as_str())], tally.dead(reason));
        }
        in_flight.add(&[name], tally.in_flight);
        pending.add(&[name], one.pending);
        for reason in ConsumerPause::ALL {
            let labels = [name, ("reason", reason.as_str())];
            paused.add(&labels, truth(one.paused == Some(reason)));
        }
    }
    [
        fetched,
        redelivered,
        answered,
        returned,
        dead,
        in_flight,
        pending,
        paused,
    ]
}
