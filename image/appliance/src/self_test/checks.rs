//! The checks, each for itself.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use vitalgate_config::{Device, DeviceSource};
use vitalgate_layout::{partition, path};

use super::Finding;
use crate::machine;
use crate::pause::pause;
use crate::places::Places;
use crate::room;
use crate::state_file::{now_unix_ms, replace};
use crate::storage;

/// How long one attempt may take, in seconds.
const CONNECT_S: u64 = 5;
/// Between two attempts, in milliseconds.
const AGAIN_MS: u64 = 1000;
/// What the name of a verified mapping begins with (libcryptsetup).
const VERIFIED: &str = "CRYPT-VERITY-";
/// UEFI's variable (UEFI Specification, section 3.3): four bytes of attributes, then 1 when it is on.
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Looks again until it passes or the time is over.
pub(super) fn until(deadline: Instant, look: impl Fn() -> Finding) -> Finding {
    loop {
        let finding = look();
        if matches!(finding, Finding::Passed(_)) || Instant::now() + Duration::from_millis(AGAIN_MS) >= deadline {
            return finding;
        }
        pause(Duration::from_millis(AGAIN_MS));
    }
}

/// The kernel restarts the machine at the first block of the root that is not as it was signed (`initrd`, `--panic-on-corruption`):
/// where the mapping of the root verifies and the machine runs, the root is what it should be.
pub(super) fn verity(places: &Places) -> Finding {
    let read = |block: &Path, name: &str| fs::read_to_string(block.join("dm").join(name)).unwrap_or_default();
    let blocks = fs::read_dir(places.at("/sys/class/block")).into_iter().flatten().flatten().map(|entry| entry.path());
    let uuid = blocks.into_iter().find(|block| read(block, "name").trim() == partition::ROOT_MAPPING).map(|block| read(&block, "uuid"));
    match uuid {
        Some(uuid) if uuid.starts_with(VERIFIED) => Finding::Passed("verified".to_owned()),
        _ => Finding::Failed("the root is not verified; flash the appliance anew".to_owned()),
    }
}

pub(super) fn secure_boot(places: &Places) -> Finding {
    match fs::read(places.at(SECURE_BOOT)) {
        Ok(bytes) if bytes.get(4) == Some(&1) => Finding::Passed("on".to_owned()),
        Ok(_) => Finding::Failed("Secure Boot is off; switch it on in the firmware".to_owned()),
        Err(_) => Finding::Failed("the firmware does not say whether Secure Boot is on; start it in UEFI mode".to_owned()),
    }
}

pub(super) fn tpm(places: &Places) -> Finding {
    if storage::has_tpm(places) {
        Finding::Passed("2.0".to_owned())
    } else {
        Finding::Failed("there is no TPM 2.0; switch it on in the firmware".to_owned())
    }
}

/// Storage that takes readings: it keeps a file, and has more room than the gateway keeps free.
pub(super) fn disk(places: &Places, needed_mib: u64) -> Finding {
    let file = places.at(path::APPLIANCE).join("self-test");
    let written = replace(&file, b"self test\n", 0o600).and_then(|()| fs::read(&file)).and_then(|bytes| {
        fs::remove_file(&file)?;
        if bytes == b"self test\n" { Ok(()) } else { Err(io::Error::other("it reads back something else")) }
    });
    if let Err(error) = written {
        return Finding::Failed(format!("sealed storage does not keep a file ({error}); replace the disk"));
    }
    match room::free_mib(&places.at(path::DATA)) {
        Ok(free_mib) if free_mib >= needed_mib => Finding::Passed(format!("{free_mib} MiB free")),
        Ok(free_mib) => Finding::Failed(format!(
            "{free_mib} MiB free, at least {needed_mib} are needed; take a larger disk, or a smaller free_space_floor_mib"
        )),
        Err(error) => Finding::Failed(format!("the free space is not known ({error})")),
    }
}

pub(super) fn clock(places: &Places) -> Finding {
    if now_unix_ms() < machine::image_unix_ms(places) {
        return Finding::Failed("the clock is before the image was made; check its battery, or give the site a time source".to_owned());
    }
    match fs::read_to_string(places.at(path::CLOCK_TRUST)).unwrap_or_default().trim() {
        "authenticated" => Finding::Passed("authenticated".to_owned()),
        "synchronised" => Finding::Passed("synchronised, not authenticated".to_owned()),
        _ => Finding::Failed("no time source has answered yet; the status page shows when one does".to_owned()),
    }
}

pub(super) fn interfaces(places: &Places) -> Finding {
    let mut up: Vec<String> = fs::read_dir(places.at("/sys/class/net"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| fs::read_to_string(entry.path().join("carrier")).is_ok_and(|carrier| carrier.trim() == "1"))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "lo")
        .collect();
    up.sort();
    if up.is_empty() {
        return Finding::Failed("no network cable is plugged in".to_owned());
    }
    Finding::Passed(up.join(", "))
}

/// Somebody who reaches addresses within so many seconds; for each why not, or nothing.
pub(super) type Reaches<'a> = &'a dyn Fn(Vec<String>, u64) -> Result<Vec<Option<String>>, String>;

