//! Metrics of the fleet.

use std::collections::BTreeMap;

use breakerbox_policy::fleet::RateCounts;

use super::series::SeriesFamily;
use super::{truth, whole};
use crate::fleet::FleetFigures;

/// Returns the families of the fleet.
pub(super) fn families(figures: &FleetFigures) -> Vec<SeriesFamily> {
    let mut connected = SeriesFamily::gauge(
        "breakerbox_fleet_connected",
        "1 while the board of the fleet can be reached.",
    );
    connected.add(&[], truth(figures.is_connected));
    let mut replicas = SeriesFamily::gauge(
        "breakerbox_fleet_replicas",
        "Live replicas, this one among them.",
    );
    replicas.add(&[], whole(figures.replicas));
    let mut trip = SeriesFamily::gauge(
        "breakerbox_fleet_round_trip_seconds",
        "Time that the last heartbeat took to come back.",
    );
    if let Some(span) = figures.round_trip {
        trip.add_exact(&[], span.as_secs_f64());
    }
    let mut messages = SeriesFamily::counter(
        "breakerbox_fleet_messages_total",
        "Messages from and to the board.",
    );
    messages.add(&[("direction", "in")], figures.messages_in);
    messages.add(&[("direction", "out")], figures.messages_out);
    let mut all = vec![connected, replicas, trip, messages];
    all.extend(of_dependencies(figures));
    all.push(of_rates(figures));
    all.push(of_token_limits(figures));
    all
}

fn of_rates(figures: &FleetFigures) -> SeriesFamily {
    let mut leases = SeriesFamily::counter(
        "breakerbox_fleet_rate_leases_total",
        "Leases of a shared rate that it asked the board for, and did without.",
    );
    for (name, counts) in &figures.rates {
        for (result, count) in results(counts) {
            leases.add(&[("dependency", &**name), ("result", result)], count);
        }
    }
    leases
}

fn of_token_limits(figures: &FleetFigures) -> SeriesFamily {
    let mut leases = SeriesFamily::counter(
        "breakerbox_fleet_token_leases_total",
        "Leases of a shared token limit that it asked the board for, and did without.",
    );
    // Two limits of the same tokens, such as of a minute and of a day, are one series.
    let mut sums: BTreeMap<(&str, &str), [u64; 3]> = BTreeMap::new();
    for (name, of, counts) in &figures.token_limits {
        let sum = sums.entry((name, of)).or_default();
        for (sum, (_, count)) in sum.iter_mut().zip(results(counts)) {
            *sum += count;
        }
    }
    for ((name, of), sum) in sums {
        let named = results(&RateCounts::default()).map(|(result, _)| result);
        for (result, count) in named.into_iter().zip(sum) {
            let labels = [("dependency", name), ("of", of), ("result", result)];
            leases.add(&labels, count);
        }
    }
    leases
}

fn results(counts: &RateCounts) -> [(&'static str, u64); 3] {
    [
        ("granted", counts.granted),
        ("conflict", counts.conflict),
        ("offline", counts.offline),
    ]
}

fn of_dependencies(figures: &FleetFigures) -> [SeriesFamily; 5] {
    let mut evidence = SeriesFamily::gauge(
        "breakerbox_fleet_evidence",
        "Replicas whose own outcomes hold the breaker open.",
    );
    let mut adopted = SeriesFamily::counter(
        "breakerbox_fleet_adopted_total",
        "Times that the breaker opened or closed with the help of other replicas' words.",
    );
    let mut leases = SeriesFamily::counter(
        "breakerbox_fleet_probe_leases_total",
        "Leases to probe that it got, that another replica had, and that it did without.",
    );
    let mut fenced = SeriesFamily::counter(
        "breakerbox_fleet_fenced_total",
        "Own verdicts that came too late.",
    );
    let mut pauses = SeriesFamily::counter(
        "breakerbox_fleet_pauses_adopted_total",
        "Pauses that another replica was asked for.",
    );
    for (name, count, counts) in &figures.dependencies {
        let name = ("dependency", &**name);
        evidence.add(&[name], *count);
        for (by, count) in [
            ("confirm", counts.confirm),
            ("quorum", counts.quorum),
            ("any", counts.any),
            ("verdict", counts.verdict),
        ] {
            adopted.add(&[name, ("by", by)], count);
        }
        for (result, count) in [
            ("taken", counts.leases_taken),
            ("held", counts.leases_held),
            ("alone", counts.leases_alone),
        ] {
            leases.add(&[name, ("result", result)], count);
        }
        fenced.add(&[name], counts.fenced);
        pauses.add(&[name], counts.pauses);
    }
    [evidence, adopted, leases, fenced, pauses]
}
