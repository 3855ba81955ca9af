//! Items 38 and 51: health checks bypass every fallback.

use breakerbox::Health;
use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::agents::health::{CheckStatus, HealthMonitor, HealthReport, Trend};
use breakerbox::agents::{ContentStore, VectorConfig, VectorSearch};

use super::{Rig, run};
use crate::scripted::nonzero;

fn marks(report: &HealthReport) -> [CheckStatus; 4] {
    ["environment", "authentication", "embedding", "search"]
        .map(|name| report.check(name).unwrap().mark)
}

#[test]
fn item_51_each_check_tells_of_its_own_trouble() {
    use CheckStatus::{Error, Ok, Warn};
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|_| {}).await;
        let clock = rig.runtime.clock().clone();
        let report = vector.check_health(&clock).await;
        assert_eq!(marks(&report), [Ok; 4]);
        assert_eq!((report.overall, report.success_rate), (Ok, 100));
        assert_eq!(report.advice, Vec::new());

        rig.fakes.set(Operation::Embed, Some(FakeFault::internal()));
        let report = vector.check_health(&clock).await;
        assert_eq!(marks(&report), [Ok, Ok, Error, Ok]);
        assert_eq!((report.overall, report.success_rate), (Error, 75));
        let advice = &report.advice[0];
        assert_eq!((advice.priority, advice.category), ("high", "embedding"));
        rig.fakes.set(Operation::Embed, None);

        // The index answers but is empty.
        let nothing = rig.fakes.vector_config();
        let empty = breakerbox::agents::fakes::Fakes::start().await.unwrap();
        let other = VectorConfig::from_variables(|name| {
            name.starts_with("GOOGLE_CLOUD_P").then(|| "p".to_owned())
        });
        let other = VectorConfigParts {
            from: nothing,
            name: "empty",
            base: empty.base(),
        }
        .into_config(other);
        let vector = VectorSearch::start(&rig.runtime, other, ContentStore::default())
            .await
            .unwrap();
        let report = vector.check_health(&clock).await;
        assert_eq!(marks(&report), [Ok, Ok, Ok, Warn]);
        assert_eq!((report.overall, report.success_rate), (Warn, 75));
        rig.finish().await;
    });
}

/// Complete configuration under another name, at another address.
struct VectorConfigParts {
    from: VectorConfig,
    name: &'static str,
    base: String,
}

impl VectorConfigParts {
    fn into_config(self, mut given: VectorConfig) -> VectorConfig {
        given.index_endpoint = self.from.index_endpoint;
        given.deployed_index = self.from.deployed_index;
        given.credentials =
            breakerbox::agents::Credentials::Endpoint(format!("{}/token", self.base));
        given.name = self.name.to_owned();
        given.base = Some(self.base);
        given
    }
}

#[test]
fn item_51_nothing_set_up_is_critical_and_what_is_missing_is_named() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = VectorSearch::start(
            &rig.runtime,
            VectorConfig::from_variables(|_| None),
            Rig::store(),
        )
        .await
        .unwrap();
        let report = vector.check_health(rig.runtime.clock()).await;
        assert_eq!(marks(&report), [CheckStatus::Error; 4]);
        assert_eq!(
            (report.overall, report.success_rate),
            (CheckStatus::Critical, 0)
        );
        let named = &report.check("environment").unwrap().detail;
        for variable in [
            "GOOGLE_CLOUD_PROJECT",
            "VECTOR_SEARCH_ENDPOINT_ID",
            "VECTOR_SEARCH_ENDPOINT_DOMAIN",
            "DEPLOYED_INDEX_ID",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ] {
            assert!(named.contains(variable), "{named}");
            let advised = report
                .advice
                .iter()
                .any(|one| one.action.contains(variable));
            assert!(advised, "{variable}");
        }
        // Callers are still served meanwhile.
        assert!(!vector.search("breakers", 3).await.unwrap().value.is_empty());
        rig.finish().await;
    });
}

#[test]
fn item_38_a_health_check_never_asks_a_fallback() {
    run(async || {
        let rig = Rig::start(|settings| {
            settings.breaker.failure_threshold = Some(nonzero(1));
        })
        .await;
        let vector = rig.vector(|_| {}).await;
        rig.fakes.set(Operation::Find, Some(FakeFault::internal()));
        let found = vector.search("breakers", 3).await.unwrap();
        assert!(!found.value.is_empty() && !found.is_primary());
        let served = rig.status("vector_find").totals.fallback;
        let report = vector.check_health(rig.runtime.clock()).await;
        let search = report.check("search").unwrap();
        assert_eq!(search.mark, CheckStatus::Error);
        assert!(search.detail.contains("is open"), "{}", search.detail);
        let status = rig.status("vector_find");
        assert_eq!(status.totals.fallback, served, "no fallback was asked");
        assert!(
            matches!(status.health, Health::Degraded { .. }),
            "{}",
            status.health
        );
        rig.finish().await;
    });
}

#[test]
fn item_51_the_last_ten_are_kept_and_the_trend_is_told() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|_| {}).await;
        let monitor = HealthMonitor::start(&rig.runtime, "vector_health", vector, None);
        let monitor = monitor.await.unwrap();
        assert_eq!(monitor.reports(), Vec::new());
        assert_eq!(monitor.check().await.unwrap().trend, Trend::Stable);
        rig.fakes.set(Operation::Token, Some(FakeFault::internal()));
        let worse = monitor.check().await.unwrap();
        assert_eq!(
            worse.check("authentication").unwrap().mark,
            CheckStatus::Error
        );
        assert_eq!(worse.trend, Trend::Degrading);
        assert_eq!(monitor.check().await.unwrap().trend, Trend::Stable);
        rig.fakes.set(Operation::Token, None);
        assert_eq!(monitor.check().await.unwrap().trend, Trend::Improving);
        for _ in 0..9 {
            monitor.check().await.unwrap();
        }
        let reports = monitor.reports();
        assert_eq!(reports.len(), 10);
        assert_eq!(
            reports[9].trend,
            Trend::Improving,
            "the oldest that is kept"
        );
        assert!(reports[0].at > reports[9].at, "the newest first");
        rig.finish().await;
    });
}

#[test]
fn item_51_a_monitor_checks_by_itself_and_goes_on_after_it() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|_| {}).await;
        let often = Some(std::time::Duration::from_millis(10));
        let monitor = HealthMonitor::start(&rig.runtime, "vector_health", vector, often);
        let monitor = monitor.await.unwrap();
        super::until(|| monitor.reports().len() >= 3).await;
        assert!(
            monitor
                .reports()
                .iter()
                .all(|one| one.overall == CheckStatus::Ok)
        );
        rig.finish().await;
    });
}