/// Polled devices are reached by TCP, all at the same time; the others come by themselves.
pub(super) fn devices(devices: &[Device], deadline: Instant, reaches: Reaches<'_>) -> Vec<(String, Finding)> {
    let addresses: Vec<String> = devices.iter().filter_map(address).collect();
    let seconds = deadline.saturating_duration_since(Instant::now()).as_secs().max(CONNECT_S);
    let asked = if addresses.is_empty() { Ok(Vec::new()) } else { reaches(addresses, seconds) };
    let mut answers = asked.as_ref().map(|answers| answers.iter()).unwrap_or_default();
    let mut find = |device: &Device| {
        if address(device).is_none() {
            return Finding::Skipped("it publishes by itself");
        }
        match (&asked, answers.next()) {
            (Ok(_), Some(None)) => Finding::Passed("reached".to_owned()),
            (Ok(_), Some(Some(why))) => Finding::Failed(why.clone()),
            (Ok(_), None) => Finding::Skipped("it could not be looked at"),
            (Err(why), _) => Finding::Failed(format!("it could not be looked at: {why}")),
        }
    };
    devices.iter().map(|device| (device.id.to_string(), find(device))).collect()
}

fn address(device: &Device) -> Option<String> {
    match &device.source {
        DeviceSource::Modbus(bus) => Some(bus.address.to_string()),
        DeviceSource::Mqtt => None,
    }
}

/// Reaches each address, all at the same time; for each why not, or nothing.
pub(super) fn reach_all(addresses: Vec<String>, deadline: Instant) -> Vec<Option<String>> {
    let asked: Vec<_> = addresses.into_iter().map(|address| later(address, deadline)).collect();
    asked.into_iter().map(|answer| answer.recv().unwrap_or_else(|_| Some("it could not be looked at".to_owned()))).collect()
}

fn later(address: String, deadline: Instant) -> mpsc::Receiver<Option<String>> {
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || {
        let why_not = match reach(&address, deadline) {
            Finding::Passed(_) => None,
            Finding::Failed(why) => Some(why),
            Finding::Skipped(why) => Some(why.to_owned()),
        };
        let _ = sender.send(why_not);
    });
    answer
}

fn reach(address: &str, deadline: Instant) -> Finding {
    until(deadline, || match connect(address) {
        Ok(()) => Finding::Passed("reached".to_owned()),
        Err(error) => Finding::Failed(format!("{address} is not reached ({error}); check its cable, its address and that it is on")),
    })
}

fn connect(address: &str) -> io::Result<()> {
    let resolved: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let mut last = io::Error::other("the name has no address");
    for one in resolved {
        match TcpStream::connect_timeout(&one, Duration::from_secs(CONNECT_S)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Only a root that the kernel verifies passes, whatever else is mapped.
    #[test]
    fn a_root_that_is_not_verified_fails() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let map = |block: &str, name: &str, uuid: &str| {
            let folder = places.at("/sys/class/block").join(block).join("dm");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), format!("{name}\n")).unwrap();
            fs::write(folder.join("uuid"), format!("{uuid}\n")).unwrap();
        };
        map("dm-1", "other", "CRYPT-VERITY-0123-other");
        assert!(matches!(verity(&places), Finding::Failed(_)));
        map("dm-0", "root", "CRYPT-LUKS2-0123-root");
        assert!(matches!(verity(&places), Finding::Failed(_)));
        map("dm-0", "root", "CRYPT-VERITY-0123-root");
        assert!(matches!(verity(&places), Finding::Passed(_)));
    }

    /// A disk passes only where the first reading finds room: the gateway takes none below its floor.
    #[test]
    fn a_disk_that_the_gateway_calls_full_fails() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
        let free_mib = room::free_mib(folder.path()).unwrap();
        assert!(matches!(disk(&places, free_mib / 2), Finding::Passed(_)));
        let needed_mib = free_mib.saturating_mul(2).max(room::kept_free_mib(None));
        assert!(matches!(disk(&places, needed_mib), Finding::Failed(why) if why.contains(&format!("at least {needed_mib} are needed"))));
    }

    /// The variable's attributes are not its value.
    #[test]
    fn secure_boot_is_read_after_its_attributes() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        assert!(matches!(secure_boot(&places), Finding::Failed(_)));
        fs::create_dir_all(places.at(SECURE_BOOT).parent().unwrap()).unwrap();
        fs::write(places.at(SECURE_BOOT), [6, 0, 0, 0, 1]).unwrap();
        assert!(matches!(secure_boot(&places), Finding::Passed(_)));
        fs::write(places.at(SECURE_BOOT), [6, 0, 0, 1, 0]).unwrap();
        assert!(matches!(secure_boot(&places), Finding::Failed(_)));
    }

    /// A device that listens is reached; one that does not is named with its address.
    #[test]
    fn a_device_is_reached_or_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let deadline = Instant::now() + Duration::from_secs(5);
        assert_eq!(reach(&address, deadline), Finding::Passed("reached".to_owned()));
        drop(listener);
        let Finding::Failed(why) = reach(&address, Instant::now()) else { panic!("reached nobody") };
        assert!(why.contains(&address), "{why}");
    }
}
