//! What the operating system says of the gateway's process.

use anyhow::Context as _;

/// Clock ticks a second in /proc (`getconf CLK_TCK`; 100 on every Linux this runs on).
const TICKS_PER_S: f64 = 100.0;

/// CPU seconds of the process so far, user and system.
pub(crate) fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("no such process")?;
    // The name in parentheses may hold spaces; the numbers follow it (proc(5): utime 14, stime 15).
    let after = text.rsplit_once(')').context("an odd /proc/PID/stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS_PER_S)
}

/// Resident memory now, in MiB.
pub(crate) fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    status_kib(pid, "VmRSS:").map(|kib| kib / 1024.0)
}

/// Highest resident memory since the start or the last [`forget_peak`], in MiB.
pub(crate) fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    status_kib(pid, "VmHWM:").map(|kib| kib / 1024.0)
}

/// Starts the peak anew (proc(5): writing 5 to clear_refs).
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak cannot be reset")
}

fn status_kib(pid: u32, key: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("no such process")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key} in /proc/PID/status"))?;
    line.trim().trim_end_matches("kB").trim().parse().context("an odd number in /proc/PID/status")
}
