//! What became of an update, for a person: on the stick, newest first.

use std::fs::{self, File};
use std::path::Path;

use jiff::Timestamp;
use vitalgate_layout::stick::UPDATE_REPORT;

use crate::boot::Running;
use crate::state_file::now_unix_ms;
use crate::stick::{StickError, write_file};

/// Largest report, in bytes; the oldest entries go first.
const REPORT_BYTES_MAX: usize = 32 * 1024;
/// Lines end so that every editor shows them.
const LINE_END: &str = "\r\n";

/// In the newest entry where the stick was put off: what a person wants by it was not looked at yet.
const PUT_OFF: &str = "Next:      plug the stick in again as it is\r\n";

/// Whether a person brought the stick anew: it has no report, or was only put off.
pub(crate) fn is_anew(stick: &Path) -> bool {
    let file = stick.join(UPDATE_REPORT);
    fs::symlink_metadata(&file).is_err() || was_put_off(&earlier(&file))
}

fn was_put_off(report: &str) -> bool {
    report.split_inclusive(LINE_END).take_while(|line| *line != LINE_END).any(|line| line == PUT_OFF)
}

/// Begins the report of a stick that a person brought anew, who is heard once. A stick that takes no report stays without one
/// however often the appliance starts, and says nothing by that.
pub(crate) fn begin_report(stick: &Path) -> bool {
    let file = stick.join(UPDATE_REPORT);
    let earlier = earlier(&file);
    if was_put_off(&earlier) {
        return write_file(&file, earlier.replace(PUT_OFF, "").as_bytes()).is_ok();
    }
    File::create_new(file).is_ok()
}

/// What is on the stick, as far as it is a report.
fn earlier(file: &Path) -> String {
    let earlier = match fs::metadata(file) {
        Ok(known) if known.is_file() && known.len() <= REPORT_BYTES_MAX as u64 * 2 => fs::read(file).unwrap_or_default(),
        _ => Vec::new(),
    };
    String::from_utf8_lossy(&earlier).into_owned()
}

/// Puts an entry in front of the report on a stick; `put_off` where what a person wants by it is still to be looked at.
///
/// # Errors
/// When the stick does not take it.
pub(crate) fn write_report(stick: &Path, running: Running, gateway: &str, result: &str, put_off: bool) -> Result<(), StickError> {
    let file = stick.join(UPDATE_REPORT);
    let mut text = entry(now_unix_ms(), running, gateway, result, if put_off { PUT_OFF } else { "" });
    text.push_str(&earlier(&file));
    let mut end = text.len().min(REPORT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    write_file(&file, text.get(..end).unwrap_or_default().as_bytes())
}

fn entry(at_unix_ms: i64, running: Running, gateway: &str, result: &str, next: &str) -> String {
    // Seconds are enough for a person.
    let at = Timestamp::from_second(at_unix_ms.div_euclid(1000)).map(|at| at.to_string()).unwrap_or_default();
    let lines = [
        "Vitalgate update report".to_owned(),
        format!("Time:      {at} (UTC, by the appliance's clock)"),
        format!("Appliance: {gateway}"),
        format!("Running:   version {} in slot {}", running.version, running.slot),
        format!("Result:    {result}"),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}{LINE_END}")).collect();
    lines + next + LINE_END
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitalgate_layout::{Slot, Version};

    /// The newest entry is read first, the report never grows without end, and a stick full of
    /// anything is no reason to stop.
    #[test]
    fn a_report_keeps_the_newest() {
        let stick = tempfile::tempdir().unwrap();
        let running = Running { slot: Slot::A, version: Version::parse("0.2.0").unwrap() };
        assert!(begin_report(stick.path()));
        assert!(!begin_report(stick.path()), "only once");
        fs::write(stick.path().join(UPDATE_REPORT), b"\xff\xfe garbage").unwrap();
        for number in 0..400 {
            write_report(stick.path(), running, "practice-01", &format!("result {number} \u{fc}\u{df}"), false).unwrap();
        }
        let text = fs::read_to_string(stick.path().join(UPDATE_REPORT)).unwrap();
        assert!(text.len() <= REPORT_BYTES_MAX);
        let newest = text.find("result 399").unwrap();
        assert!(newest < text.find("result 398").unwrap() && !text.contains("result 0 "));
        assert!(text.contains("Running:   version 0.2.0 in slot a\r\n"), "{text}");
    }
}
