//! Files as one: tar (POSIX.1-1988 ustar), which every system opens.

const BLOCK_BYTES: usize = 512;
/// Longest name that a header takes, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Puts files into an archive. Names that are too long are cut at the end.
pub(super) fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        archive.extend_from_slice(&header(name, bytes.len()));
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
    archive
}

fn header(name: &str, bytes: usize) -> [u8; BLOCK_BYTES] {
    let mut header = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| {
        for (to, from) in header.iter_mut().skip(at).zip(text) {
            *to = *from;
        }
    };
    put(0, name.as_bytes().get(..NAME_BYTES_MAX.min(name.len())).unwrap_or_default());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{bytes:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").as_bytes()) {
        *to = *from;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Call, Programs as _, System};

    /// Another program reads what we write.
    #[test]
    fn tar_lists_the_files() {
        let files = [("a.txt".to_owned(), b"hello\n".to_vec()), ("state/b.json".to_owned(), vec![b'x'; 1000])];
        let archive = tar(&files);
        let listed = System.run(Call::new("tar", "").arguments(["-tvf", "-"]).input(archive.clone())).unwrap().text();
        assert!(
            listed.contains(" 6 ") && listed.contains("a.txt") && listed.contains(" 1000 ") && listed.contains("state/b.json"),
            "{listed}"
        );
        assert_eq!(System.run(Call::new("tar", "").arguments(["-xOf", "-", "a.txt"]).input(archive)).unwrap().text(), "hello\n");
    }
}
