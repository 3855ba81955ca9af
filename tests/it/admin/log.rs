//! Log lines of one cycle of a breaker.

use breakerbox_actors::testing::run_paused;
use breakerbox_policy::HalfOpenRule;

use crate::log::Log;
use crate::scripted::{Bench, Do, ms, nonzero, opens_after, pass};

#[test]
fn item_98_one_record_for_each_step_of_a_full_cycle() {
    run_paused(async || {
        let log = Log::capture_all();
        let bench = Bench::start(|settings| {
            opens_after(3, ms(500))(settings);
            settings.breaker.half_open.rule = HalfOpenRule::Successes(nonzero(3));
        })
        .await;
        bench.fail_until_open().await;
        pass(501).await;
        for _ in 0..3 {
            bench.ask(Do::Answer(1)).await.unwrap();
        }
        let moves = log.lines("breaker moved");
        assert_eq!(moves.len(), 3, "{moves:#?}");
        let wanted = [
            [
                "WARN",
                "from=closed to=open",
                "failures=3",
                "retry_after_ms=500",
                "at or above 3",
            ],
            [
                "INFO",
                "from=open to=half_open",
                "failures=0",
                "cause=the open time is over",
                "calls=0",
            ],
            [
                "INFO",
                "from=half_open to=closed",
                "calls=3",
                "probes=\"3/3\"",
                "cause=3 probes succeeded",
            ],
        ];
        for (line, words) in moves.iter().zip(wanted) {
            for word in [&words[..], &["dependency=\"dep\""]].concat() {
                assert!(line.contains(word), "{word:?} is missing: {line}");
            }
        }
        let failed = log.lines("call failed, ");
        for (line, count) in failed.iter().zip(["1/3", "2/3"]) {
            assert!(
                line.contains("DEBUG")
                    && line.contains(&format!("call failed, {count} dependency=\"dep\"")),
                "{line}"
            );
        }
        // The third failure is logged as the transition.
        assert_eq!(failed.len(), 2, "{failed:#?}");
        let probes = log.lines("probe succeeded, ");
        assert_eq!(probes.len(), 2, "{probes:#?}");
        for (line, count) in probes.iter().zip(["1/3", "2/3"]) {
            assert!(
                line.contains("INFO")
                    && line.contains(count)
                    && line.contains("dependency=\"dep\""),
                "{line}"
            );
        }
        bench.finish().await;
    });
}
