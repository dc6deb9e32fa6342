//! The commit loop: the one owner of admission and journal.
//!
//! It takes what queued up while the last flush ran, admits it, writes it with one flush, and only
//! then gives the receipts. There is no timer: an idle gateway commits a single reading at once, a
//! busy one fills its groups by itself.

mod carry;
mod held;
mod kept;
mod letters;
mod spared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use vitalgate_console::{Answered, ReadModelError, Resolution, ResolveRequest};
use vitalgate_domain::limits::{COMMIT_READINGS_MAX, READINGS_PER_SAMPLE_MAX};
use vitalgate_domain::{Associations, Change, ClockTrust, DecodedSample, DestinationId, DeviceId, Entry, Flags, Sequence};
use vitalgate_intake::{IntakeQueue, Receipt, ReceiptSender, Submission, Submitted};
use vitalgate_pipeline::Admission;
use vitalgate_store::{CommitError, Journal, Ordinal};

use crate::beacon::{Beacon, IDLE_BEAT_MS};
use crate::clock::{Clock, monotonic_ms};
use crate::replay::{Again, Plan, Replay, Told, without};
use crate::rotation::Rotation;
use crate::shared::{Settlement, Shared};
use crate::undated::Undated;
pub(crate) use kept::Kept;
pub(crate) use letters::LetterLog;
pub(crate) use spared::spare;

/// Most commands that wait for the commit loop.
pub(crate) const COMMANDS_MAX: usize = 1_024;
/// Most changes that ride in one commit.
const CHANGES_PER_COMMIT_MAX: usize = 256;
/// Refused or held readings after which no further change rides in a commit. Each takes some 150 to 300 bytes, and what is
/// written at once must fit into a segment.
const REJECTIONS_PER_COMMIT_MAX: usize = 8 * 1_024;
/// Bytes of payloads in dead letters after which a group is closed.
const COMMIT_PAYLOAD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Time between two rounds of upkeep (segments, recent ids), in milliseconds.
const UPKEEP_INTERVAL_MS: u64 = 1_000;
/// What is said when the disk failed.
const UNWRITABLE: &str = "the journal cannot be written; the gateway restarts and reads it again";

/// What other loops ask of the commit loop.
pub(crate) enum Command {
    /// Make this change durable.
    Change(Change),
    /// Keep that this destination is written to by conditional create, and say whether that is durable.
    WrittenConditionally(DestinationId, oneshot::Sender<bool>),
    /// Replay or discard dead letters, and answer when that is durable.
    Resolve(ResolveRequest, oneshot::Sender<Result<Answered, ReadModelError>>),
}

/// Everything that the loop owns.
pub(crate) struct CommitLoop {
    /// The drivers' submissions.
    pub(crate) queue: IntakeQueue,
    /// The other loops' commands.
    pub(crate) commands: mpsc::Receiver<Command>,
    /// The journal.
    pub(crate) journal: Journal,
    /// Who and what is admitted.
    pub(crate) admission: Admission,
    /// Which patient a device is attached to.
    pub(crate) associations: Associations,
    /// Clock.
    pub(crate) clock: Clock,
    /// Facts for status and metrics.
    pub(crate) shared: Arc<Shared>,
    /// Tells the delivery loops how far the journal reaches.
    pub(crate) committed: watch::Sender<Sequence>,
    /// How dead letters are read again.
    pub(crate) replay: Replay,
    /// What is known of dead letters beside the journal's entries.
    pub(crate) told: Box<dyn Told>,
    /// When old dead letters may be moved again, in monotonic milliseconds.
    pub(crate) carry_at_ms: u64,
    /// The oldest place that is to be moved, and the last record when that was seen.
    pub(crate) carry_seen: Option<(Sequence, Ordinal)>,
    /// The oldest place that could not be moved, so that it is said once.
    pub(crate) not_carried: Option<Sequence>,
    /// Readings whose moment is not known, because the clock was never set.
    pub(crate) undated: Undated,
    /// When the next data key is due.
    pub(crate) rotation: Rotation,
    /// What waits for the next round of upkeep while the disk is full.
    pub(crate) kept: Kept,
    /// What the log says of dead letters.
    pub(crate) letters: LetterLog,
    /// Sign of life.
    pub(crate) beacon: Beacon,
}

