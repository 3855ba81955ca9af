//! The faults: each is brought about, lasts a while, and is taken back.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::Bed;
use crate::service::ServiceMode;
use crate::sidecar::{configure, signal_to};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChaosFault {
    /// The HTTP service of callers and of messages.
    Web(ServiceMode),
    /// The model.
    Chat(ServiceMode),
    /// The process of the MCP server ends.
    ToolsKilled,
    /// It says nothing more.
    ToolsStopped,
    BrokerKilled,
    BrokerStopped,
    /// The configuration changes again and again.
    Reloads,
    /// The configuration is one that cannot be used.
    BrokenConfiguration,
    /// The sidecar has no descriptors left.
    Descriptors,
    /// The file system of its files is full.
    FullDisk,
    /// The sidecar itself is stopped, and goes on later.
    Frozen,
    /// Callers leave within their requests.
    Leavers,
}

use ChaosFault as F;
use ServiceMode as M;

/// All faults.
pub(crate) const FAULTS: [ChaosFault; 22] = [
    F::Web(M::Gone),
    F::ToolsKilled,
    F::BrokerKilled,
    F::FullDisk,
    F::Descriptors,
    F::Reloads,
    F::Chat(M::CutOff),
    F::Web(M::Stopped),
    F::Leavers,
    F::Web(M::Reset),
    F::ToolsStopped,
    F::BrokenConfiguration,
    F::BrokerStopped,
    F::Chat(M::Reset),
    F::Web(M::Slow),
    F::Frozen,
    F::Web(M::Down),
    F::Chat(M::Throttled),
    F::Web(M::CutOff),
    F::Chat(M::Stopped),
    F::Web(M::Throttled),
    F::Chat(M::Gone),
];

impl ChaosFault {
    /// Returns true if the callers of a dependency may notice.
    pub(crate) fn hits(self, name: &str) -> bool {
        match self {
            F::Web(_) => name == "web",
            F::Chat(_) => name == "chat",
            F::ToolsKilled | F::ToolsStopped => name == "tools",
            F::Descriptors | F::Frozen => true,
            F::BrokerKilled
            | F::BrokerStopped
            | F::Reloads
            | F::BrokenConfiguration
            | F::FullDisk
            | F::Leavers => false,
        }
    }

    /// Returns true if the breaker of a dependency may open: the fault is its own.
    pub(crate) fn may_open(self, name: &str) -> bool {
        // A stopped sidecar cannot tell its own standstill from that of others.
        self == F::Frozen || (self.hits(name) && self != F::Descriptors)
    }

    /// Returns true if calls may stay without any answer.
    pub(crate) fn may_lose(self) -> bool {
        self == F::Descriptors
    }

    /// Brings the fault about. Returns false if this machine cannot.
    pub(crate) async fn begin(self, bed: &mut Bed) -> bool {
        match self {
            F::Web(mode) => {
                bed.web.set(mode);
                bed.work.set(mode);
            }
            F::Chat(mode) => bed.chat.set(mode),
            F::ToolsKilled => bed.signal_tools(Signal::SIGKILL),
            F::ToolsStopped => {
                bed.stopped = bed.sidecar.children().0;
                bed.signal_tools(Signal::SIGSTOP);
            }
            F::BrokerKilled => bed.broker.kill(),
            F::BrokerStopped => bed.broker.signal(Signal::SIGSTOP),
            F::Reloads => {
                for round in 0..10 {
                    configure(bed.folder.path(), &bed.configuration(Some(round)));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            F::BrokenConfiguration => {
                let broken = format!("{}\n[dependencies.web.brekaer]\n", bed.configuration(None));
                configure(bed.folder.path(), &broken);
            }
            F::Descriptors => {
                bed.descriptor_limit = bed.sidecar.descriptor_limit();
                let most = bed.sidecar.descriptors() + 8;
                bed.sidecar.limit_descriptors(most);
            }
            F::FullDisk => return bed.disk.as_ref().is_some_and(SmallDisk::fill),
            F::Frozen => bed.sidecar.signal(Signal::SIGSTOP),
            F::Leavers => {
                for _ in 0..4 {
                    bed.callers.leave_at_once().await;
                }
            }
        }
        true
    }

    /// Takes the fault back.
    pub(crate) fn end(self, bed: &mut Bed) {
        match self {
            F::Web(_) => {
                bed.web.set(M::Well);
                bed.work.set(M::Well);
            }
            F::Chat(_) => bed.chat.set(M::Well),
            F::ToolsStopped => {
                for id in std::mem::take(&mut bed.stopped) {
                    signal_to(id, Signal::SIGCONT);
                }
            }
            F::BrokerKilled => bed.broker.begin(),
            F::BrokerStopped => bed.broker.signal(Signal::SIGCONT),
            F::Reloads | F::BrokenConfiguration => {
                configure(bed.folder.path(), &bed.configuration(None));
            }
            F::Descriptors => bed.sidecar.limit_descriptors(bed.descriptor_limit),
            F::FullDisk => bed.disk.iter().for_each(SmallDisk::free),
            F::Frozen => bed.sidecar.signal(Signal::SIGCONT),
            F::ToolsKilled | F::Leavers => {}
        }
    }
}

/// A file system of a few megabytes, for the files that the sidecar writes.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it; `None` without the right to do that.
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "chaos"])
            .arg(at)
            .output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        is_mounted.then(|| Self(at.to_owned()))
    }

    fn fill(&self) -> bool {
        let filler = std::fs::File::create(self.0.join("filler"));
        if let Ok(mut filler) = filler {
            while filler.write_all(&[7; 4096]).is_ok() {}
        }
        true
    }

    fn free(&self) {
        let _ = std::fs::remove_file(self.0.join("filler"));
    }

    /// Empties the access log, which would fill the file system after some minutes.
    pub(crate) fn empty_log(&self) {
        let mut log = std::fs::File::options();
        let log = log
            .write(true)
            .truncate(true)
            .open(self.0.join("access.log"));
        log.expect("the sidecar writes an access log");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The sidecar may have files in it still.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
