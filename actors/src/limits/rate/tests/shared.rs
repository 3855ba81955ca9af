//! Rule FLT-13: the share of one replica in a rate of a whole fleet, without a board.

use breakerbox_policy::RateSharing;

use super::*;

/// A shared limit of five a second with a burst of five, of this number of replicas.
fn shared(max_wait: u64, replicas: u32) -> RateLimit {
    let settings = RateLimitSettings {
        rate: 5.0,
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(5).unwrap(),
        max_wait: Duration::from_millis(max_wait),
    };
    let sharing = Some(RateSharing::default());
    RateLimit::renewed((&settings, sharing), Clock::tokio(), None, replicas)
}

#[tokio::test(start_paused = true)]
async fn flt_13_without_a_board_calls_wait_for_the_own_share_in_their_order() {
    assert_paced(shared(1_000, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn flt_13_another_number_of_replicas_fills_no_share_again() {
    let limit = shared(0, 1);
    let now = limit.clock.now();
    let taken = || (0..20).filter(|_| limit.try_enter(ONE, now)).count();
    assert_eq!(taken(), 5);
    for replicas in [2, 1, 3, 1] {
        limit.share().unwrap().set_replicas(replicas);
        assert_eq!(taken(), 0, "{replicas}");
    }
    let share = shared(0, 5);
    assert!(share.try_enter(ONE, now));
    assert!(!share.try_enter(ONE, now), "a part of the burst");
    assert_eq!(
        share.enter(NonZeroU32::new(2).unwrap(), None).await,
        Err(TooFast::NotBefore(Duration::from_millis(250))),
        "the whole burst would hold it"
    );
}
