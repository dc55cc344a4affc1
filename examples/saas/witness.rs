//! The witness: counts the tenants' database files that this process has open, as the operating system sees it and
//! without a word from tenantry.
//!
//! Reading `/proc/self/fd` takes a while, so one reading may name a file that was closed before it and another that was
//! opened behind it. What two readings in a row show in the same place was open between them, all of it at once: only
//! that is counted.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::watch;

const DESCRIPTORS: &str = "/proc/self/fd";

/// Between two looks; a look takes a fraction of it.
const PAUSE: Duration = Duration::from_millis(2);

/// What the witness has seen so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) looks: u64,
    /// The most database files open at one moment.
    pub(crate) most: usize,
    /// The database files open at the last look.
    pub(crate) last: usize,
}

/// The thread that looks.
pub(crate) struct Witness {
    seen: watch::Receiver<Seen>,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Witness {
    /// Starts to look for files in `folder`; `None` where the operating system does not show descriptors this way.
    pub(crate) fn start(folder: &Path) -> Result<Option<Self>> {
        if !Path::new(DESCRIPTORS).is_dir() {
            return Ok(None);
        }
        let folder = folder.canonicalize()?;
        let (tell, seen) = watch::channel(Seen::default());
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("witness".into()).spawn(move || {
            let mut seen = Seen::default();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PAUSE) {
                seen.look(&folder);
                tell.send_replace(seen);
            }
        })?;
        Ok(Some(Self { seen, stop, thread }))
    }

    /// Resolves when two more looks were made, the second of which began after this was called.
    pub(crate) async fn two_more_looks(&self) -> Result<()> {
        let mut seen = self.seen.clone();
        let before = seen.borrow().looks;
        seen.wait_for(|seen| seen.looks >= before + 2).await?;
        Ok(())
    }

    /// Ends the thread; what it saw.
    pub(crate) async fn finish(self) -> Result<Seen> {
        self.two_more_looks().await?;
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the witness panicked"))?;
        Ok(*self.seen.borrow())
    }
}

impl Seen {
    fn look(&mut self, folder: &Path) {
        let first = databases(folder);
        self.looks += 1;
        self.last = distinct(&first);
        if self.last > self.most {
            let both: HashSet<_> = databases(folder).intersection(&first).cloned().collect();
            self.most = self.most.max(distinct(&both));
        }
    }
}

/// The descriptors of database files in the folder: not the `-wal` and `-shm` files beside them.
fn databases(folder: &Path) -> HashSet<(OsString, PathBuf)> {
    let descriptors = std::fs::read_dir(DESCRIPTORS).into_iter().flatten().flatten();
    // A descriptor that is closed between the listing and this look has no link any more.
    let links = descriptors.filter_map(|entry| Some((entry.file_name(), std::fs::read_link(entry.path()).ok()?)));
    links.filter(|(_, file)| file.starts_with(folder) && file.extension().is_some_and(|end| end == "db")).collect()
}

fn distinct(descriptors: &HashSet<(OsString, PathBuf)>) -> usize {
    descriptors.iter().map(|(_, file)| file).collect::<HashSet<_>>().len()
}
