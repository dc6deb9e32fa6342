//! What is open, what is in the root, how large it is, what it finds when it looks at itself.

mod audit;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::appliance::{Appliance, IN_SERVICE};
use crate::command::{self, setting};
use crate::disk;
use crate::evidence::{Evidence, figure, tenths};
use crate::image::Image;
use crate::machine::{GUEST, GUEST_MAC, MQTT_PORT, PAGE_PORT, Surroundings, patience};
use crate::segment::{Protocol, Station};

/// Most Debian packages in the root.
const PACKAGES_MAX: usize = 150;
/// Largest root in MiB.
const ROOT_MIB_MAX: f64 = 96.0;
/// Largest bundle in MiB.
const BUNDLE_MIB_MAX: f64 = 80.0;
/// Longest wait for the gateway after the first state word of a start.
const LISTENS_WITHIN: Duration = Duration::from_secs(120);
/// Most ports in a line of the story.
const SHOWN_MAX: usize = 20;
const MIB: f64 = 1024.0 * 1024.0;
/// Where a squashfs superblock keeps the length of the file system (squashfs 4.0, `bytes_used`).
const SQUASHFS_LENGTH: std::ops::Range<usize> = 40..48;
/// Programs that run what they are told.
const INTERPRETERS: [&str; 22] = [
    "sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox", "toybox", "perl", "python", "python3", "ruby", "lua", "tclsh", "node",
    "awk", "gawk", "mawk", "php", "sshd", "agetty",
];

/// One file of the root, as `unsquashfs -lls` lists it.
#[derive(Debug, PartialEq, Eq)]
struct Listed<'a> {
    mode: &'a str,
    path: &'a str,
}

pub(super) async fn run(evidence: &mut Evidence) -> anyhow::Result<()> {
    let image = Image::first()?;
    if evidence.wants("root") {
        let disk = evidence.folder().join("disk.img");
        image.flash(&disk).await?;
        let outcome = root(&disk, &image, evidence).await;
        evidence.outcome("the root was looked at", outcome);
        std::fs::remove_file(disk)?;
    }
    if evidence.wants("ports") {
        let outcome = ports(&image, evidence).await;
        evidence.outcome("the ports were asked", outcome);
    }
    if evidence.wants("lynis") {
        let inspect = Image::find(&setting("VITALGATE_INSPECT", "0.1.0-inspect"))?;
        let outcome = audit::run(&inspect, evidence).await;
        evidence.outcome("the appliance was looked at from inside", outcome);
    }
    Ok(())
}

async fn ports(image: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut appliance = Appliance::commissioned(image, "scan-machine", evidence).await?;
    let sockets = tempfile::tempdir()?;
    let (ours, theirs) = (sockets.path().join("station"), sockets.path().join("machine"));
    let station = Station::bind(&ours, &theirs, (GUEST_MAC, GUEST))?;
    // QEMU's router would try the ports itself, at its host's network.
    let surroundings = Surroundings { segment: Some((ours, theirs)), cut_off: true, ..Surroundings::default() };
    let (running, _) = appliance.machine.boot_to(&surroundings, &IN_SERVICE).await?;
    // Without a time source the state word says that first, whether the gateway has started or not.
    station.until_open(MQTT_PORT, patience(LISTENS_WITHIN)).await?;
    let tcp = station.ask_every_port(Protocol::Tcp).await?;
    let udp = station.ask_every_port(Protocol::Udp).await?;
    evidence.keep("ports.txt", format!("TCP {tcp:?}\nUDP {udp:?}\n"));
    let wanted = BTreeSet::from([MQTT_PORT, PAGE_PORT]);
    evidence.check(&format!("open TCP ports of all 65535 are exactly the configured ones: {}", few(&tcp.open)), tcp.open == wanted);
    evidence.check(&format!("every other TCP port is silent; these refuse: {}", few(&tcp.refused)), tcp.refused.is_empty());
    let answer = udp.open.union(&udp.refused).copied().collect();
    evidence.check(&format!("all 65535 UDP ports are silent; these answer: {}", few(&answer)), answer.is_empty());
    figure("open_ports", tcp.open.into_iter().collect::<Vec<_>>())?;
    running.cut().await
}

/// The first ports and how many there are.
fn few(ports: &BTreeSet<u16>) -> String {
    let first: Vec<_> = ports.iter().take(SHOWN_MAX).collect();
    format!("{first:?}{}", if ports.len() > SHOWN_MAX { format!(" of {}", ports.len()) } else { String::new() })
}

