//! The state word on the machine's lights, where it has any.
//!
//! A thread of its own keeps the rhythm. It hears the word every few seconds; when it hears nothing more, it goes
//! dark rather than showing a word that nobody stands for.

mod name;
mod panel;
mod rhythm;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vitalgate_layout::StateWord;

use crate::page::advice;
use panel::Panel;
use rhythm::rhythm;

/// A word stands for this long without being said again.
const WORD_STANDS: Duration = Duration::from_secs(30);
/// Words that wait; more are dropped, the next comes soon.
const WAITING_MAX: usize = 4;

/// The thread that keeps the rhythm; dropping it gives the lights back.
#[derive(Debug)]
pub(crate) struct Leds {
    words: Option<SyncSender<StateWord>>,
    thread: Option<JoinHandle<()>>,
}

impl Leds {
    /// Starts it over a folder of lights, `/sys/class/leds`. The folder may be missing. `complain` must not wait: the rhythm would.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(folder: PathBuf, complain: impl Fn(&str) + Send + 'static) -> std::io::Result<Self> {
        let (words, heard) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("leds".into()).spawn(move || keep_rhythm(&heard, folder, complain))?;
        Ok(Self { words: Some(words), thread: Some(thread) })
    }

    /// Says the word; again and again, while it stands.
    pub(crate) fn tell(&self, word: StateWord) {
        if let Some(words) = &self.words {
            let _dropped = words.try_send(word);
        }
    }
}

impl Drop for Leds {
    fn drop(&mut self) {
        self.words = None;
        if let Some(thread) = self.thread.take() {
            let _gone = thread.join();
        }
    }
}

/// The word that is shown.
#[derive(Debug, Clone, Copy)]
struct Shown {
    word: StateWord,
    begun: Instant,
    heard: Instant,
}

fn keep_rhythm(words: &Receiver<StateWord>, folder: PathBuf, complain: impl Fn(&str)) {
    let mut panel = Panel::of(folder);
    let mut shown: Option<Shown> = None;
    loop {
        let wait = light(&mut panel, shown, Instant::now());
        match words.recv_timeout(wait) {
            Ok(word) => {
                let now = Instant::now();
                let begun = shown.filter(|shown| shown.word == word).map_or(now, |shown| shown.begun);
                shown = Some(Shown { word, begun, heard: now });
                if let Some(complaint) = panel.look() {
                    complain(&complaint);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    panel.give_all_back();
}

/// Sets the lights for this moment and answers how long they stay so.
fn light(panel: &mut Panel, shown: Option<Shown>, now: Instant) -> Duration {
    let stands = |shown: &Shown| now.saturating_duration_since(shown.heard) < WORD_STANDS;
    let Some(shown) = shown.filter(stands).filter(|_| !panel.is_empty()) else {
        panel.show(crate::page::panel::Tone::Unknown, false);
        return WORD_STANDS;
    };
    let (lit, left) = rhythm(shown.word).at(now.saturating_duration_since(shown.begun));
    panel.show(advice::tone(shown.word), lit);
    left
}

#[cfg(test)]
mod tests;
