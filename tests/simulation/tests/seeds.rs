//! Runs the simulation over many seeds. `VITALGATE_SIMULATION_SEEDS=N` runs more,
//! `VITALGATE_SIMULATION_FROM=S` starts elsewhere; a failure names its seed.

use vitalgate_pipeline::delivery::LIVE_READINGS_MAX;
use vitalgate_simulation::{Scenario, Verdict, run};

/// Seeds in an ordinary run: a few seconds.
const SEEDS: u64 = 50;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// At most half of the devices are without a patient that the destination knows, in half of the runs.
fn assert_mostly_delivered(sum: Verdict) {
    assert!(sum.delivered > sum.acknowledged / 2, "too little was delivered to prove anything: {sum:?}");
}

fn run_all(scenario: Scenario, seeds: u64) -> Verdict {
    let from = from_environment("VITALGATE_SIMULATION_FROM").unwrap_or(1);
    let mut sum = Verdict::default();
    for seed in from..from + seeds {
        let outcome = run(scenario, seed);
        assert!(outcome.is_ok(), "seed {seed} of {scenario:?}: {}", outcome.err().unwrap_or_default());
        let verdict = outcome.unwrap_or_default();
        sum.acknowledged += verdict.acknowledged;
        sum.delivered += verdict.delivered;
        sum.listed += verdict.listed;
        sum.crashes += verdict.crashes;
        sum.requests += verdict.requests;
        sum.jumps += verdict.jumps;
        sum.held_most = sum.held_most.max(verdict.held_most);
    }
    sum
}

/// Promise: every acknowledged reading is at the destination exactly once, under its device's patient, or
/// is a listed dead letter for a cause that there was, whatever the destination does and whenever the
/// gateway is killed.
#[test]
fn an_acknowledged_reading_is_delivered_exactly_once_or_listed() {
    let seeds = from_environment("VITALGATE_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let sum = run_all(Scenario::default(), seeds);
    println!("{seeds} seeds: {sum:?}");
    assert!(
        sum.acknowledged > 500 * seeds as usize && u64::from(sum.crashes) > seeds,
        "the runs were too quiet to prove anything: {sum:?}"
    );
    assert_mostly_delivered(sum);
}

/// The same with so much traffic that memory fills, the live lane jumps ahead and a backlog drains.
#[test]
fn a_full_memory_loses_and_doubles_nothing() {
    let seeds = from_environment("VITALGATE_SIMULATION_SEEDS").unwrap_or(SEEDS).div_ceil(10);
    let busy = Scenario { devices: 12, sending_ms: 40_000, interval_ms_min: 25, crashes: 2 };
    let sum = run_all(busy, seeds);
    println!("{seeds} busy seeds: {sum:?}");
    assert!(sum.acknowledged > 4_000 * seeds as usize, "the runs were too quiet to fill memory: {sum:?}");
    assert!(sum.held_most > LIVE_READINGS_MAX && sum.jumps > 0, "memory was not full, or the live lane never jumped ahead: {sum:?}");
    assert_mostly_delivered(sum);
}

/// A failure must be repeatable: a run is a function of its seed.
#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in [3, 77] {
        let first = run(Scenario::default(), seed);
        assert!(first.is_ok(), "seed {seed}: {first:?}");
        assert_eq!(first, run(Scenario::default(), seed));
    }
}
