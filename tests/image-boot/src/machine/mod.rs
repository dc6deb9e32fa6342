//! The virtual machine: what stays when the power is off, and one run of it.

pub(crate) mod console;
mod firmware;
pub(crate) mod model;
pub(crate) mod qmp;
pub(crate) mod shell;
pub(crate) mod tpm;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use vitalgate_layout::StateWord;
use vitalgate_test_support::free_port;

use crate::command::{copy, setting};
use crate::stick::Stick;
use console::{Console, Heard, state_of};
use model::Model;
use qmp::Qmp;
use shell::Shell;

/// Memory of the appliance in MiB.
const MEMORY_MIB: &str = "1024";
/// Number of the machine, as its firmware says.
const MACHINE: &str = "5c1f6e2a-8f0b-4c55-9d3e-76a1d0c0b001";
/// Serial number of the machine, as its firmware says.
pub(crate) const SERIAL: &str = "VG-TEST-0001";
/// Port of devices on the appliance.
pub(crate) const MQTT_PORT: u16 = 8883;
/// Port of the status page on the appliance.
pub(crate) const PAGE_PORT: u16 = 8443;
/// The appliance's address on QEMU's own network.
pub(crate) const GUEST: [u8; 4] = [10, 0, 2, 15];
/// The appliance's hardware address.
pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x56, 0x47, 0x01];
/// Longest boot, times `VITALGATE_PATIENCE`.
const BOOT_WITHIN: Duration = Duration::from_secs(400);
/// How often it looks whether no other machine runs.
const TURN_LOOK_EVERY: Duration = Duration::from_millis(200);
/// Starts in a row that never come into service before a test gives up.
const STARTS_MAX: u32 = 8;

/// A time on this machine: `VITALGATE_PATIENCE=2` doubles every one.
pub(crate) fn patience(wanted: Duration) -> Duration {
    wanted.mul_f64(setting("VITALGATE_PATIENCE", "1").parse().unwrap_or(1.0))
}

/// How the machine stands in the world this time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// What the hardware clock says, `1970-01-01T00:00:00`; the host's time without.
    pub(crate) clock: Option<String>,
    /// Cut off from everything but what comes in through the forwarded ports.
    pub(crate) cut_off: bool,
    /// A socket of raw Ethernet frames on the same segment.
    pub(crate) segment: Option<(PathBuf, PathBuf)>,
    /// With a second serial port, for an image with a shell on it.
    pub(crate) shell: bool,
}

/// What stays when the power is off.
pub(crate) struct Machine {
    model: Model,
    /// The disk, raw.
    pub(crate) disk: PathBuf,
    variables: PathBuf,
    tpm: PathBuf,
    evidence: PathBuf,
    /// Host's port that leads to the devices' port.
    pub(crate) mqtt_port: u16,
    /// Host's port that leads to the status page.
    pub(crate) page_port: u16,
    starts: u32,
}

/// One run, from power on to power off. It is killed when this is dropped.
pub(crate) struct Running {
    qemu: Child,
    /// What it says.
    pub(crate) console: Console,
    /// The second serial port, if it was asked for.
    pub(crate) shell: Option<Shell>,
    qmp: Qmp,
    sticks: u32,
    _tpm: Option<Child>,
    _sockets: TempDir,
    _turn: Flock<File>,
}

impl Machine {
    /// A machine whose parts are in `folder`: `disk.img`, firmware variables and TPM. Evidence goes to `evidence`.
    ///
    /// # Errors
    /// When no port is free.
    pub(crate) fn at(folder: &Path, evidence: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        std::fs::create_dir_all(evidence)?;
        Ok(Self {
            model: Model::wanted()?,
            disk: folder.join("disk.img"),
            variables: folder.join("variables.fd"),
            tpm: folder.join("tpm"),
            evidence: evidence.to_owned(),
            mqtt_port: free_port()?,
            page_port: free_port()?,
            starts: 0,
        })
    }

    /// New firmware variables with our keys, and a new TPM.
    ///
    /// # Errors
    /// When a tool is missing.
    pub(crate) async fn manufacture(&self, secure_boot_keys: &Path) -> anyhow::Result<()> {
        firmware::enrol(self.model, secure_boot_keys, &self.variables).await?;
        self.replace_tpm().await
    }

    /// Another machine in the same condition, in `folder`.
    ///
    /// # Errors
    /// When a part cannot be copied.
    pub(crate) async fn duplicate(&self, folder: &Path, evidence: &Path) -> anyhow::Result<Self> {
        let twin = Self::at(folder, evidence)?;
        if twin.tpm.exists() {
            std::fs::remove_dir_all(&twin.tpm)?;
        }
        copy(&self.disk, &twin.disk).await?;
        copy(&self.variables, &twin.variables).await?;
        if self.model.has_tpm() {
            copy(&self.tpm, &twin.tpm).await?;
        }
        Ok(twin)
    }

