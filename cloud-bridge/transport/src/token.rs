//! The bearer token: read from its file, and read again when the file changes or the server refuses it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use tokio::sync::Mutex;

use crate::failure::Failure;

/// Largest token file in bytes; a signed token with many claims takes a fraction of it.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// What a file looked like when it was read.
type Stamp = (Option<SystemTime>, u64);

/// The current token.
pub(crate) struct Token {
    file: Option<PathBuf>,
    held: Mutex<Option<(Stamp, Arc<HeaderValue>)>>,
}

impl Token {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file, held: Mutex::new(None) }
    }

    /// The `Authorization` header to send, if a token is configured.
    pub(crate) async fn current(&self) -> Result<Option<Arc<HeaderValue>>, Failure> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut held = self.held.lock().await;
        let stamp = stamp(file).await?;
        if let Some((_, header)) = held.as_ref().filter(|(held_stamp, _)| *held_stamp == stamp) {
            return Ok(Some(Arc::clone(header)));
        }
        let header = read(file).await?;
        *held = Some((stamp, Arc::clone(&header)));
        Ok(Some(header))
    }

    /// After a 401: the token that now stands in the file, if it is another than the one refused.
    pub(crate) async fn after_refusal(&self, refused: Option<&HeaderValue>) -> Option<Arc<HeaderValue>> {
        let file = self.file.as_ref()?;
        let mut held = self.held.lock().await;
        let stamp = stamp(file).await.ok()?;
        let header = read(file).await.ok()?;
        *held = Some((stamp, Arc::clone(&header)));
        (Some(header.as_ref()) != refused).then_some(header)
    }
}

fn unusable(file: &Path, why: &str) -> Failure {
    Failure::local(format!("the bearer token in {} cannot be used: {why}", file.display()))
}

async fn stamp(file: &Path) -> Result<Stamp, Failure> {
    let metadata = tokio::fs::metadata(file).await.map_err(|error| unusable(file, &error.kind().to_string()))?;
    if metadata.len() > TOKEN_BYTES_MAX {
        return Err(unusable(file, "the file is too large for a token"));
    }
    Ok((metadata.modified().ok(), metadata.len()))
}

async fn read(file: &Path) -> Result<Arc<HeaderValue>, Failure> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| unusable(file, &error.kind().to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable(file, "it must hold one token of visible characters"));
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| unusable(file, "it must hold one token"))?;
    header.set_sensitive(true);
    Ok(Arc::new(header))
}