/// Who asked, and what is answered once it is durable.
type Answer = (oneshot::Sender<Result<Answered, ReadModelError>>, Answered);

/// What goes into the next commit.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    changes: Vec<Change>,
    /// Refused and held readings that the changes name.
    rejections: usize,
    receipts: Vec<ReceiptSender>,
    /// Devices with a reading in it, and when that came in monotonic milliseconds.
    heard: Vec<(DeviceId, u64)>,
    payload_bytes: usize,
    /// Somebody asked for a replay or a discarding, whatever came of it.
    is_asked: bool,
    answers: Vec<Answer>,
    /// Changes that need none of the entries: they are also made where there is no room for those.
    apart: Vec<Change>,
    answers_apart: Vec<Answer>,
    /// Changes that settle some of the entries: without those they are nothing, since others would come to their places.
    with_entries: Vec<Change>,
    /// Who waits until it is kept that a destination is written to by conditional create.
    conditional: Vec<(DestinationId, oneshot::Sender<bool>)>,
    /// Dead letters that this commit resolves: no other request of the same commit may do it again.
    resolved: BTreeSet<Sequence>,
    /// Readings that get their moment with this commit.
    dated: Vec<Sequence>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.changes.is_empty() && self.apart.is_empty()
    }

    /// Whether something is settled, resolved or begins as a dead letter with it.
    fn changes_settlement(&self) -> bool {
        !self.changes.is_empty() || self.entries.iter().any(|entry| matches!(entry, Entry::DeadLetter(_)))
    }

    fn has_room(&self) -> bool {
        self.entries.len() + READINGS_PER_SAMPLE_MAX < COMMIT_READINGS_MAX
            && self.receipts.len() < COMMIT_READINGS_MAX
            && self.payload_bytes < COMMIT_PAYLOAD_BYTES_MAX
    }
}

enum Woken {
    Submission(Submission),
    Command(Command),
    Idle,
    /// The gateway stops, and every driver is gone.
    Ended,
}