    /// Takes the TPM out and puts a new one in, where the machine has one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) async fn replace_tpm(&self) -> anyhow::Result<()> {
        if self.model.has_tpm() { tpm::manufacture(&self.tpm).await } else { Ok(()) }
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// Where evidence goes.
    pub(crate) fn evidence(&self) -> &Path {
        &self.evidence
    }

    /// Switches the power on. Waits until no other machine runs on this host.
    ///
    /// # Errors
    /// When QEMU or swtpm cannot be started.
    pub(crate) async fn power_on(&mut self, surroundings: &Surroundings) -> anyhow::Result<Running> {
        let turn = turn().await?;
        let sockets = tempfile::tempdir().context("no folder for sockets")?;
        let tpm_socket = sockets.path().join("tpm");
        let qmp_socket = sockets.path().join("qmp");
        let tpm = if self.model.has_tpm() { Some(tpm::start(&self.tpm, &tpm_socket).await?) } else { None };
        self.starts += 1;
        let emulator = self.model.emulator();
        let mut command = Command::new(emulator);
        command.args(self.arguments(surroundings));
        if tpm.is_some() {
            command.arg("-chardev").arg(format!("socket,id=tpm,path={}", tpm_socket.display()));
            command.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
        }
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", qmp_socket.display()));
        let shell_socket = sockets.path().join("shell");
        if surroundings.shell {
            command.arg("-chardev").arg(format!("socket,id=shell,path={},server=on,wait=off", shell_socket.display()));
            command.args(["-serial", "chardev:shell"]);
        }
        // Several machines of a case share the folder.
        let number = (1_u32..).find(|number| !self.console_file(*number).exists()).unwrap_or(self.starts);
        let complaints = File::create(self.evidence.join(format!("qemu-{number:02}.log")))?;
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{emulator} cannot be started; tools/setup installs it"))?;
        let output = qemu.stdout.take().context("QEMU without a console")?;
        let console = Console::read(output, &self.console_file(number))?;
        let qmp = Qmp::connect(&qmp_socket).await.with_context(|| console.end())?;
        let shell = if surroundings.shell { Some(Shell::connect(&shell_socket).await?) } else { None };
        Ok(Running { qemu, console, shell, qmp, sticks: 0, _tpm: tpm, _sockets: sockets, _turn: turn })
    }

    fn console_file(&self, number: u32) -> PathBuf {
        self.evidence.join(format!("console-{number:02}.log"))
    }

    fn arguments(&self, surroundings: &Surroundings) -> Vec<String> {
        let code = self.model.firmware();
        let cut_off = if surroundings.cut_off { ",restrict=on" } else { "" };
        let forward =
            format!("hostfwd=tcp:127.0.0.1:{}-:{MQTT_PORT},hostfwd=tcp:127.0.0.1:{}-:{PAGE_PORT}", self.mqtt_port, self.page_port);
        let clock = surroundings.clock.as_deref().map_or("utc", |clock| clock);
        let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let (disk, variables) = (self.disk.display(), self.variables.display());
        let mut arguments: Vec<String> = [
            "-nodefaults -no-user-config -no-reboot -display none -serial stdio -accel tcg,tb-size=512 -smp 1",
            self.model.board(),
            "-device qemu-xhci,id=usb -device virtio-rng-pci -device i6300esb -action watchdog=reset",
        ]
        .join(" ")
        .split(' ')
        .map(str::to_owned)
        .collect();
        let mut more = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        more("-m", MEMORY_MIB.to_owned());
        // The same machine in every run: its identity is part of what it keeps.
        more("-uuid", MACHINE.to_owned());
        more("-smbios", format!("type=1,manufacturer=Vitalgate,product=Test,serial={SERIAL},uuid={MACHINE}"));
        more("-rtc", format!("base={clock}"));
        more("-drive", format!("if=pflash,format=raw,unit=0,readonly=on,file={}", code.display()));
        more("-drive", format!("if=pflash,format=raw,unit=1,file={variables}"));
        more("-drive", format!("if=none,id=disk,format=raw,discard=unmap,file={disk}"));
        more("-device", format!("virtio-blk-pci,drive=disk,serial={SERIAL},bootindex=1"));
        more("-netdev", format!("user,id=world{cut_off},{forward}"));
        let network = match &surroundings.segment {
            None => "world",
            Some((ours, theirs)) => {
                let (ours, theirs) = (ours.display(), theirs.display());
                more("-netdev", format!("dgram,id=frames,local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}"));
                more("-netdev", "hubport,id=hub-world,hubid=0,netdev=world".to_owned());
                more("-netdev", "hubport,id=hub-frames,hubid=0,netdev=frames".to_owned());
                more("-netdev", "hubport,id=hub-guest,hubid=0".to_owned());
                "hub-guest"
            }
        };
        more("-device", format!("virtio-net-pci,netdev={network},mac={mac},romfile="));
        arguments
    }

