//! The same for a monitor: one screen of 80 columns, drawn anew at each change.

use std::fmt::Write as _;

use crate::page::panel::Tone;
use crate::page::{Language, advice};
use crate::snapshot::Snapshot;
use crate::text::ascii;

/// Columns of text; a terminal has 80.
const COLUMNS: usize = 76;
/// Longest text that is drawn, in characters: a few lines.
const TEXT_CHARS_MAX: usize = 300;
/// Most addresses that are drawn.
const URLS_MAX: usize = 2;
/// Most further reasons that are drawn.
const ALSO_MAX: usize = 2;
/// Longest of them, in characters: two lines.
const ALSO_CHARS_MAX: usize = 148;
/// Clears the screen and hides the cursor (ECMA-48; DECTCEM).
const CLEAR: &str = "\x1b[0m\x1b[2J\x1b[H\x1b[?25l";

/// The screen.
pub(crate) fn drawn(snapshot: &Snapshot) -> String {
    let overall = &snapshot.overall;
    let identity = &snapshot.identity;
    let word = overall.code.map_or_else(|| overall.word.to_string(), |code| format!("{} ({code})", overall.word));
    let colour = match advice::tone(overall.word) {
        Tone::Good => "1;32",
        Tone::Busy => "1;36",
        Tone::Attention => "1;33",
        Tone::Bad => "1;31",
        Tone::Unknown => "1",
    };
    let mut screen = format!("{CLEAR}\n");
    let name = format!("{} {}", identity.product, identity.version.as_deref().unwrap_or_default());
    let place: Vec<_> = [identity.site.as_deref(), identity.gateway.as_deref(), identity.serial.as_deref()].into_iter().flatten().collect();
    paragraph(&mut screen, &name);
    paragraph(&mut screen, &place.join(", "));
    // Writing to a text cannot fail.
    let _ = writeln!(screen, "\n  \x1b[{colour}m{word}\x1b[0m\n");
    paragraph(&mut screen, advice::meaning(overall.word, Language::English));
    paragraph(&mut screen, &overall.detail);
    let remedy = advice::remedy(overall.word, Language::English);
    if !remedy.is_empty() {
        paragraph(&mut screen, &format!("Do: {remedy}"));
    }
    if !overall.also.is_empty() {
        let words: Vec<_> = overall.also.iter().map(|word| word.word()).collect();
        paragraph(&mut screen, &format!("Also: {}", words.join(", ")));
        overall.also_because.iter().take(ALSO_MAX).for_each(|reason| paragraph(&mut screen, &ascii(reason, ALSO_CHARS_MAX)));
    }
    screen.push('\n');
    if let Some(certificate) = &snapshot.network.certificate {
        if snapshot.network.urls.is_empty() {
            paragraph(&mut screen, "Status page: no network address yet");
        }
        for url in snapshot.network.urls.iter().take(URLS_MAX) {
            paragraph(&mut screen, &format!("Status page: {url}"));
        }
        let kept = if certificate.kept { "" } else { ", temporary" };
        paragraph(&mut screen, &format!("Its fingerprint (SHA-256{kept}):"));
        let pairs: Vec<_> = certificate.fingerprint.split(':').collect();
        pairs.chunks(16).for_each(|half| paragraph(&mut screen, &half.join(":")));
    }
    if let Some(key) = &identity.report_key {
        paragraph(&mut screen, &format!("Key that signs the reports: {key}"));
    }
    screen.push('\n');
    paragraph(&mut screen, &format!("{} (last change or repetition)", snapshot.as_of));
    screen
}

/// Adds text, folded between words; nothing for an empty one.
fn paragraph(screen: &mut String, text: &str) {
    let mut line = String::new();
    for word in ascii(text, TEXT_CHARS_MAX).split_whitespace() {
        if !line.is_empty() && line.len() + word.len() >= COLUMNS {
            let _ = writeln!(screen, "  {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(screen, "  {}", line.chars().take(COLUMNS).collect::<String>());
    }
}

#[cfg(test)]
mod tests {
    use vitalgate_layout::StateWord;
    use vitalgate_layout::state::{Part, PartState};

    use super::*;
    use crate::daemon::{Daemon, DaemonStatus, Health};
    use crate::machine::Machine;
    use crate::parts::{Parts, Said};
    use crate::snapshot::{Certificate, Found};

    fn screen(word: StateWord, detail: &str) -> String {
        let state = PartState { word, code: Some(13), detail: detail.to_owned(), since_unix_ms: 0, facts: Default::default() };
        let certificate = Certificate { fingerprint: ["AB"; 32].join(":"), ends: "2036-01-01".into(), kept: true };
        let health = Health { ready: true, state: "READY".into(), problems: Vec::new() };
        let status = DaemonStatus { health, ..DaemonStatus::default() };
        let found = Found {
            parts: Parts::of([Part::Data, Part::Provision].map(|part| (part, Said::State(state.clone())))),
            daemon: Daemon::Answers(Box::new(status)),
            machine: Machine::default(),
            certificate: Some(certificate),
            now_unix_ms: 1_795_000_000_000,
            up_s: 1,
            powered_s: 1,
        };
        drawn(&Snapshot::of(&found, 8443))
    }

    /// Every word fits a terminal of 80 columns and 25 lines, whatever the detail says, and no detail
    /// steers the terminal.
    #[test]
    fn every_word_fits_a_screen() {
        for word in StateWord::ALL {
            for detail in ["", &"\u{1b}[31mlong ".repeat(200), &"x".repeat(1_000)] {
                let screen = screen(word, detail);
                assert!(screen.contains(word.word()) && screen.contains(&["AB"; 16].join(":")), "{screen}");
                assert!(screen.lines().count() <= 25, "{screen}");
                let plain = screen.replace(CLEAR, "");
                assert_eq!(plain.matches('\u{1b}').count(), 2, "{plain:?}");
                assert!(plain.lines().all(|line| line.len() <= 79 + 12), "{plain}");
            }
        }
    }
}
