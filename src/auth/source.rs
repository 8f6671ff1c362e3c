//! Keys and revocations that come from files, and are read again when those change.

use std::{
    convert::Infallible,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{Algorithm, KeyRing, KeySet, KeySetError, RevocationList, Revoked};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A file with public keys: PEM, one or several, or a JWK Set.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
    algorithms: Vec<Algorithm>,
}

/// A file with revocations, as JSON; see [`Revoked`].
#[derive(Clone, Debug)]
pub struct RevocationFile {
    path: PathBuf,
}

/// Why a file cannot be used. `Display` names it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct FileError {
    path: PathBuf,
    reason: FileErrorReason,
}

#[derive(Debug, thiserror::Error)]
enum FileErrorReason {
    #[error("{0}")]
    Unreadable(io::Error),
    #[error("it is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("{0}")]
    Keys(KeySetError),
    #[error("it is no JSON object of revocations")]
    NoObject,
    #[error("it is no JSON object of revocations: {0}")]
    Revocations(serde_json::Error),
}

impl KeyFile {
    /// The file at this path, whose keys verify with these algorithms.
    pub fn new(path: impl Into<PathBuf>, algorithms: &[Algorithm]) -> KeyFile {
        KeyFile { path: path.into(), algorithms: algorithms.to_vec() }
    }

    /// The name under which [`KeyFile::keep`] puts its keys into a ring. Put them there under it
    /// from the beginning ([`KeyRing::replace`]), so that the first ones go when others come.
    pub fn source(&self) -> &str {
        self.path.to_str().unwrap_or("file")
    }

    /// Reads the keys.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no usable keys.
    pub fn load(&self) -> Result<KeySet, FileError> {
        let error = |reason| FileError { path: self.path.clone(), reason };
        let text = read(&self.path).map_err(error)?;
        KeySet::parse(&self.algorithms, &text)
            .map_err(|reason| error(FileErrorReason::Keys(reason)))
    }

    /// Looks at the file so often, and exchanges its keys in the ring when they have changed. A
    /// file that cannot be used leaves the keys as they are, and is complained about in the log.
    pub async fn keep(self, ring: KeyRing, every: Duration) -> Infallible {
        watch_file(self.path.clone(), every, move || {
            let keys = self.load()?;
            tracing::info!(file = %self.path.display(), keys = %fingerprints(&keys), "new keys");
            ring.replace(self.source(), keys);
            Ok(())
        })
        .await
    }
}

impl RevocationFile {
    /// The file at this path.
    pub fn new(path: impl Into<PathBuf>) -> RevocationFile {
        RevocationFile { path: path.into() }
    }

    /// Reads what is revoked.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no such JSON.
    pub fn load(&self) -> Result<Revoked, FileError> {
        let error = |reason| FileError { path: self.path.clone(), reason };
        let text = read(&self.path).map_err(error)?;
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(error(FileErrorReason::NoObject));
        }
        serde_json::from_slice(&text).map_err(|reason| error(FileErrorReason::Revocations(reason)))
    }

    /// Looks at the file so often, and puts what it says into the list when it has changed. A
    /// file that cannot be used leaves the list as it is, and is complained about in the log.
    pub async fn keep(self, list: RevocationList, every: Duration) -> Infallible {
        watch_file(self.path.clone(), every, move || {
            if list.replace(self.load()?) {
                tracing::info!(file = %self.path.display(), "revocations changed");
            }
            Ok(())
        })
        .await
    }
}

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where configured keys and revocations come from, and go to.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Keys(KeyFile, KeyRing),
    Revocations(RevocationFile, RevocationList),
    #[cfg(feature = "jwks-http")]
    Url(super::JwksUrl, KeyRing),
}

impl Source {
    /// Keeps what came from here fresh, for ever.
    pub(super) async fn keep(self) -> Infallible {
        match self {
            Source::Keys(file, ring) => file.keep(ring, LOOK_EVERY).await,
            Source::Revocations(file, list) => file.keep(list, LOOK_EVERY).await,
            #[cfg(feature = "jwks-http")]
            Source::Url(url, ring) => url.keep(ring).await,
        }
    }
}

/// The keys as a log may show them.
pub(super) fn fingerprints(keys: &KeySet) -> impl fmt::Display {
    let keys: Vec<String> = keys
        .keys()
        .iter()
        .map(|key| format!("{} {}", key.algorithm(), key.fingerprint()))
        .collect();
    keys.join(", ")
}

fn read(path: &Path) -> Result<Vec<u8>, FileErrorReason> {
    let size = fs::metadata(path).map_err(FileErrorReason::Unreadable)?.len();
    if size > MAX_FILE {
        return Err(FileErrorReason::TooLarge);
    }
    fs::read(path).map_err(FileErrorReason::Unreadable)
}

/// Calls `changed` now and whenever the file's content is another than the last time, for ever.
async fn watch_file(
    path: PathBuf,
    every: Duration,
    mut changed: impl FnMut() -> Result<(), FileError> + Send,
) -> Infallible {
    let look = move || read(&path).map_err(|error| error.to_string());
    let changed = || {
        if let Err(error) = changed() {
            tracing::error!(%error, "a changed file cannot be used: what it said before still holds");
        }
    };
    watch(every, look, changed).await
}

/// Looks so often, and calls `changed` now and whenever something else is seen than the last time,
/// for ever. Files may lie on a disk that is slow or gone, so `look` has a thread of its own.
pub(crate) async fn watch<T: PartialEq + Send + 'static>(
    every: Duration,
    look: impl Fn() -> T + Clone + Send + 'static,
    mut changed: impl FnMut() + Send,
) -> Infallible {
    let mut seen = None;
    loop {
        let now = spawn_blocking(look.clone()).await.ok();
        if now.is_some() && now != seen {
            seen = now;
            changed();
        }
        sleep(every).await;
    }
}
