//! Streams with fallbacks (rules FBK-1 to FBK-3): a fallback answers only while nothing was
//! delivered.

use breakerbox_actors::testing::{ScriptedError, run_paused};
use breakerbox_actors::{
    AnswerSource, CallError, CallOptions, Dependency, FallbackRule, Fixed, Served, StaleCache,
};
use breakerbox_policy::{Class, DependencySettings, State, WhenAllDown};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, iter};

use crate::scripted::{Bench, Dep, Do, Error, ms, opens_after, refused_connection};

type Items = BoxStream<'static, Result<u32, ScriptedError>>;
type Asked = Result<Served<Items, u32>, Error>;

/// Makes a call that opens a stream of these items, or fails to open it.
async fn stream(bench: &Bench, request: Do, opens: Result<Vec<u32>, ScriptedError>) -> Asked {
    let open = || {
        let items = opens.clone();
        async { items.map(|items| iter(items.into_iter().map(Ok)).boxed()) }
    };
    let classify = |result: Result<&Items, &ScriptedError>| match result {
        Ok(_) => Class::Success.into(),
        Err(error) => Dep::classify(Err(error)),
    };
    let options = CallOptions::default();
    let asked = bench
        .client
        .stream_or_answer(request, options, classify, open);
    asked.await
}

async fn items(served: Asked) -> Vec<u32> {
    match served.expect("an answer") {
        Served::Stream(stream) => stream.map(|item| item.expect("an item")).collect().await,
        Served::Answer(answer) => panic!("{answer:?} is no stream"),
    }
}

fn source(served: Asked) -> (u32, AnswerSource) {
    match served.expect("an answer") {
        Served::Answer(answer) => (answer.value, answer.source),
        Served::Stream(_) => panic!("a stream"),
    }
}

fn fixed() -> Vec<FallbackRule<Dep>> {
    vec![FallbackRule::new(Fixed(7))]
}

fn by_fixed() -> (u32, AnswerSource) {
    (7, AnswerSource::Fallback("fixed".into()))
}

#[test]
fn fbk_1_a_fallback_answers_for_a_stream_that_does_not_open() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(opens_after(1, ms(60_000)), fixed()).await;
        assert_eq!(
            items(stream(&bench, Do::Hang, Ok(vec![1, 2])).await).await,
            [1, 2]
        );
        let failing = stream(&bench, Do::Hang, Err(refused_connection())).await;
        assert_eq!(source(failing), by_fixed());
        assert_eq!(bench.state(), State::Open);
        let refused = stream(&bench, Do::Hang, Ok(vec![1])).await;
        assert_eq!(source(refused), by_fixed());
        let totals = bench.status().totals;
        assert_eq!(
            (totals.submitted, totals.primary, totals.fallback),
            (3, 1, 2)
        );
        assert_eq!(
            (totals.failed, totals.refused, totals.in_flight()),
            (0, 0, 0)
        );
        bench.finish().await;
    });
}

#[test]
fn fbk_2_the_caller_s_own_mistake_is_not_covered_up() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(|_| {}, fixed()).await;
        let wrong = ScriptedError::new(Class::Rejected, "no such item");
        let error = stream(&bench, Do::Hang, Err(wrong)).await.unwrap_err();
        assert!(matches!(error, CallError::Failed { .. }), "{error}");
        assert_eq!(bench.status().totals.failed, 1);
        bench.finish().await;
    });
}

#[test]
fn fbk_1_a_stream_that_breaks_later_is_its_caller_s() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(|_| {}, fixed()).await;
        let open = async || Ok::<Items, _>(iter([Ok(1), Err(refused_connection())]).boxed());
        let by_default = |result: Result<&Items, &ScriptedError>| {
            result.map_or_else(|error| Dep::classify(Err(error)), |_| Class::Success.into())
        };
        let options = CallOptions::default();
        let served = bench
            .client
            .stream_or_answer(Do::Hang, options, by_default, open);
        let Served::Stream(stream) = served.await.unwrap() else {
            panic!("a fallback answered for what was delivered");
        };
        let came: Vec<_> = stream.collect().await;
        assert!(
            matches!(came[..], [Ok(1), Err(CallError::Failed { .. })]),
            "{came:?}"
        );
        let totals = bench.status().totals;
        assert_eq!((totals.failed, totals.fallback), (1, 0));
        bench.finish().await;
    });
}

#[test]
fn fbk_3_what_is_shown_is_kept_and_given_with_its_age() {
    run_paused(async || {
        let cache = FallbackRule::new(StaleCache::new(ms(60_000), 10));
        let bench = Bench::with_fallbacks(|_| {}, vec![cache]).await;
        let request = Do::Answer(0);
        assert_eq!(
            items(stream(&bench, request.clone(), Ok(vec![5])).await).await,
            [5]
        );
        bench.client.remember(&request, &5);
        crate::scripted::pass(500).await;
        let failing = stream(&bench, request, Err(refused_connection())).await;
        let Ok(Served::Answer(answer)) = failing else {
            panic!("{failing:?}");
        };
        assert_eq!((answer.value, answer.age), (5, Some(ms(500))));
        let other = stream(&bench, Do::Answer(9), Err(refused_connection())).await;
        assert!(matches!(other, Err(CallError::Failed { .. })), "{other:?}");
        bench.finish().await;
    });
}

#[test]
fn call_5_the_last_resort_of_a_stream_is_a_worker() {
    let tries = |settings: &mut DependencySettings| {
        opens_after(1, ms(60_000))(settings);
        settings.when_all_down = WhenAllDown::Try;
    };
    run_paused(async || {
        let bench = Bench::start(tries).await;
        let failing = stream(&bench, Do::Fail, Err(refused_connection())).await;
        assert!(
            matches!(failing, Err(CallError::Failed { .. })),
            "{failing:?}"
        );
        let last = stream(&bench, Do::Answer(3), Ok(vec![1])).await;
        assert_eq!(source(last), (3, AnswerSource::Primary));
        assert_eq!(bench.script.calls(), 1, "the stream was not opened");
        let totals = bench.status().totals;
        assert_eq!((totals.primary, totals.failed), (1, 1));
        bench.finish().await;
    });
}

#[test]
fn call_1_a_stream_without_fallbacks_ends_with_its_own_error() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(60_000))).await;
        let failing = stream(&bench, Do::Hang, Err(refused_connection())).await;
        assert!(
            matches!(failing, Err(CallError::Failed { .. })),
            "{failing:?}"
        );
        assert_eq!(bench.client.state(), "open");
        let refused = stream(&bench, Do::Hang, Ok(vec![1])).await;
        assert!(matches!(refused, Err(CallError::Open(_))), "{refused:?}");
        let totals = bench.status().totals;
        assert_eq!((totals.submitted, totals.failed, totals.refused), (2, 1, 1));
        bench.finish().await;
    });
}
