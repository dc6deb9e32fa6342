//! What happens when: readings flow, the EHR goes away, comes back, the queue drains, the proof.

use std::io::IsTerminal as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vitalgate_domain::DeviceNamespace;
use vitalgate_simulator::Recording;
use vitalgate_test_support::ehr::sightings_in;
use vitalgate_test_support::{GatewayProcess, Oracle, Verdict, wait_until};

use crate::ehr::DemoEhr;
use crate::judgement::{self, Evidence};
use crate::ledger::{Ledger, Phase, Totals};
use crate::terminal::Terminal;
use crate::ward::{GATEWAY, Ward};
use crate::{Arguments, EhrKind, page};

/// How often the gateway's status and the EHR are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// Longest wait for the queue to drain before the comparison is made all the same.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for the last acknowledgements after the recordings were paused.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(15);
/// Charted seconds per second: 48 hours in two and a half minutes, or what sekmet keeps up with.
const SPEED_UP: f64 = 1_200.0;
const SPEED_UP_SEKMET: f64 = 240.0;

/// Everything that takes part.
struct Cast {
    ledger: Arc<Ledger>,
    ehr: Arc<DemoEhr>,
    gateway: Arc<GatewayProcess>,
    ward: Ward,
    terminal: Terminal,
    look: JoinHandle<()>,
}

/// Runs the demonstration; true when nothing was lost or doubled.
pub(crate) async fn tell(arguments: Arguments) -> anyhow::Result<bool> {
    let interactive = std::io::stdout().is_terminal() && !arguments.once;
    // From the first moment: whoever is stopped without it leaves processes and private keys behind.
    let mut stopped = pin!(stopped()?);
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let mut cast = tokio::select! {
        cast = enter(&arguments, interactive, folder.path()) => cast?,
        () = &mut stopped => return Ok(false),
    };
    let proven = tokio::select! {
        proven = cast.play(&arguments) => proven,
        () = &mut stopped => {
            cast.terminal.end("stopped before the proof");
            cast.leave().await;
            return Ok(false);
        }
    };
    if interactive && proven.is_ok() {
        cast.ward.resume();
        cast.terminal.say("the recordings go on; Ctrl-C ends the demonstration");
        stopped.await;
    }
    cast.terminal.end("");
    cast.leave().await;
    proven
}

/// Ends when somebody or something stops the demonstration.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("no signal handler")?;
    let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn enter(arguments: &Arguments, interactive: bool, folder: &std::path::Path) -> anyhow::Result<Cast> {
    let recording = Recording::load(&arguments.recording).context("the recordings cannot be replayed")?;
    let sekmet = arguments.ehr == EhrKind::Sekmet;
    let speed_up = arguments.speed_up.unwrap_or(if sekmet { SPEED_UP_SEKMET } else { SPEED_UP });
    let mut ward = Ward::new(&recording, speed_up).await?;
    let ehr = Arc::new(match arguments.ehr {
        EhrKind::BuiltIn => DemoEhr::built_in().await?,
        EhrKind::Sekmet => DemoEhr::sekmet(&arguments.sekmet, folder).await?,
    });
    let ledger = Arc::new(Ledger::new(Oracle::of(DeviceNamespace::new(GATEWAY)?, &ward.devices()), ward.beds(), ehr.name(), ehr.url()));
    let address = page::serve(arguments.port, ledger.clone()).await?;
    let terminal = Terminal::start(interactive, ledger.clone(), format!("http://{address}/"));
    terminal.say(&format!("watch it at http://{address}/"));
    let (gateway, transports) = ward.start_gateway(&ehr, folder).await?;
    terminal.say("the gateway is ready; 12 MQTT monitors (TLS 1.3, own certificates) and one polled Modbus monitor are switched on");
    ward.switch_on(gateway.mqtt_address(), transports, &ledger);
    let gateway = Arc::new(gateway);
    let look = tokio::spawn(look(ledger.clone(), ehr.clone(), gateway.clone()));
    Ok(Cast { ledger, ehr, gateway, ward, terminal, look })
}

/// Keeps the ledger up to date for as long as the demonstration runs.
async fn look(ledger: Arc<Ledger>, ehr: Arc<DemoEhr>, gateway: Arc<GatewayProcess>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = 0;
    loop {
        tick.tick().await;
        let up = ehr.is_up().await;
        ledger.ehr_is(up);
        if let Ok(status) = gateway.status().await {
            ledger.gateway(&status);
        }
        if let Ok(committed) = polled_readings(&gateway).await {
            ledger.polled(committed);
        }
        if up && let Ok(arrived) = ehr.since(known).await {
            known += arrived.len();
            ledger.arrived(&arrived);
        }
    }
}

