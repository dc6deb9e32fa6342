//! The power goes at every single step, and what was not synced is forgotten in every way.

use std::path::PathBuf;
use std::sync::Arc;

use vitalgate_domain::{DestinationId, Entry, Sequence, UnixMs};

use super::basics::{destinations, read_all, settle};
use super::second::AllCheckpointed;
use crate::files::forgetful::{ForgetfulFiles, PowerCut};
use crate::opening::{OpenedJournal, open_journal};
use crate::report::Finding;
use crate::tests_support::{readings, small_options, wrap};

/// What the outside was told.
#[derive(Debug, Default, Clone)]
struct Told {
    acknowledged: Vec<Entry>,
    settled: u64,
    /// Entries of the commit that was under way: they may be there or not.
    under_way: Vec<Entry>,
}

const MODES: [PowerCut; 6] =
    [PowerCut::DropAll, PowerCut::KeepSizes, PowerCut::KeepSome(1), PowerCut::KeepSome(2), PowerCut::KeepSome(3), PowerCut::KeepSome(4)];

/// Opens, commits, settles, rolls, rotates the key, reclaims, until the power goes.
fn work(files: &ForgetfulFiles, told: &mut Told) -> Option<()> {
    let OpenedJournal { mut journal, .. } = open_journal(small_options(), wrap(), Arc::new(files.clone()), None).ok()?;
    journal.outbox.connect(Arc::new(AllCheckpointed::default()));
    journal.append(&[], &[destinations(&["ehr"])]).ok()?;
    for batch in 0..14u64 {
        let entries = readings("m1", told.acknowledged.len() as u64, 20 + batch * 11);
        told.under_way.clone_from(&entries);
        let settled = told.acknowledged.len() as u64 / 2;
        let changes = if settled > 0 { vec![settle("ehr", 1, settled)] } else { vec![] };
        let (_, last) = journal.append(&entries, &changes).ok()??;
        told.acknowledged.append(&mut told.under_way);
        told.settled = settled;
        assert_eq!(last.0, told.acknowledged.len() as u64);
        match batch {
            2 => journal.note_data_key_made(UnixMs(1_795_341_600_000)).ok()?,
            4 => drop(journal.rotate_data_key(Some(UnixMs(1_795_428_000_000))).ok()?),
            6 | 10 => drop(journal.maintain().ok()?),
            _ => {}
        }
    }
    Some(())
}

fn assert_nothing_missing(files: &ForgetfulFiles, told: &Told, context: &str) -> OpenedJournal {
    let opened = match open_journal(small_options(), wrap(), Arc::new(files.clone()), None) {
        Ok(opened) => opened,
        Err(error) => panic!("{context}: does not open: {error:?}"),
    };
    let (records, damaged) = read_all(&opened.reader);
    assert!(damaged.is_empty(), "{context}: {damaged:?} reported lost");
    // Only a key file that was being written may have come down to one copy.
    let other_damage = |finding: &&Finding| finding.is_damage() && !matches!(finding, Finding::KeyHealed { .. });
    assert_eq!(opened.report.findings.iter().find(other_damage), None, "{context}");
    let expected: Vec<Entry> = told.acknowledged.iter().chain(&told.under_way).cloned().collect();
    let oldest = opened.reader.oldest().0;
    assert!(oldest <= told.settled + 1, "{context}: unsettled entries are gone");
    let last = oldest - 1 + records.len() as u64;
    assert!(last >= told.acknowledged.len() as u64, "{context}: {last} of {} acknowledged", told.acknowledged.len());
    for (place, record) in records.iter().enumerate() {
        assert_eq!(record.sequence, Sequence(oldest + place as u64), "{context}");
        assert_eq!(Some(&record.entry), expected.get(place + oldest as usize - 1), "{context}");
    }
    if told.settled > 0 {
        let settled = &opened.state.settled[&DestinationId::new("ehr").unwrap()];
        assert!(settled.first_missing(Sequence(1)).0 > told.settled, "{context}: settled entries would be sent again");
    }
    opened
}

