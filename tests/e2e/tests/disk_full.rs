//! Promise 1 on a full disk: below the floor nothing is acknowledged, nothing acknowledged is lost, and with room it goes on
//! by itself. On a small file system of its own, which needs root to be mounted.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use vitalgate_e2e::{Ward, WardOptions};
use vitalgate_test_support::{SmallDisk, wait_until};

/// Size of the file system.
const IMAGE_BYTES: u64 = 192 * MIB;
/// Below this much free space nothing is acknowledged. A segment of the journal has 16 MiB.
const FLOOR_MIB: u64 = 32;
/// What the filler leaves below the floor.
const SHORT_OF_FLOOR: u64 = 4 * MIB;
const MIB: u64 = 1024 * 1024;
const DEVICES: usize = 4;
/// How often the disk is filled until it stays full.
const FILLINGS_MAX: u32 = 10;
/// How often is looked how much is free meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_secs(60);

/// The small file system with what fills it.
struct Filled(SmallDisk);

impl Filled {
    fn mounted() -> Option<Self> {
        SmallDisk::mounted(IMAGE_BYTES).unwrap().map(Self)
    }

    fn path(&self) -> PathBuf {
        self.0.path()
    }

    fn free(&self) -> u64 {
        self.0.free().unwrap()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes room until less than the floor is left.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        let block = vec![0x5A; usize::try_from(MIB).unwrap()];
        while self.free() > FLOOR_MIB * MIB - SHORT_OF_FLOOR {
            file.write_all(&block).unwrap();
            // Delayed allocation takes no room until it is written out.
            file.sync_data().unwrap();
        }
    }

