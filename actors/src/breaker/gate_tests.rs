//! Unit tests of the gate, with real atomics; tests/gate_loom.rs runs it with loom's.

use super::gate::*;

#[test]
fn brk_11_a_word_keeps_mode_generation_and_time() {
    for mode in GateMode::ALL {
        let word = GateWord::new(mode, 0x0123_4567_89ab, 1 << 40);
        assert_eq!(word.mode(), mode);
        assert_eq!(word.tag(), tag_of(0x0123_4567_89ab));
        assert_eq!(word.retry_at_ms(), 1 << 40);
    }
    let far = GateWord::new(GateMode::Open, 0, u64::MAX);
    assert_eq!(far.retry_at_ms(), RETRY_MASK, "clamped, not wrapped");
}

#[test]
fn brk_3_successes_of_different_generations_are_never_mixed() {
    let tally = SuccessCounter::new();
    assert_eq!(tally.count(1, 7), None);
    assert_eq!(tally.count(1, 7), None);
    let old = tally.count(2, 7).expect("two of generation 1");
    assert_eq!((old.tag(), old.bucket(), old.count()), (1, 7, 2));
    let rest = tally.take().expect("one of generation 2");
    assert_eq!((rest.tag(), rest.count()), (2, 1));
    assert_eq!(tally.take(), None);
    assert_eq!(tally.count(2, 7), None);
    assert_eq!(tally.count(2, 7), None);
    let rest = tally.take().expect("two since");
    assert_eq!((rest.tag(), rest.bucket(), rest.count()), (2, 7, 2));
    assert_eq!(tally.count(2, 8), None, "all of them were told");
}

#[test]
fn a_bucket_number_is_completed_from_the_present() {
    let wrapped = SuccessBatch::one(0, BUCKET_MASK);
    assert_eq!(wrapped.bucket_before(BUCKET_MASK + 3), BUCKET_MASK);
    assert_eq!(SuccessBatch::one(0, 5).bucket_before(6), 5);
    assert_eq!(SuccessBatch::one(0, 5).bucket_before(5), 5);
}
