//! statfs with a deadline: a hung NFS or FUSE mount blocks the calling thread in the kernel for as long as it likes.
//!
//! # Invariants
//! - A mount that did not answer is not asked again before its old call has returned: at most one thread per mount hangs.
//! - At most [`MAX_HUNG`] threads hang in all; beyond that no further mount is asked at all.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    },
    time::Duration,
};

/// Threads that may hang at the same time.
const MAX_HUNG: usize = 16;

/// Size and fill of a file system.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FsStat {
    /// Bytes per block.
    pub block_bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Free blocks for others than root.
    pub available_blocks: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub free_files: u64,
}

/// How a file system is asked.
pub type Stat = Arc<dyn Fn(&Path) -> io::Result<FsStat> + Send + Sync>;

/// Asks the kernel.
pub(crate) fn system() -> Stat {
    Arc::new(|path| {
        let stat = rustix::fs::statvfs(path)?;
        Ok(FsStat {
            block_bytes: stat.f_frsize,
            blocks: stat.f_blocks,
            free_blocks: stat.f_bfree,
            available_blocks: stat.f_bavail,
            files: stat.f_files,
            free_files: stat.f_ffree,
        })
    })
}

type Answer = io::Result<FsStat>;

/// The thread that asks, while it is not hung.
struct Worker {
    requests: Sender<PathBuf>,
    answers: Receiver<Answer>,
}

/// See the module.
pub(crate) struct Statfs {
    stat: Stat,
    deadline: Duration,
    worker: Option<Worker>,
    /// By mount point: where the answer of the hung call will come.
    hung: HashMap<PathBuf, Receiver<Answer>>,
}

impl Statfs {
    pub(crate) fn new(stat: Stat, deadline: Duration) -> Self {
        Self { stat, deadline, worker: None, hung: HashMap::new() }
    }

    /// Asks within the deadline.
    pub(crate) fn ask(&mut self, mount_point: &Path) -> Answer {
        let hangs = || io::Error::new(io::ErrorKind::TimedOut, format!("{} does not answer", mount_point.display()));
        self.hung.retain(|_, answers| matches!(answers.try_recv(), Err(TryRecvError::Empty)));
        if self.hung.contains_key(mount_point) || self.hung.len() >= MAX_HUNG {
            return Err(hangs());
        }
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => start(Arc::clone(&self.stat))?,
        };
        if worker.requests.send(mount_point.to_owned()).is_err() {
            return Err(io::Error::other("the thread that asks file systems has ended"));
        }
        match worker.answers.recv_timeout(self.deadline) {
            Ok(answer) => {
                self.worker = Some(worker);
                answer
            }
            Err(RecvTimeoutError::Timeout) => {
                // Its thread ends once the call returns, since the sender of requests is dropped here.
                self.hung.insert(mount_point.to_owned(), worker.answers);
                Err(hangs())
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the thread that asks file systems has ended")),
        }
    }
}

fn start(stat: Stat) -> io::Result<Worker> {
    let (requests, inbox) = channel::<PathBuf>();
    let (outbox, answers) = channel();
    std::thread::Builder::new().name("statfs".to_owned()).stack_size(128 << 10).spawn(move || {
        while let Ok(path) = inbox.recv() {
            if outbox.send(stat(&path)).is_err() {
                return;
            }
        }
    })?;
    Ok(Worker { requests, answers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc::sync_channel};

    #[test]
    fn a_hung_mount_is_left_alone_until_it_answers_and_others_go_on() {
        let (release, gate) = sync_channel::<()>(0);
        let gate = Mutex::new(gate);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        let stat: Stat = Arc::new(move |path| {
            seen.lock().unwrap().push(path.display().to_string());
            if path == Path::new("/nfs") {
                gate.lock().unwrap().recv().unwrap();
            }
            Ok(FsStat { blocks: 7, ..FsStat::default() })
        });
        let mut statfs = Statfs::new(stat, Duration::from_millis(50));
        assert_eq!(statfs.ask(Path::new("/nfs")).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(statfs.ask(Path::new("/")).unwrap().blocks, 7);
        assert!(statfs.ask(Path::new("/nfs")).is_err());
        assert_eq!(*calls.lock().unwrap(), ["/nfs", "/"], "a hung mount was asked again");
        let hung = statfs.hung.remove(Path::new("/nfs")).unwrap();
        release.send(()).unwrap();
        hung.recv().unwrap().unwrap();
        drop(release);
        assert_eq!(statfs.ask(Path::new("/")).unwrap().blocks, 7);
    }
}
