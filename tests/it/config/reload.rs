//! CFG-2: the configuration is reloaded when its files change, or at SIGHUP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use breakerbox::config::{ConfigError, Loader, Settings};
use breakerbox::reload::{Trigger, Watcher};
use breakerbox_policy::BreakerSettings;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use super::{NO_VARIABLES, folder_with, nonzero};

const DEBOUNCE: Duration = Duration::from_millis(20);
/// Far longer than a change takes to be noticed.
const LIMIT: Duration = Duration::from_secs(20);

/// A signal reaches every watcher of the process, so these tests run one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Bench {
    folder: TempDir,
    watcher: Watcher,
    _alone: MutexGuard<'static, ()>,
}

fn text(threshold: u32) -> String {
    format!("[dependencies.web.breaker]\nfailure_threshold = {threshold}\n")
}

fn loader(folder: &Path) -> Loader {
    let loader = Settings::loader().dir(folder.join("config"));
    loader
        .env_vars(NO_VARIABLES)
        .dotenv(folder.join("local.env"))
}

impl Bench {
    async fn new() -> Self {
        let alone = ALONE.lock().await;
        let files = [("config/default.toml", &*text(1)), ("local.env", "")];
        let folder = folder_with(&files);
        let watcher = Watcher::start(loader(folder.path()), DEBOUNCE).expect("it can be watched");
        Self {
            folder,
            watcher,
            _alone: alone,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes in place, so that the file is empty for a moment.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file for the test");
    }

    /// Replaces the file by another one, as most editors do.
    fn put(&self, name: &str, text: &str) {
        self.write("new", text);
        std::fs::rename(self.path("new"), self.path(name)).expect("a file for the test");
    }

    async fn next(&mut self) -> (Trigger, Result<Settings, ConfigError>) {
        let next = tokio::time::timeout(LIMIT, self.watcher.next());
        next.await.expect("nothing was noticed")
    }

    /// Waits for a change of this file; half-written versions do not count.
    async fn changed(&mut self, name: &str, good: impl Fn(&BreakerSettings) -> bool) {
        loop {
            let (trigger, settings) = self.next().await;
            assert_eq!(trigger, Trigger::File(self.path(name)));
            let settings = settings.unwrap_or_else(|error| panic!("{error}"));
            let web = settings.dependencies.get("web");
            if web.is_some_and(|web| good(&web.settings.breaker)) {
                return;
            }
        }
    }
}

fn has(threshold: u32) -> impl Fn(&BreakerSettings) -> bool {
    move |breaker| breaker.failure_threshold == Some(nonzero(threshold))
}

#[tokio::test]
async fn cfg_2_a_changed_file_is_read_again() {
    let mut bench = Bench::new().await;
    for threshold in [2, 3] {
        bench.write("config/default.toml", &text(threshold));
        bench.changed("config/default.toml", has(threshold)).await;
    }
}

#[tokio::test]
async fn cfg_2_a_file_that_takes_the_place_of_another_comes_or_goes_is_noticed() {
    let mut bench = Bench::new().await;
    for threshold in [2, 3] {
        bench.put("config/default.toml", &text(threshold));
        bench.changed("config/default.toml", has(threshold)).await;
    }
    bench.put("config/development.toml", &text(4));
    bench.changed("config/development.toml", has(4)).await;
    std::fs::remove_file(bench.path("config/development.toml")).unwrap();
    bench.changed("config/development.toml", has(3)).await;
}

/// As Kubernetes mounts a ConfigMap: only a hidden symlink is exchanged.
#[cfg(unix)]
#[tokio::test]
async fn cfg_2_a_link_that_leads_elsewhere_is_followed() {
    use std::os::unix::fs::symlink;
    let alone = ALONE.lock().await;
    let files = [
        ("config/one/default.toml", &*text(1)),
        ("config/two/default.toml", &*text(2)),
    ];
    let folder = folder_with(&files);
    let config = folder.path().join("config");
    symlink("one", config.join("..data")).unwrap();
    symlink("..data/default.toml", config.join("default.toml")).unwrap();
    let bare = Settings::loader().dir(&config).env_vars(NO_VARIABLES);
    let watcher = Watcher::start(bare, DEBOUNCE).expect("it can be watched");
    let mut bench = Bench {
        folder,
        watcher,
        _alone: alone,
    };
    symlink("two", config.join("..new")).unwrap();
    std::fs::rename(config.join("..new"), config.join("..data")).unwrap();
    bench.changed("config/default.toml", has(2)).await;
}

#[tokio::test]
async fn cfg_2_a_broken_file_is_told_and_the_next_good_one_too() {
    let mut bench = Bench::new().await;
    bench.put("config/default.toml", &text(0));
    let (trigger, settings) = bench.next().await;
    assert_eq!(trigger, Trigger::File(bench.path("config/default.toml")));
    let error = settings.expect_err("zero is no threshold");
    assert!(error.to_string().contains("default.toml:2)"), "{error}");
    bench.write("config/default.toml", &text(5));
    bench.changed("config/default.toml", has(5)).await;
}

#[tokio::test]
async fn cfg_2_the_file_of_variables_counts_too_and_may_choose_the_environment() {
    let mut bench = Bench::new().await;
    bench.put("config/staging.toml", &text(7));
    bench.put("local.env", "BREAKERBOX_ENV=staging\n");
    bench.changed("local.env", has(7)).await;
    bench.put("config/staging.toml", &text(8));
    bench.changed("config/staging.toml", has(8)).await;
}

#[tokio::test]
async fn cfg_2_other_files_and_mere_reading_are_nothing() {
    let mut bench = Bench::new().await;
    bench.write("config/notes.md", "nothing to load");
    bench.write("config/production.toml", &text(9));
    bench.put("config/default.toml", &text(1));
    std::fs::read(bench.path("config/default.toml")).unwrap();
    // Long enough to notice each of them, had it counted.
    let nothing = tokio::time::timeout(15 * DEBOUNCE, bench.watcher.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    bench.write("config/default.toml", &text(2));
    bench.changed("config/default.toml", has(2)).await;
}

#[cfg(unix)]
#[tokio::test]
async fn cfg_2_a_hangup_signal_reads_again() {
    let mut bench = Bench::new().await;
    let hang_up = format!("kill -HUP {}", std::process::id());
    let hang_up = || {
        let told = std::process::Command::new("sh")
            .args(["-c", &hang_up])
            .status();
        assert!(told.expect("a shell").success());
    };
    hang_up();
    let (trigger, settings) = bench.next().await;
    assert_eq!((trigger, settings.is_ok()), (Trigger::Signal, true));

    bench.watcher = Watcher::on_signals(loader(bench.folder.path())).expect("signals");
    bench.write("config/default.toml", "[dependencies.web\n");
    hang_up();
    let (trigger, settings) = bench.next().await;
    assert_eq!((trigger, settings.is_err()), (Trigger::Signal, true));
}

/// A reload is not lost if it is requested while no caller waits, or if the waiting future is
/// dropped.
#[tokio::test]
async fn cfg_2_a_change_waits_for_whoever_asks_next() {
    let mut bench = Bench::new().await;
    {
        let mut waiting = std::pin::pin!(bench.watcher.next());
        let nothing = futures_util::poll!(waiting.as_mut());
        assert!(nothing.is_pending());
    }
    bench.write("config/default.toml", &text(6));
    bench.changed("config/default.toml", has(6)).await;
}