impl CommitLoop {
    /// Runs until the gateway stops, every driver is gone and the queue is drained.
    ///
    /// # Errors
    /// When the disk failed; the process must restart.
    pub(crate) async fn run(mut self) -> anyhow::Result<Journal> {
        let mut upkeep_at_ms = 0;
        let mut group = Group::default();
        loop {
            self.beacon.moved();
            let ended = match self.wait().await {
                Woken::Submission(submission) => {
                    self.take(submission, &mut group);
                    false
                }
                Woken::Command(command) => {
                    self.obey(command, &mut group);
                    false
                }
                Woken::Idle => false,
                Woken::Ended => true,
            };
            self.fill(&mut group);
            self.commit(&mut group)?;
            if ended {
                self.fill(&mut group);
                self.commit(&mut group)?;
                self.write_kept()?;
                return Ok(self.journal);
            }
            if monotonic_ms() >= upkeep_at_ms {
                upkeep_at_ms = monotonic_ms() + UPKEEP_INTERVAL_MS;
                self.upkeep(&mut group)?;
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        tokio::select! {
            submission = self.queue.next() => submission.map_or(Woken::Ended, Woken::Submission),
            Some(command) = self.commands.recv() => Woken::Command(command),
            () = tokio::time::sleep(Duration::from_millis(IDLE_BEAT_MS)) => Woken::Idle,
        }
    }

    /// Adds what queued up meanwhile. Another request to replay or discard waits for the next commit: each takes its time, and devices
    /// wait for their acknowledgements.
    fn fill(&mut self, group: &mut Group) {
        while group.changes.len() < CHANGES_PER_COMMIT_MAX && group.rejections < REJECTIONS_PER_COMMIT_MAX && !group.is_asked {
            let Ok(command) = self.commands.try_recv() else { break };
            self.obey(command, group);
        }
        while group.has_room() {
            let Some(submission) = self.queue.try_next() else { break };
            self.take(submission, group);
        }
    }

    fn take(&mut self, submission: Submission, group: &mut Group) {
        let (submitted, receipt) = submission.into_parts();
        match submitted {
            Submitted::Sample(sample) => {
                let heard = (sample.device.clone(), sample.received.monotonic_ms);
                if self.admit(sample, group) {
                    group.heard.push(heard);
                }
            }
            Submitted::Event(event) => group.entries.push(Entry::DeviceEvent(event)),
        }
        group.receipts.push(receipt);
    }

    /// Says whether a reading was in it, be it one that was here before.
    fn admit(&mut self, sample: DecodedSample, group: &mut Group) -> bool {
        let next = self.journal.next_sequence().plus(group.entries.len() as u64);
        let admitted = self.admission.admit(sample, &self.associations, next);
        self.shared.duplicates.fetch_add(u64::from(admitted.duplicates), Ordering::Relaxed);
        for entry in &admitted.entries {
            if let Entry::DeadLetter(letter) = entry {
                group.payload_bytes += letter.bytes.len();
                self.shared.unreadable.fetch_add(1, Ordering::Relaxed);
            }
        }
        let has_reading = admitted.duplicates > 0 || admitted.entries.iter().any(|entry| matches!(entry, Entry::Reading(_)));
        group.entries.extend(admitted.entries);
        has_reading
    }

    /// Once the clock is set, the readings that waited for it get their moment and go on.
    fn date_undated(&mut self, group: &mut Group) {
        let now = self.clock.now();
        if now.trust == ClockTrust::Unset {
            return;
        }
        self.undated.look_on(&self.replay.reader, self.journal.state(), now.boot);
        let ready = self.undated.take_ready(self.journal.state());
        if ready.is_empty() {
            return;
        }
        let sequences = ready.iter().map(|sequence| sequence.0).collect();
        let request = ResolveRequest { sequences, among: None, resolution: Resolution::Replay, by: None };
        match self.plan(&request, "dated when the clock was set", group) {
            Ok(plan) => {
                // The rest with the next round of upkeep.
                let left = plan.answered.not_reached.map_or(u64::MAX, |(next, _)| next);
                self.undated.put_back(ready.into_iter().filter(|sequence| sequence.0 >= left));
                group.dated.extend(&plan.resolved);
                self.carry_out(plan, group);
            }
            Err(error) => {
                tracing::warn!(%error, "readings that wait for the clock cannot be read; they are tried again");
                self.undated.put_back(ready);
            }
        }
    }

    fn obey(&mut self, command: Command, group: &mut Group) {
        match command {
            Command::Change(change) => {
                if let Change::Settled { rejected, .. } = &change {
                    group.rejections += rejected.len();
                }
                group.changes.push(change);
            }
            Command::WrittenConditionally(destination, asker) => {
                group.apart.push(Change::WrittenConditionally { destination: destination.clone() });
                group.conditional.push((destination, asker));
            }
            Command::Resolve(request, answer) => self.resolve(&request, answer, group),
        }
    }

    fn resolve(&mut self, request: &ResolveRequest, answer: oneshot::Sender<Result<Answered, ReadModelError>>, group: &mut Group) {
        group.is_asked = true;
        match self.plan(request, &request.note(), group) {
            Ok(plan) => {
                let answers = if plan.stores_nothing() { &mut group.answers_apart } else { &mut group.answers };
                answers.push((answer, plan.answered.clone()));
                self.carry_out(plan, group);
            }
            Err(error) => {
                let _asker_left = answer.send(Err(error));
            }
        }
    }

    /// What the commit under way resolves already is no dead letter any more.
    fn plan(&self, request: &ResolveRequest, note: &str, group: &Group) -> Result<Plan, ReadModelError> {
        let unresolved = without(&self.journal.state().unresolved, &group.resolved);
        self.replay.plan(request, &unresolved, self.journal.state(), (&self.associations, &self.admission), &self.clock.now(), note)
    }

    fn carry_out(&mut self, plan: Plan, group: &mut Group) {
        let changes = if plan.stores_nothing() { &mut group.apart } else { &mut group.changes };
        changes.extend(plan.change);
        let mut places = BTreeMap::new();
        for (letter, again) in plan.again {
            match again {
                Again::Sample(sample) => {
                    let admitted = self.admission.admit_again(sample, &self.associations, letter);
                    self.shared.duplicates.fetch_add(u64::from(admitted.duplicates), Ordering::Relaxed);
                    group.entries.extend(admitted.entries.into_iter().map(replayed));
                }
                Again::Reading { reading, is_same_patient } => {
                    if is_same_patient {
                        places.insert(letter, self.journal.next_sequence().plus(group.entries.len() as u64));
                    }
                    group.entries.push(Entry::Reading(reading));
                }
            }
        }
        group.with_entries.extend(self.taken_before(&places));
        group.resolved.extend(plan.resolved);
    }

    /// Writes the group and gives the receipts. Only a full disk is survived here.
    fn commit(&mut self, group: &mut Group) -> anyhow::Result<()> {
        // What the group was made of may have taken its time.
        self.beacon.moved();
        let (receipt, apart) = self.write(group)?;
        if receipt == Receipt::Committed {
            self.note_heard(&group.heard);
        }
        for sender in group.receipts.drain(..) {
            sender.answer(receipt);
        }
        answer_all(&mut group.answers, receipt);
        answer_all(&mut group.answers_apart, apart);
        for (destination, asker) in group.conditional.drain(..) {
            let _asker_left = asker.send(self.journal.state().conditional.contains(&destination));
        }
        if receipt == Receipt::Committed && !group.dated.is_empty() {
            tracing::info!(readings = group.dated.len(), "the clock is set: readings that waited for it got their moment");
        } else {
            self.undated.put_back(group.dated.drain(..));
        }
        *group = Group::default();
        Ok(())
    }

    fn note_heard(&self, heard: &[(DeviceId, u64)]) {
        for (device, at_ms) in heard {
            if let Some(last) = self.shared.devices.get(device) {
                last.note(*at_ms);
            }
        }
    }

    /// Gives the receipt of the entries and what belongs to them, and that of the changes apart.
    fn write(&mut self, group: &mut Group) -> anyhow::Result<(Receipt, Receipt)> {
        if group.is_empty() {
            return Ok((Receipt::Committed, Receipt::Committed));
        }
        let has_room = self.journal.has_room().context("free space is not known")?;
        if has_room {
            self.write_kept()?;
        }
        if !has_room || !self.kept.is_empty() {
            // Each by itself they would use up the room that is left for settling.
            self.keep(&mut group.changes)?;
            if group.is_empty() {
                return Ok((Receipt::Committed, Receipt::Committed));
            }
        }
        group.changes = self.without_resolved(std::mem::take(&mut group.changes), &group.resolved);
        let together = group.changes.len();
        group.changes.append(&mut group.apart);
        let without_entries = group.changes.len();
        group.changes.append(&mut group.with_entries);
        match self.journal.append(&group.entries, &group.changes) {
            Ok(range) => {
                self.admission.confirm();
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                if let Some((first, _)) = range {
                    self.shared.below_floor.store(false, Ordering::Relaxed);
                    self.undated.note(&group.entries, first, self.clock.now().boot);
                    self.letters.stored(&group.entries, first);
                    self.shared.committed_entries.fetch_add(group.entries.len() as u64, Ordering::Relaxed);
                }
                if group.changes_settlement() {
                    self.publish_settlement();
                }
                if let Some((_, last)) = range {
                    // Whoever reads the entries now must know which of them are settled for it already.
                    self.committed.send_replace(last);
                }
                self.letters.settled(&group.changes, &self.journal.state().unresolved);
                Ok((Receipt::Committed, Receipt::Committed))
            }
            Err(CommitError::BelowFloor) => {
                self.admission.rollback();
                self.tell_full();
                group.changes.truncate(without_entries);
                let apart = group.changes.split_off(together);
                self.keep(&mut group.changes)?;
                Ok((Receipt::Refused, self.write_changes(&apart)?))
            }
            Err(error) => Err(error).context(UNWRITABLE),
        }
    }

    /// Settling frees space, so it goes on below the floor, out of the reserve.
    fn write_changes(&mut self, changes: &[Change]) -> anyhow::Result<Receipt> {
        match self.journal.append(&[], changes) {
            Ok(_) => {
                self.publish_settlement();
                self.letters.settled(changes, &self.journal.state().unresolved);
                Ok(Receipt::Committed)
            }
            Err(CommitError::BelowFloor) => Ok(Receipt::Refused),
            Err(error) => Err(error).context(UNWRITABLE),
        }
    }

    /// Keeps what settles until there is room. More than is written at once is written now.
    fn keep(&mut self, changes: &mut Vec<Change>) -> anyhow::Result<()> {
        self.kept.take(changes);
        let mut destinations = self.shared.destinations.iter();
        let is_more =
            destinations.any(|(destination, facts)| self.kept.is_over(destination) && !facts.settling_waits.load(Ordering::Relaxed));
        if is_more { self.write_kept() } else { Ok(()) }
    }

    /// Settles what waits for it. As long as there is no room it waits on, and a destination with more of it than is written at once
    /// reads no further: nothing is delivered twice for it in this process, and memory holds it.
    fn write_kept(&mut self) -> anyhow::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        loop {
            self.beacon.moved();
            let part = self.kept.next_part();
            let changes = self.without_resolved(part.clone(), &BTreeSet::new());
            if changes.is_empty() {
                break;
            }
            if self.write_changes(&changes)? == Receipt::Refused {
                self.kept.put_back(part);
                break;
            }
        }
        for (destination, facts) in &self.shared.destinations {
            facts.settling_waits.store(self.kept.is_over(destination), Ordering::Relaxed);
        }
        Ok(())
    }

    fn publish_settlement(&self) {
        self.shared.set_settlement(Settlement::from(&self.journal));
    }

    fn tell_full(&self) {
        if !self.shared.below_floor.swap(true, Ordering::Relaxed) {
            tracing::error!("free space is below the floor: nothing is acknowledged until there is room; see `vitalgate status`");
        }
    }

    fn upkeep(&mut self, group: &mut Group) -> anyhow::Result<()> {
        self.journal.note_time(&self.clock.now());
        self.write_kept()?;
        self.date_undated(group);
        // What gets its moment is no dead letter any more when old ones are moved.
        self.commit(group)?;
        self.letters.tell_others(monotonic_ms());
        self.journal.maintain().context("the journal's segments cannot be kept up")?;
        self.beacon.moved();
        self.carry_forward()?;
        self.beacon.moved();
        // A device that was sent away may be long in coming again, and none may have come yet.
        if self.journal.is_below_floor().context("free space is not known")? {
            self.tell_full();
        } else if self.shared.below_floor.load(Ordering::Relaxed) && self.journal.has_room().context("free space is not known")? {
            self.shared.below_floor.store(false, Ordering::Relaxed);
            tracing::info!("there is room again: readings are acknowledged");
        }
        self.rotation.keep(&mut self.journal, &self.clock.now()).context("the journal's data key cannot be changed")
    }
}

/// A reading that says that it came late.
fn replayed(mut entry: Entry) -> Entry {
    if let Entry::Reading(reading) = &mut entry {
        reading.flags = reading.flags.with(Flags::REPLAYED);
    }
    entry
}

fn answer_all(answers: &mut Vec<Answer>, receipt: Receipt) {
    for (asker, answered) in answers.drain(..) {
        let answer = if receipt == Receipt::Committed { Ok(answered) } else { Err(ReadModelError::Store("the disk is full".to_owned())) };
        let _asker_left = asker.send(answer);
    }
}

#[cfg(test)]
mod tests;