async fn root(disk: &Path, image: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let file = evidence.folder().join("root.squashfs");
    disk::extract(disk, "root-a", &file).await?;
    let listing = command::run("unsquashfs", ["-lls".as_ref(), file.as_os_str()]).await?;
    let head = std::fs::read(&file)?;
    let length = head.get(SQUASHFS_LENGTH).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes).context("no squashfs")?;
    drop(head);
    std::fs::remove_file(&file)?;
    let files: Vec<Listed<'_>> = listing.lines().filter_map(listed).collect();
    anyhow::ensure!(files.len() > 100, "only {} files listed: the checks would hold for nothing", files.len());
    for (what, found) in [
        ("setuid or setgid", named(&files, |file| has_set_id(file.mode))),
        ("writable for everybody", named(&files, |file| writable_for_all(file.mode))),
        ("a shell, an interpreter or a way to log in", named(&files, is_interpreter)),
    ] {
        evidence.check(&format!("no file of {} is {what}: {found:?}", files.len()), found.is_empty());
    }
    evidence.keep("root.txt", listing.as_bytes());
    let (root, bundle) = (length as f64 / MIB, std::fs::metadata(image.bundle())?.len() as f64 / MIB);
    let packages = image.packages()?;
    evidence.check(&format!("{packages} packages, at most {PACKAGES_MAX}"), packages > 10 && packages <= PACKAGES_MAX);
    evidence.check(&format!("the root has {root:.1} MiB, at most {ROOT_MIB_MAX}"), root <= ROOT_MIB_MAX);
    evidence.check(&format!("the bundle has {bundle:.1} MiB, at most {BUNDLE_MIB_MAX}"), bundle <= BUNDLE_MIB_MAX);
    figure("packages", packages)?;
    figure("root_mib", tenths(root))?;
    figure("bundle_mib", tenths(bundle))
}

fn named<'a>(files: &[Listed<'a>], wanted: impl Fn(&Listed<'_>) -> bool) -> Vec<&'a str> {
    files.iter().filter(|file| wanted(file)).map(|file| file.path).collect()
}

/// `-rwxr-xr-x root/root 123 2026-01-01 00:00 squashfs-root/usr/bin/x`; a link is followed by its target.
fn listed(line: &str) -> Option<Listed<'_>> {
    let mode = line.split_whitespace().next().filter(|mode| mode.len() == 10)?;
    let path = line.split_once("squashfs-root").map(|(_, path)| path)?;
    Some(Listed { mode, path: path.split(" -> ").next().unwrap_or(path) })
}

fn has_set_id(mode: &str) -> bool {
    !mode.starts_with('d') && mode.contains(['s', 'S'])
}

/// Links have no mode of their own; a folder with the sticky bit is shared on purpose.
fn writable_for_all(mode: &str) -> bool {
    !mode.starts_with('l') && mode.as_bytes().get(8) == Some(&b'w') && !mode.ends_with(['t', 'T'])
}

fn is_interpreter(file: &Listed<'_>) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let program = ["/bin/", "/sbin/", "/libexec/"].iter().any(|folder| file.path.contains(folder));
    let plain = name.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    program && !file.mode.starts_with('d') && (INTERPRETERS.contains(&name) || INTERPRETERS.contains(&plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checks find what they are there for.
    #[test]
    fn a_way_in_is_found_in_a_listing() {
        let text = "Parallel unsquashfs: Using 2 processors\n\
            drwxrwxrwt root/root                 3 2026-01-01 00:00 squashfs-root/tmp\n\
            -rwsr-xr-x root/root             55528 2026-01-01 00:00 squashfs-root/usr/bin/mount\n\
            -rw-rw-rw- root/root                 1 2026-01-01 00:00 squashfs-root/etc/open\n\
            lrwxrwxrwx root/root                 4 2026-01-01 00:00 squashfs-root/usr/bin/sh -> dash\n\
            -rwxr-xr-x root/root                 4 2026-01-01 00:00 squashfs-root/usr/bin/python3.11\n\
            -rw-r--r-- root/root                 4 2026-01-01 00:00 squashfs-root/usr/share/doc/bash\n";
        let files: Vec<_> = text.lines().filter_map(listed).collect();
        assert_eq!(files.len(), 6);
        assert_eq!(named(&files, |file| has_set_id(file.mode)), ["/usr/bin/mount"]);
        assert_eq!(named(&files, |file| writable_for_all(file.mode)), ["/etc/open"]);
        assert_eq!(named(&files, is_interpreter), ["/usr/bin/sh", "/usr/bin/python3.11"]);
    }
}
