//! The page's certificate over the life of the process: temporary, kept, renewed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::ServerConfig;
use vitalgate_trust::SelfSigned;

use crate::snapshot::{Certificate, rfc3339};

/// How long the folder may take to appear before a temporary certificate serves.
const FOLDER_WAIT: Duration = Duration::from_secs(30);
/// How often a kept certificate is looked at for renewal.
const RENEWAL_CHECK: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the folder is tried while a temporary certificate serves.
const FOLDER_CHECK: Duration = Duration::from_secs(2);

/// The certificate in use.
pub(crate) struct Keeper {
    folder: PathBuf,
    started: Instant,
    current: Option<(SelfSigned, bool)>,
    looked: Option<Instant>,
    complained: bool,
}

impl Keeper {
    /// Keeps it in this folder, once that is there.
    pub(crate) fn new(folder: PathBuf, now: Instant) -> Self {
        Self { folder, started: now, current: None, looked: None, complained: false }
    }

    /// Looks whether there is something to do. The message, if any, is for the log.
    pub(crate) fn tend(&mut self, now: Instant) -> Option<String> {
        let kept = matches!(self.current, Some((_, true)));
        let every = if kept { RENEWAL_CHECK } else { FOLDER_CHECK };
        if self.looked.is_some_and(|looked| now.duration_since(looked) < every) {
            return None;
        }
        self.looked = Some(now);
        match self.folder.is_dir().then(|| SelfSigned::open_or_create(&self.folder)) {
            Some(Ok(found)) => {
                let made = found.made.then(|| "a new certificate was made for the page; its fingerprint is on the console".to_owned());
                self.current = Some((found, true));
                made
            }
            Some(Err(error)) => {
                self.serve_temporarily();
                let first = !std::mem::replace(&mut self.complained, true);
                first.then(|| format!("the page's certificate cannot be kept: {error}"))
            }
            None if now.duration_since(self.started) >= FOLDER_WAIT => {
                self.serve_temporarily();
                None
            }
            None => None,
        }
    }

    fn serve_temporarily(&mut self) {
        if self.current.is_none()
            && let Ok(temporary) = SelfSigned::temporary()
        {
            self.current = Some((temporary, false));
        }
    }

    /// The listener's configuration.
    pub(crate) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.current.as_ref().map(|(certificate, _)| Arc::clone(&certificate.config))
    }

    /// What is shown of it.
    pub(crate) fn shown(&self) -> Option<Certificate> {
        let (certificate, kept) = self.current.as_ref()?;
        let pairs: Vec<_> = certificate.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        let ends_unix_ms = i64::try_from(certificate.ends_unix_s).unwrap_or(0).saturating_mul(1_000);
        let ends = rfc3339(ends_unix_ms).chars().take("YYYY-MM-DD".len()).collect();
        Some(Certificate { fingerprint: pairs.join(":"), ends, kept: *kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a place to keep it the page comes all the same, a little later; with the place it
    /// takes the kept certificate, and stays with it.
    #[test]
    fn a_temporary_certificate_gives_way_to_the_kept_one() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("status");
        let start = Instant::now();
        let mut keeper = Keeper::new(folder.clone(), start);
        keeper.tend(start);
        assert!(keeper.shown().is_none());
        keeper.tend(start + FOLDER_WAIT);
        let temporary = keeper.shown().unwrap();
        assert!(!temporary.kept);
        keeper.tend(start + FOLDER_WAIT * 2);
        assert_eq!(keeper.shown().unwrap(), temporary);
        std::fs::create_dir(&folder).unwrap();
        assert!(keeper.tend(start + FOLDER_WAIT * 3).is_some());
        let kept = keeper.shown().unwrap();
        assert!(kept.kept && kept.fingerprint != temporary.fingerprint);
        keeper.tend(start + RENEWAL_CHECK * 2);
        assert_eq!(keeper.shown().unwrap(), kept);
        let mut again = Keeper::new(folder, start);
        again.tend(start);
        assert_eq!(again.shown().unwrap(), kept);
    }

    /// A folder that takes no file costs the lasting fingerprint, and says so once.
    #[test]
    fn a_folder_that_takes_nothing_is_said_once() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("page.pem")).unwrap();
        let start = Instant::now();
        let mut keeper = Keeper::new(top.path().to_owned(), start);
        assert!(keeper.tend(start).unwrap().contains("cannot be kept"));
        assert!(!keeper.shown().unwrap().kept);
        assert_eq!(keeper.tend(start + FOLDER_CHECK), None);
    }
}
