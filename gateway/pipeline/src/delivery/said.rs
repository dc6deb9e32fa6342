//! What a destination says in words of its own.

use std::sync::Arc;

use vitalgate_domain::{DeadLetterKind, DeadLetterReason};

/// May quote a name or a value, and so becomes the reason of a dead letter and nothing else: no alarm can be made of it.
#[derive(Debug, Clone)]
pub(super) struct Said(Arc<str>);

impl From<Arc<str>> for Said {
    fn from(detail: Arc<str>) -> Self {
        Self(detail)
    }
}

impl Said {
    pub(super) fn reason(&self, kind: DeadLetterKind) -> DeadLetterReason {
        DeadLetterReason::new(kind, &self.0)
    }
}
