//! The thread's loop: look, read, wait for a notification or for time to go by.
//!
//! Notifications only shorten the wait. Where they fail (no inotify watches left, NFS, overlay) everything is still looked at
//! every second, and all globs every `rescan`.

use super::{Progress, Sink, Tailer, nanos};
use notify::Watcher as _;
use shipwatch_common::time::now_ns;
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Looked at without a hint.
const LOOK: Duration = Duration::from_secs(1);
/// At most this often, however many hints come: a busy log must not cost a look per line.
const LEAST: Duration = Duration::from_millis(100);
/// Globs are looked at again at most this often on hints.
const LEAST_SCAN: Duration = Duration::from_millis(250);
/// Until a full sink is asked again.
const BLOCKED: Duration = Duration::from_millis(200);
/// Paths that are remembered between two looks.
const MAX_HINTS: usize = 1024;

/// What notifications said since the last look.
#[derive(Debug, Default)]
struct Hints {
    changed: HashSet<PathBuf>,
    /// Names came or went.
    names: bool,
    /// Directories that may have to be watched anew.
    removed: HashSet<PathBuf>,
}

impl Hints {
    fn take_in(&mut self, event: notify::Result<notify::Event>) -> bool {
        // An error (an overflow) may hide anything.
        let Ok(event) = event else {
            self.names = true;
            return true;
        };
        if event.kind.is_access() {
            return false;
        }
        self.names |= event.need_rescan() || event.kind.is_create() || event.kind.is_remove();
        self.names |= matches!(event.kind, notify::EventKind::Modify(notify::event::ModifyKind::Name(_)));
        for path in event.paths {
            if self.changed.len() >= MAX_HINTS {
                self.names = true;
                break;
            }
            if event.kind.is_remove() {
                self.removed.insert(path.clone());
            }
            self.changed.insert(path);
        }
        true
    }
}

/// Watches the directories of the globs. What it learns wakes the thread that made it.
struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    hints: Arc<Mutex<Hints>>,
    hinted: Arc<AtomicBool>,
}

impl Watch {
    fn new() -> Self {
        let (hints, hinted) = (Arc::<Mutex<Hints>>::default(), Arc::<AtomicBool>::default());
        let (shared, told, reader) = (Arc::clone(&hints), Arc::clone(&hinted), std::thread::current());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if shared.lock().unwrap_or_else(PoisonError::into_inner).take_in(event) {
                told.store(true, Ordering::Release);
                reader.unpark();
            }
        })
        .inspect_err(|error| warn!(%error, "no file notifications; files are looked at every second instead"))
        .ok();
        Self { watcher, watched: HashSet::new(), hints, hinted }
    }

    fn take(&self) -> Hints {
        self.hinted.store(false, Ordering::Release);
        std::mem::take(&mut *self.hints.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches what the last scan found. A directory that went away and came back is watched again.
    fn follow(&mut self, directories: &HashSet<PathBuf>, removed: &HashSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        self.watched.retain(|directory| {
            let stays = directories.contains(directory) && !removed.contains(directory);
            if !stays {
                let _gone_already = watcher.unwatch(directory);
            }
            stays
        });
        for directory in directories {
            if self.watched.insert(directory.clone())
                && let Err(error) = watcher.watch(directory, notify::RecursiveMode::NonRecursive)
            {
                warn!(%error, directory = %directory.display(), "no notifications for this directory; it is looked at every second instead");
            }
        }
    }

    /// Waits for a hint, at most `time`; ends early when stopped and unparked.
    fn wait(&self, time: Duration, stop: &CancellationToken) {
        rest(time, || stop.is_cancelled() || self.hinted.load(Ordering::Acquire));
    }
}

impl Tailer {
    /// Reads until `stop`, which is looked at when the thread is unparked. Blocks; has a thread of its own.
    pub fn run(&mut self, sink: &mut dyn Sink, stop: &CancellationToken) {
        let mut watch = Watch::new();
        let mut scan_until = 0;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let now = now_ns();
            let hints = watch.take();
            for path in &hints.changed {
                self.hint(path);
            }
            if hints.names && (now >= scan_until || scan_until - now > nanos(LEAST_SCAN)) {
                self.next_scan = None;
                scan_until = now + nanos(LEAST_SCAN);
            }
            let progress = self.poll(now, sink);
            self.counters.blocked.store(u64::from(progress == Progress::Blocked), Ordering::Relaxed);
            watch.follow(&self.directories, &hints.removed);
            match progress {
                Progress::Read => {}
                Progress::Blocked => watch.wait(BLOCKED, stop),
                Progress::Idle => {
                    watch.wait(LOOK, stop);
                    rest(LEAST.saturating_sub(begun.elapsed()), || stop.is_cancelled());
                }
            }
        }
    }
}

/// Lets time go by, unless `is_over`: whoever makes it so unparks the thread.
fn rest(time: Duration, is_over: impl Fn() -> bool) {
    let until = Instant::now() + time;
    while !is_over() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