    /// Switches on and waits for one of these states; a machine that restarts itself is switched on again.
    ///
    /// # Errors
    /// When none of them comes in time or after too many starts.
    pub(crate) async fn boot_to(&mut self, surroundings: &Surroundings, wanted: &[StateWord]) -> anyhow::Result<(Running, Duration)> {
        for _ in 0..STARTS_MAX {
            let mut running = self.power_on(surroundings).await?;
            if let Heard::Yes(_, at) = running.state(wanted, BOOT_WITHIN).await? {
                return Ok((running, at));
            }
        }
        bail!("{STARTS_MAX} starts and never {wanted:?}")
    }
}

impl Running {
    /// Waits for one of these states on the console.
    ///
    /// # Errors
    /// When none comes in time.
    pub(crate) async fn state(&mut self, wanted: &[StateWord], within: Duration) -> anyhow::Result<Heard<(StateWord, String)>> {
        let what = format!("{wanted:?} on the console");
        self.console.wait(&what, patience(within), |line| state_of(line).filter(|(word, _)| wanted.contains(word))).await
    }

    /// Puts a stick in; its name for pulling it out.
    ///
    /// # Errors
    /// When QEMU refuses it.
    pub(crate) async fn plug(&mut self, stick: &Stick) -> anyhow::Result<String> {
        self.sticks += 1;
        let name = format!("stick{}", self.sticks);
        let file = json!({"driver": "file", "filename": stick.file()});
        self.qmp.execute("blockdev-add", json!({"driver": "raw", "node-name": name, "file": file})).await?;
        let device = json!({"driver": "usb-storage", "id": name, "bus": "usb.0", "drive": name, "removable": true});
        self.qmp.execute("device_add", device).await?;
        Ok(name)
    }

    /// Pulls a stick out.
    ///
    /// # Errors
    /// When QEMU refuses it.
    pub(crate) async fn pull(&mut self, name: &str) -> anyhow::Result<()> {
        self.qmp.execute("device_del", json!({"id": name})).await?;
        self.qmp.deleted(name).await?;
        self.qmp.execute("blockdev-del", json!({"node-name": name})).await.map(drop)
    }

    /// Bytes that the appliance wrote to its disk since the power came on.
    ///
    /// # Errors
    /// When QEMU does not say.
    pub(crate) async fn written(&mut self) -> anyhow::Result<u64> {
        let all = self.qmp.execute("query-blockstats", json!({})).await?;
        let disk = all.as_array().into_iter().flatten().find(|device| device["device"] == "disk");
        disk.and_then(|disk| disk["stats"]["wr_bytes"].as_u64()).context("QEMU does not know the disk")
    }

    /// A picture of the screen, as PNG.
    ///
    /// # Errors
    /// When QEMU cannot write it.
    pub(crate) async fn screenshot(&mut self, file: &Path) -> anyhow::Result<()> {
        let file = std::path::absolute(file)?;
        self.qmp.execute("screendump", json!({"filename": file, "format": "png"})).await.map(drop)
    }

    /// Cuts the power.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(crate) async fn cut(mut self) -> anyhow::Result<()> {
        self.qemu.kill().await.context("QEMU cannot be killed")
    }

    /// Waits until the machine goes off or restarts by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) async fn ended(&mut self, within: Duration) -> anyhow::Result<()> {
        match tokio::time::timeout(patience(within), self.qemu.wait()).await {
            Ok(status) => status.map(drop).context("QEMU cannot be waited for"),
            Err(_) => bail!("the machine is still on after {within:?}; the console ends with\n{}", self.console.end()),
        }
    }

    /// The same, and how it ended, as QEMU calls it: `guest-reset` or `guest-shutdown`.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) async fn ended_how(&mut self, within: Duration) -> anyhow::Result<String> {
        self.ended(within).await?;
        self.qmp.shutdown_reason().await
    }

    /// The fingerprint of the key that signs the appliance's reports, from the console.
    ///
    /// # Errors
    /// When the console does not say it in time.
    pub(crate) async fn report_key(&mut self, within: Duration) -> anyhow::Result<String> {
        let key = |text: &str| Some(text.split_once("VITALGATE KEY ")?.1.split_whitespace().next()?.to_owned());
        if let Some(known) = self.console.all().iter().rev().find_map(|line| key(&line.text)) {
            return Ok(known);
        }
        match self.console.wait("VITALGATE KEY on the console", patience(within), key).await? {
            Heard::Yes(key, _) => Ok(key),
            Heard::Off => bail!("it went off; the console ends with\n{}", self.console.end()),
        }
    }
}

/// Waits until no other virtual machine runs on this host: two of them would only wait for each other.
/// Whoever waits for its turn holds the second lock, so that a case of many starts lets others in between.
async fn turn() -> anyhow::Result<Flock<File>> {
    let path = setting("VITALGATE_VM_LOCK", "target/image-boot/machine.lock");
    let _next = locked(Path::new(&format!("{path}.next"))).await?;
    locked(Path::new(&path)).await
}

async fn locked(path: &Path) -> anyhow::Result<Flock<File>> {
    let mut file = File::options().create(true).append(true).open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut tick = tokio::time::interval(TURN_LOOK_EVERY);
    loop {
        tick.tick().await;
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => return Ok(turn),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => return Err(error).context("no lock"),
        };
    }
}
