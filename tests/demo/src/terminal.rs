//! The view in a terminal: a table that is drawn again in place, or lines where there is none.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::chart::COLUMNS;
use crate::ledger::{Ledger, View};

/// Time between two drawings of the table.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// Time between two lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Newest messages below the table.
const MESSAGES_MAX: usize = 8;

/// Where the demonstration speaks.
pub(crate) struct Terminal {
    interactive: bool,
    ledger: Arc<Ledger>,
    messages: Arc<Mutex<Vec<String>>>,
    drawing: AbortHandle,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.drawing.abort();
    }
}

impl Terminal {
    pub(crate) fn start(interactive: bool, ledger: Arc<Ledger>, url: String) -> Self {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let drawing = tokio::spawn(draw(interactive, ledger.clone(), messages.clone(), url)).abort_handle();
        Self { interactive, ledger, messages, drawing }
    }

    pub(crate) fn say(&self, message: &str) {
        let line = format!("{:>6.1} s  {message}", self.ledger.elapsed_s());
        if self.interactive {
            let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
            messages.push(line);
            let surplus = messages.len().saturating_sub(MESSAGES_MAX);
            messages.drain(..surplus);
        } else {
            println!("{line}");
        }
    }

    pub(crate) fn proof(&self, text: &str, proven: bool) {
        let mark = if proven { "PROOF" } else { "FAILED" };
        self.say(&format!("{mark}: {text}"));
    }

    /// Leaves the last picture standing, with a last word below it.
    pub(crate) fn end(&self, word: &str) {
        self.drawing.abort();
        if self.interactive {
            println!("\x1b[?7h");
        }
        if !word.is_empty() {
            println!("{word}");
        }
    }
}

async fn draw(interactive: bool, ledger: Arc<Ledger>, messages: Arc<Mutex<Vec<String>>>, url: String) {
    let mut tick = tokio::time::interval(if interactive { DRAW_EVERY } else { LINE_EVERY });
    tick.tick().await;
    loop {
        tick.tick().await;
        let view = ledger.view();
        if interactive {
            let messages = messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut out = std::io::stdout().lock();
            // A terminal that is gone needs no picture.
            let _ = out.write_all(picture(&view, &messages, &url).as_bytes());
            let _ = out.flush();
        } else {
            println!("{:>6.1} s  {}", view.elapsed_s, summary(&view));
        }
    }
}

fn summary(view: &View) -> String {
    let ehr = if view.ehr_up { "up" } else { "AWAY" };
    let queue = view.gateway.queued;
    let totals = view.totals;
    format!(
        "EHR {ehr:<4}  waiting on disk {queue:>5}  acknowledged {:>6}  in the EHR {:>6}  duplicated {}",
        totals.acknowledged, totals.in_the_ehr, totals.duplicated
    )
}

/// Characters of a column.
fn width(key: &str) -> usize {
    match key {
        "abp" | "nibp" => 18,
        _ => 11,
    }
}

fn picture(view: &View, messages: &[String], url: &str) -> String {
    // Home, then clear below: no flicker. Long lines are cut, not wrapped.
    let mut out = String::from("\x1b[?7l\x1b[H\x1b[J");
    let _ = writeln!(out, "\x1b[1mVitalgate demonstration\x1b[0m   {url}   {:.0} s", view.elapsed_s);
    let colour = if view.ehr_up { "\x1b[32m" } else { "\x1b[31m" };
    let _ = writeln!(out, "{colour}{}\x1b[0m\n", summary(view));
    let _ = write!(out, "{:<7} {:<11} {:<16}", "Bed", "Patient", "Device");
    for (_, key, label) in COLUMNS {
        let _ = write!(out, " {label:>width$}", width = width(key));
    }
    let _ = writeln!(out, "  {:<12}", "Newest");
    for bed in &view.beds {
        let _ = write!(out, "{:<7} {:<11} {:<16}", bed.name, bed.patient, bed.device);
        let mut newest = "";
        for (_, key, _) in COLUMNS {
            let text = match bed.values.get(key) {
                Some(shown) => {
                    newest = newest.max(shown.charted.time.as_str());
                    if shown.charted.absent { "-".to_owned() } else { format!("{} {}", shown.charted.value, shown.charted.unit) }
                }
                None => String::new(),
            };
            let _ = write!(out, " {text:>width$}", width = width(key));
        }
        let _ = writeln!(out, "  {:<12}", newest.get(11..19).unwrap_or(""));
    }
    out.push('\n');
    for message in messages {
        let _ = writeln!(out, "{message}");
    }
    out.push_str("\x1b[?7h");
    out
}
