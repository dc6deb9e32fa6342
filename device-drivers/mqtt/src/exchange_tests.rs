//! Whatever a device sends and in whatever order the commits end, acknowledgements keep the order of
//! the messages and never run ahead of the commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use vitalgate_domain::{BootId, ClockTrust, DecodedSample, DeviceId, Received, UnixMs};
use vitalgate_intake::{Intake, IntakeQueue, Receipt, Submission, Submitted, intake};

use crate::exchange::{Exchange, Settled, Step};
use crate::session::Session;
use crate::wire::Level;
use crate::wire::answer::Answers;
use crate::wire::frame::Frame;

fn received() -> Received {
    Received { wall: UnixMs(0), monotonic_ms: 0, boot: BootId::from_bytes([0; 16]), trust: ClockTrust::Free }
}

const TOPIC: &[u8] = b"vitals/m1/a";

#[derive(Debug, Clone)]
enum Act {
    /// The device publishes at this QoS.
    Publish(u8),
    /// The device lets go of a QoS 2 message it was told of.
    Release(usize),
    /// One of the messages that were submitted is on disk.
    Commit(usize),
    /// The connection looks for receipts.
    Look,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0_u8..3).prop_map(Act::Publish),
        1 => any::<usize>().prop_map(Act::Release),
        3 => any::<usize>().prop_map(Act::Commit),
        3 => Just(Act::Look),
    ];
    prop::collection::vec(act, 1..120)
}

struct Model {
    exchange: Exchange,
    intake: Intake,
    queue: IntakeQueue,
    submitted: BTreeMap<u16, Submission>,
    committed: BTreeMap<u16, bool>,
    /// First byte and identifier of each answer that is due, in order.
    due: VecDeque<(u8, u16)>,
    told: Vec<u16>,
    next: u16,
}

impl Model {
    fn new() -> Self {
        let (intake, queue) = intake();
        let decode: crate::Decode = Arc::new(|_, sample| {
            Some(DecodedSample {
                device: sample.device,
                channel: sample.channel,
                received: sample.received,
                readings: Vec::new(),
                payload: Vec::new(),
                unreadable: None,
            })
        });
        let device = DeviceId::new("m1").unwrap();
        let answers = Answers::new(Level::V311, usize::MAX);
        let exchange = Exchange::new(device, Session::new(), answers, Level::V311, decode, u16::MAX);
        let (submitted, committed) = (BTreeMap::new(), BTreeMap::new());
        Self { exchange, intake, queue, submitted, committed, due: VecDeque::new(), told: Vec::new(), next: 1 }
    }

    async fn publish(&mut self, qos: u8) {
        let id = self.next;
        self.next += 1;
        let mut body = vec![0, u8::try_from(TOPIC.len()).unwrap()];
        body.extend(TOPIC);
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        body.extend(id.to_string().bytes());
        let first = 0x30 | qos << 1;
        let packet = [vec![first, u8::try_from(body.len()).unwrap()], body].concat();
        let Ok(Step::Submit(sample, due)) = self.exchange.take(Frame { first, header: 2, total: packet.len() }, &packet, received()) else {
            panic!("not submitted")
        };
        let receipt = self.intake.submit(Submitted::Sample(sample)).await.unwrap();
        self.exchange.expect(due, receipt);
        self.submitted.insert(id, self.queue.try_next().unwrap());
        self.committed.insert(id, false);
        self.due.push_back((if qos == 2 { 0x50 } else { 0x40 } * u8::from(qos > 0), id));
    }

    fn commit(&mut self, which: usize) {
        let Some(id) = self.submitted.keys().nth(which % self.submitted.len().max(1)).copied() else { return };
        self.submitted.remove(&id).unwrap().answer(Receipt::Committed);
        self.committed.insert(id, true);
    }

    fn release(&mut self, which: usize) -> Result<(), TestCaseError> {
        if self.told.is_empty() {
            return Ok(());
        }
        let id = self.told.swap_remove(which % self.told.len());
        let packet = [vec![0x62, 2], id.to_be_bytes().to_vec()].concat();
        let taken = self.exchange.take(Frame { first: 0x62, header: 2, total: 4 }, &packet, received());
        prop_assert!(taken.is_ok());
        let expected = [vec![0x70, 2], id.to_be_bytes().to_vec()].concat();
        prop_assert_eq!(&self.exchange.answers.bytes[..], &expected);
        self.exchange.answers.bytes.clear();
        Ok(())
    }

    /// Every message at the front that is on disk is answered now, in order, and nothing else is.
    fn look(&mut self) -> Result<(), TestCaseError> {
        let mut expected = Vec::new();
        let mut progress = false;
        while let Some((first, id)) = self.due.front().copied().filter(|(_, id)| self.committed[id]) {
            self.due.pop_front();
            progress = true;
            if first != 0 {
                expected.extend([first, 2]);
                expected.extend(id.to_be_bytes());
            }
            if first == 0x50 {
                self.told.push(id);
            }
        }
        let settled = self.exchange.poll_settled(&mut Context::from_waker(Waker::noop()));
        prop_assert_eq!(settled, if progress { Poll::Ready(Settled::Progress) } else { Poll::Pending });
        prop_assert_eq!(&self.exchange.answers.bytes[..], &expected);
        self.exchange.answers.bytes.clear();
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledgements_keep_the_order_and_follow_the_commit(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new();
            for act in acts {
                match act {
                    Act::Publish(qos) => model.publish(qos).await,
                    Act::Release(which) => model.release(which)?,
                    Act::Commit(which) => model.commit(which),
                    Act::Look => model.look()?,
                }
            }
            while !model.submitted.is_empty() {
                model.commit(0);
            }
            model.look()?;
            prop_assert!(model.due.is_empty() && !model.exchange.is_waiting());
            Ok(())
        })?;
    }
}
