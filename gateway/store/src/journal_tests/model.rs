//! The journal against a simple model, in any order of actions.

use std::sync::Arc;

use proptest::prelude::*;
use vitalgate_domain::{Entry, Sequence, SequenceRanges};

use super::basics::{destinations, read_all, settle};
use super::second::AllCheckpointed;
use crate::files::forgetful::{ForgetfulFiles, PowerCut};
use crate::opening::{OpenedJournal, open_journal};
use crate::tests_support::{readings, small_options, wrap};

#[derive(Debug, Clone)]
enum Action {
    Append(u64),
    Settle(u64, u64),
    Maintain,
    Rotate,
    Reopen,
    Kill,
    Cut(PowerCut),
    CutDuringAppend(PowerCut, u64),
}

fn any_cut() -> impl Strategy<Value = PowerCut> {
    prop_oneof![Just(PowerCut::DropAll), Just(PowerCut::KeepSizes), any::<u64>().prop_map(PowerCut::KeepSome)]
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (1u64..150).prop_map(Action::Append),
        4 => (1u64..600, 0u64..300).prop_map(|(first, length)| Action::Settle(first, length)),
        2 => Just(Action::Maintain),
        1 => Just(Action::Rotate),
        1 => Just(Action::Reopen),
        1 => Just(Action::Kill),
        1 => any_cut().prop_map(Action::Cut),
        2 => (any_cut(), 1u64..5).prop_map(|(cut, step)| Action::CutDuringAppend(cut, step)),
    ]
}

struct Model {
    files: ForgetfulFiles,
    entries: Vec<Entry>,
    settled: SequenceRanges,
    number: u64,
}

impl Model {
    fn open(&self) -> OpenedJournal {
        let opened = open_journal(small_options(), wrap(), Arc::new(self.files.clone()), None).unwrap();
        opened.journal.outbox.connect(Arc::new(AllCheckpointed::default()));
        opened
    }

    fn fresh(&mut self, count: u64) -> Vec<Entry> {
        self.number += count;
        readings("m1", self.number - count, count)
    }

    /// Everything not settled is there, and what is there is what was written.
    fn check(&self, opened: &OpenedJournal) {
        let (records, lost) = read_all(&opened.reader);
        assert!(lost.is_empty(), "{lost:?}");
        let oldest = opened.reader.oldest().0;
        assert!(self.settled.first_missing(Sequence(1)).0 >= oldest, "unsettled entries are gone");
        assert_eq!(oldest as usize - 1 + records.len(), self.entries.len());
        for (place, record) in records.iter().enumerate() {
            assert_eq!(record.entry, self.entries[oldest as usize - 1 + place]);
        }
        assert_eq!(opened.journal.state().settled.values().next(), Some(&self.settled));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_behaves_like_a_list_that_survives_everything(actions in prop::collection::vec(any_action(), 1..40)) {
        let mut model = Model { files: ForgetfulFiles::default(), entries: vec![], settled: SequenceRanges::new(), number: 0 };
        let mut opened = model.open();
        opened.journal.append(&[], &[destinations(&["ehr"])]).unwrap();
        for action in actions {
            match action {
                Action::Append(count) => {
                    let entries = model.fresh(count);
                    opened.journal.append(&entries, &[]).unwrap();
                    model.entries.extend(entries);
                }
                Action::Settle(first, length) => {
                    let last = (first + length).min(model.entries.len() as u64);
                    if first <= last {
                        opened.journal.append(&[], &[settle("ehr", first, last)]).unwrap();
                        model.settled.insert(Sequence(first), Sequence(last));
                    }
                }
                Action::Maintain => drop(opened.journal.maintain().unwrap()),
                Action::Rotate => drop(opened.journal.rotate_data_key(None).unwrap()),
                Action::Reopen => {
                    drop(opened);
                    opened = model.open();
                    prop_assert!(opened.report.findings.is_empty(), "{}", opened.report);
                }
                Action::Kill => {
                    model.files = model.files.after_kill();
                    opened = model.open();
                    prop_assert!(opened.report.findings.is_empty(), "{}", opened.report);
                }
                Action::Cut(cut) => {
                    model.files = model.files.after(cut);
                    opened = model.open();
                }
                Action::CutDuringAppend(cut, step) => {
                    let entries = model.fresh(60);
                    model.files.cut_at(model.files.operations() + step);
                    let answer = opened.journal.append(&entries, &[]);
                    model.files = model.files.after(cut);
                    opened = model.open();
                    let committed = opened.reader.committed().0 as usize;
                    prop_assert!(answer.is_err() || committed >= model.entries.len() + entries.len());
                    // All of the unacknowledged group or nothing of it.
                    prop_assert!(committed == model.entries.len() || committed == model.entries.len() + entries.len());
                    if committed > model.entries.len() {
                        model.entries.extend(entries);
                    }
                }
            }
            model.check(&opened);
        }
    }
}
