//! Texts for people and programs.

/// Line ends that every editor shows.
pub(crate) fn for_windows(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