#[test]
fn a_power_cut_at_any_step_of_any_work_loses_nothing_acknowledged_and_the_store_opens() {
    let whole = ForgetfulFiles::default();
    let mut told = Told::default();
    work(&whole, &mut told).unwrap();
    let steps = whole.operations();
    let mut trials = 0;
    for step in 1..=steps {
        let files = ForgetfulFiles::default();
        files.cut_at(step);
        let mut told = Told::default();
        assert!(work(&files, &mut told).is_none() || step == steps, "step {step} of {steps}");
        for mode in MODES {
            let after = files.after(mode);
            let context = format!("cut at step {step} of {steps}, {mode:?}");
            let mut opened = assert_nothing_missing(&after, &told, &context);
            // It goes on from there, and another cut right after changes nothing.
            let more = readings("m2", step, 3);
            let (first, last) = opened.journal.append(&more, &[]).unwrap().unwrap();
            assert_eq!(last.0 - first.0, 2);
            drop(opened);
            let again = open_journal(small_options(), wrap(), Arc::new(after.after(PowerCut::DropAll)), None).unwrap();
            assert_eq!(again.reader.get(last).unwrap().unwrap().entry, more[2], "{context}");
            trials += 1;
        }
    }
    println!("power cuts while working: {trials} trials over {steps} steps, nothing acknowledged missing");
    assert!(trials > 300);
}

type Change = fn(&mut Vec<u8>);

/// Damages the way that the mending at opening takes, and cuts that at each step.
#[test]
fn a_power_cut_at_any_step_of_mending_loses_nothing() {
    let begun = ForgetfulFiles::default();
    let mut told = Told::default();
    work(&begun, &mut told).unwrap();
    let journal = |place: usize| -> PathBuf {
        let paths: Vec<_> = begun.paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "segment")).collect();
        let journal: Vec<_> = paths.into_iter().filter(|path| path.starts_with("/state/store/journal")).collect();
        journal[journal.len() - 1 - place].clone()
    };
    let key = PathBuf::from("/state/store/keys/00000001.a.key");
    let last = journal(0);
    let cases: [(&PathBuf, &str, Change); 5] = [
        (&last, "a bit", |bytes| bytes[4_096 + 70] ^= 4),
        (&last, "the header", |bytes| bytes[..64].fill(0)),
        (&last, "cut short", |bytes| bytes.truncate(6_000)),
        (&last, "all zero", |bytes| bytes.fill(0)),
        (&key, "key cut short", |bytes| bytes.truncate(10)),
    ];
    let mut trials = 0;
    for (path, what, change) in cases {
        let damaged = begun.after_kill();
        damaged.damage(path, change);
        let probe = damaged.after_kill();
        drop(open_journal(small_options(), wrap(), Arc::new(probe.clone()), None).unwrap());
        let steps = probe.operations();
        for step in 1..=steps {
            let files = damaged.after_kill();
            // What was there before has long been written back.
            files.sync_everything();
            files.cut_at(step);
            let _cut = open_journal(small_options(), wrap(), Arc::new(files.clone()), None);
            for mode in MODES {
                let after = files.after(mode);
                let context = format!("{what}, mending cut at step {step} of {steps}, {mode:?}");
                let opened =
                    open_journal(small_options(), wrap(), Arc::new(after), None).unwrap_or_else(|error| panic!("{context}: {error:?}"));
                let (records, lost) = read_all(&opened.reader);
                assert!(lost.is_empty(), "{context}: {lost:?}");
                assert_eq!(records.last().unwrap().sequence.0, told.acknowledged.len() as u64, "{context}");
                assert_eq!(records.last().map(|record| &record.entry), told.acknowledged.last(), "{context}");
                trials += 1;
            }
        }
    }
    println!("power cuts while mending: {trials} trials, nothing acknowledged missing");
    assert!(trials > 100);
}