    /// Takes all room there is, again and again freed bytes included.
    fn fill_to_the_last_byte(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for block in [usize::try_from(MIB).unwrap(), 4096] {
            let block = vec![0x5A; block];
            let refused = loop {
                if let Err(refused) = file.write_all(&block).and_then(|()| file.sync_data()) {
                    break refused;
                }
            };
            assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

async fn ward_on(folder: &Path) -> Ward {
    let options = WardOptions {
        mqtt_devices: DEVICES,
        state_dir: Some(folder.join("state")),
        more: vec![("store".to_owned(), format!("free_space_floor_mib = {FLOOR_MIB}"))],
        ..WardOptions::default()
    };
    Ward::start(options).await.unwrap()
}

async fn wait_state(ward: &Ward, wanted: &str) {
    wait_until(&format!("the state {wanted}"), DEADLINE, async || {
        let status = ward.gateway.status().await.ok()?;
        (status["health"]["state"] == wanted).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
}

/// How often devices were sent away because nothing can be stored.
async fn sent_away(ward: &Ward) -> u64 {
    let metrics = ward.gateway.metrics().await.unwrap_or_default();
    let line = metrics.lines().find_map(|line| line.strip_prefix("vitalgate_mqtt_refused_total{reason=\"storage_full\"} "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

async fn wait_sent_away(ward: &Ward, at_least: u64) {
    wait_until("devices that are sent away", DEADLINE, async || (sent_away(ward).await >= at_least).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
}

/// Every device tries, is sent away and tries again, and not one reading is acknowledged for as long as the disk stays full. The
/// gateway gives back what was delivered and shrinks its buffer; where that makes room it goes on, and the disk is filled once more.
async fn nothing_is_acknowledged(ward: &mut Ward, disk: &Filled) {
    for _ in 0..FILLINGS_MAX {
        disk.fill();
        wait_state(ward, "STORE-FULL").await;
        // Once a device was sent away, everything that it was told before has reached it before it came again.
        let round = u64::try_from(DEVICES).unwrap();
        let begun = sent_away(ward).await;
        wait_sent_away(ward, begun + round).await;
        let (acknowledged, committed) = (ward.note_acknowledgements(), committed(ward).await);
        let highest_free = highest_free_while(disk, wait_sent_away(ward, begun + 2 * round)).await;
        let (acknowledged_since, committed_since) = (ward.note_acknowledgements(), self::committed(ward).await);
        let metrics = ward.gateway.metrics().await.unwrap();
        if highest_free.max(disk.free()) >= FLOOR_MIB * MIB {
            continue;
        }
        assert_eq!(acknowledged_since, acknowledged, "something was acknowledged below the floor");
        assert_eq!(committed_since, committed, "something was committed below the floor");
        assert!(metrics.contains("vitalgate_below_floor 1"), "{metrics}");
        return;
    }
    panic!("the disk did not stay full: {} bytes are free", disk.free());
}

/// The most that was free meanwhile.
async fn highest_free_while(disk: &Filled, waiting: impl Future<Output = ()>) -> u64 {
    let mut waiting = pin!(waiting);
    let (mut look, mut highest) = (tokio::time::interval(LOOK_EVERY), disk.free());
    loop {
        tokio::select! {
            () = &mut waiting => return highest,
            _ = look.tick() => highest = highest.max(disk.free()),
        }
    }
}

async fn committed(ward: &Ward) -> u64 {
    ward.gateway.status().await.unwrap()["store"]["committed"].as_u64().unwrap()
}

/// With the EHR there: what was acknowledged is still delivered while the disk is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_acknowledgements_but_not_delivery_and_goes_on_with_room() {
    let Some(disk) = Filled::mounted() else { return };
    let mut ward = ward_on(&disk.path()).await;
    ward.wait_acknowledged(100, DEADLINE).await.unwrap();
    nothing_is_acknowledged(&mut ward, &disk).await;
    wait_until("the delivery of what was acknowledged", DEADLINE, async || (ward.ehr.missing_of(&ward.oracle) == 0).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    disk.make_room();
    ward.wait_acknowledged(100, DEADLINE).await.unwrap();
    wait_state(&ward, "READY").await;
    ward.finish_devices(DEADLINE).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
}

/// Without the EHR, and with a kill -9 on the full disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_an_absent_ehr_and_a_kill_together_lose_nothing() {
    let Some(disk) = Filled::mounted() else { return };
    let mut ward = ward_on(&disk.path()).await;
    ward.wait_acknowledged(100, DEADLINE).await.unwrap();
    ward.ehr.down().await;
    ward.wait_acknowledged(100, DEADLINE).await.unwrap();
    nothing_is_acknowledged(&mut ward, &disk).await;
    ward.gateway.kill9().await.unwrap();
    ward.gateway.restart().await.unwrap();
    nothing_is_acknowledged(&mut ward, &disk).await;
    disk.make_room();
    ward.wait_acknowledged(100, DEADLINE).await.unwrap();
    ward.ehr.up().await.unwrap();
    ward.finish_devices(DEADLINE).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
    wait_state(&ward, "READY").await;
}

/// Starts the gateway again whenever it ended, as a service manager does, until the condition holds. It may end when there is
/// not a byte left: it holds everything on disk and begins from there.
async fn supervised(ward: &mut Ward, what: &str, mut condition: impl AsyncFnMut(&mut Ward) -> bool) {
    let holding = wait_until(what, DEADLINE, async || {
        if ward.gateway.ended().unwrap().is_some() {
            let _ends_again = ward.gateway.restart().await;
        }
        condition(ward).await.then_some(())
    });
    holding.await.unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
}

/// Another program that takes the very last byte: nothing acknowledged is lost, and the gateway goes on by itself, or by its
/// service manager, when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_filled_to_the_last_byte_loses_nothing() {
    let Some(disk) = Filled::mounted() else { return };
    let mut ward = ward_on(&disk.path()).await;
    ward.wait_acknowledged(100, DEADLINE).await.unwrap();
    ward.ehr.down().await;
    ward.wait_acknowledged(300, DEADLINE).await.unwrap();
    let noticed = wait_until("the full disk to be noticed", DEADLINE, async || {
        // What the gateway gives back meanwhile is taken as well.
        disk.fill_to_the_last_byte();
        if let Some(ended) = ward.gateway.ended().unwrap() {
            return Some(format!("ended: {ended}"));
        }
        let status = ward.gateway.status().await.ok()?;
        (status["health"]["state"] == "STORE-FULL").then(|| status["health"].to_string())
    });
    let noticed = noticed.await.unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    println!("noticed: {noticed}");
    // Whether it holds out or ends: it meets the full disk once more from the start.
    let _ended_already = ward.gateway.kill9().await;
    disk.fill_to_the_last_byte();
    let started = ward.gateway.restart().await;
    println!("started on a disk without a free byte: {started:#?}");
    match started {
        Ok(()) => wait_state(&ward, "STORE-FULL").await,
        Err(refused) => assert!(refused.to_string().contains("the gateway ended"), "{refused:#}"),
    }
    ward.ehr.up().await.unwrap();
    disk.make_room();
    let before = ward.note_acknowledgements();
    supervised(&mut ward, "new acknowledgements", async |ward| ward.note_acknowledgements() > before + 100).await;
    supervised(&mut ward, "the state READY", async |ward| {
        ward.gateway.status().await.is_ok_and(|status| status["health"]["state"] == "READY" || status["health"]["state"] == "DEGRADED")
    })
    .await;
    wait_until("the buffer to go on", DEADLINE, async || {
        let status = ward.gateway.status().await.ok()?;
        (status["store"]["keyed_state"] == "running").then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    let store = disk.path().join("state").join("store");
    assert!(store.join("sled").is_dir(), "the buffer lies elsewhere");
    let quarantined = std::fs::read_dir(store.join("quarantine")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(quarantined.collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new(), "a full disk is not damage");
    assert!(!store.join("sled.damaged").exists(), "a full disk is not damage");
    ward.finish_devices(DEADLINE).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
}