/// Readings of polled devices that the gateway committed, from its metrics.
async fn polled_readings(gateway: &GatewayProcess) -> anyhow::Result<u64> {
    let metrics = gateway.metrics().await?;
    let line = metrics.lines().find(|line| !line.starts_with('#') && line.contains("modbus_readings")).context("no such metric")?;
    let value = line.split_whitespace().last().context("no value")?;
    Ok(value.parse::<f64>().context("no number")? as u64)
}

impl Cast {
    async fn play(&mut self, arguments: &Arguments) -> anyhow::Result<bool> {
        let start = Instant::now();
        let second = |seconds: u64| start + Duration::from_secs(seconds);
        self.say(Phase::Flowing, "Readings flow: from the bedside to the gateway's disk, and from there to the EHR");
        let gone = arguments.outage_at_s;
        tokio::time::sleep_until(second(gone)).await;
        self.ehr.down().await?;
        self.ledger.ehr_is(false);
        self.say(Phase::Outage, "The EHR is gone. The gateway goes on acknowledging, because every reading is on its disk first");
        let back = gone + arguments.outage_s;
        tokio::time::sleep_until(second(back)).await;
        self.ehr.up().await?;
        self.ledger.ehr_is(true);
        self.say(Phase::Draining, "The EHR is back. What waited is delivered, new readings first");
        let drained = self.drained().await;
        if drained {
            self.say(Phase::Flowing, "The queue is empty again, readings flow as before");
        }
        tokio::time::sleep_until(second(back + arguments.after_s)).await;
        self.prove().await
    }

    fn say(&self, phase: Phase, message: &str) {
        self.ledger.phase(phase, message);
        self.terminal.say(message);
    }

    /// Waits until what waits is only what is on its way.
    async fn drained(&self) -> bool {
        const ON_ITS_WAY: u64 = 200;
        wait_until("the queue to drain", DRAIN_WITHIN, async || {
            let status = self.gateway.status().await.ok()?;
            (status["destinations"][0]["queued"].as_u64()? < ON_ITS_WAY).then_some(())
        })
        .await
        .is_ok()
    }

    /// Pauses the recordings, waits for everything to arrive, and compares the two sets.
    async fn prove(&mut self) -> anyhow::Result<bool> {
        self.say(Phase::Proving, "The recordings pause; the last readings arrive, then both sets are compared");
        let handed_over = self.ward.pause().await?;
        let waited =
            wait_until("the last acknowledgements", ACKNOWLEDGED_WITHIN, async || (self.ledger.messages() >= handed_over).then_some(()))
                .await;
        if let Err(error) = waited {
            self.terminal.say(&format!("{error:#}"));
        }
        self.ledger.polled(polled_readings(&self.gateway).await?);
        let (gateway, ledger) = (&self.gateway, &self.ledger);
        let waited = wait_until("every reading to arrive", DRAIN_WITHIN, async || {
            let status = gateway.status().await.ok()?;
            let queued = status["destinations"][0]["queued"].as_u64()?;
            let totals = ledger.view().totals;
            (queued == 0 && totals.in_the_ehr >= totals.acknowledged).then_some(())
        })
        .await;
        if let Err(error) = waited {
            self.terminal.say(&format!("{error:#}"));
        }
        let polled = polled_readings(&self.gateway).await?;
        self.ledger.with_oracle(|oracle| oracle.polls(self.ward.polled_device(), self.ward.read_sets()));
        let (verdict, of_nobody) = self.verdict().await?;
        let silent = self.ledger.silent(self.ward.monitors());
        let against =
            Evidence { verdict: &verdict, handed_over, acknowledged: self.ledger.messages(), silent, polled, of_nobody }.against();
        let proven = against.is_empty();
        let text = against.iter().fold(verdict.to_string(), |text, against| format!("{text}\n  {against}"));
        let totals = Totals {
            acknowledged: verdict.acknowledged,
            in_the_ehr: verdict.in_the_ehr,
            lost: Some(verdict.lost_count()),
            duplicated: verdict.duplicated_count(),
        };
        self.ledger.proof(if proven { Phase::Proven } else { Phase::Failed }, totals, text.clone());
        self.terminal.proof(&text, proven);
        Ok(proven)
    }

    /// Reads everything that the EHR holds, afresh; with how many Observations are of nobody.
    async fn verdict(&self) -> anyhow::Result<(Verdict, u64)> {
        let all = self.ehr.since(0).await?;
        let stated: Vec<_> = all.iter().map(|one| sightings_in(&one.observation, &one.id)).collect();
        let devices: Vec<_> = self.ward.monitors().chain([self.ward.polled_device()]).map(|device| device.as_str().to_owned()).collect();
        let of_nobody = judgement::of_nobody(stated.iter().map(Vec::as_slice), &devices);
        let sightings: Vec<_> = stated.into_iter().flatten().collect();
        Ok((self.ledger.with_oracle(|oracle| oracle.compare(&sightings)), of_nobody))
    }

    /// Nobody holds the gateway any more when its folder goes.
    async fn leave(self) {
        self.look.abort();
        let _aborted = self.look.await;
    }
}
