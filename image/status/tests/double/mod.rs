//! A stand-in for the appliance around the page: state files in a folder, and a daemon that answers
//! what it was told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use vitalgate_layout::state::Part;

/// The stand-in.
pub struct Appliance {
    folder: TempDir,
    status: Arc<Mutex<Value>>,
    /// Bound and not listening: the port is ours, and refuses.
    reserved: Option<TcpSocket>,
    _daemon: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl Appliance {
    /// An appliance whose parts have not spoken; the daemon's port is reserved, and silent.
    pub fn switched_on() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["state", "certificate", "own", "net"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let release = "NAME=Vitalgate\nVERSION_ID=0.2.0\nIMAGE_VERSION=0.2.0\nBUILD_ID=2026-11-20.4\nSUPPORT_END=2031-12-31\n";
        std::fs::write(folder.path().join("os-release"), release).unwrap();
        std::fs::write(folder.path().join("boot.env"), "VITALGATE_SLOT=b\nVITALGATE_ROOT_HASH=00\n").unwrap();
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = reserved.local_addr().unwrap();
        Self { folder, status: Arc::new(Mutex::new(Value::Null)), reserved: Some(reserved), _daemon: None, address }
    }

    /// A path below its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments of the page that shows it.
    pub fn arguments(&self, listen: &str) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let pairs = [
            ("--listen", listen.to_owned()),
            ("--daemon", self.address.to_string()),
            ("--state-folder", path("state")),
            ("--state-file", path("own/status.json")),
            ("--certificate-folder", path("certificate")),
            ("--os-release", path("os-release")),
            ("--boot-env", path("boot.env")),
            ("--leds", path("leds")),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// The page asks here instead of the stand-in's daemon.
    #[allow(dead_code, reason = "the preview has no use for it")]
    pub fn ask_instead(&mut self, address: SocketAddr) {
        self.address = address;
    }

    /// A part says something.
    pub fn say(&self, part: Part, state: &Value) {
        self.put(part, state.to_string().as_bytes());
    }

    /// A part's file holds these bytes.
    pub fn put(&self, part: Part, bytes: &[u8]) {
        let folder = self.path("state");
        std::fs::write(folder.join("new"), bytes).unwrap();
        std::fs::rename(folder.join("new"), Path::new(&folder).join(part.file_name())).unwrap();
    }

    /// The daemon starts to answer, or answers something else.
    pub fn daemon_says(&mut self, status: Value) {
        *self.status.lock().unwrap() = status;
        if let Some(reserved) = self.reserved.take() {
            let answer = Arc::clone(&self.status);
            let router = Router::new().route("/status", get(move || async move { Json(answer.lock().unwrap().clone()) }));
            let listener = reserved.listen(64).unwrap();
            self._daemon = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
        }
    }

    /// Everything is as it should be on an appliance in service.
    pub fn goes_into_service(&mut self) {
        let now_ms = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        let since = now_ms - 190_000_000;
        let said = |facts: Value| json!({"word": "READY", "since_unix_ms": since, "facts": facts});
        self.say(Part::Data, &said(json!({"sealed": "yes"})));
        self.say(
            Part::Provision,
            &said(json!({
                "site": "Praxis am Markt", "gateway": "practice-01", "serial": "VG-2026-00417", "technician": "T. Berger",
                "accepted": "2026-11-19 09:12 UTC", "signed_by": "root key 681a-d2a1-d5a9-5b29", "report_key": "5d0e-77c2-91ab-40f3"
            })),
        );
        let checks = json!({"verity": "ok", "secure_boot": "ok", "tpm": "ok", "disk": "ok", "clock": "ok", "interfaces": "ok"});
        self.say(Part::SelfTest, &said(checks));
        self.say(
            Part::Clock,
            &said(json!({
                "trust": "authenticated", "source-1": "time.example.org: followed, proves who it is (NTS)"
            })),
        );
        self.say(Part::Slots, &said(json!({
            "running": "slot b (0.2.0)", "slot-a": "0.1.0 good, 3 starts left", "slot-b": "0.2.0 good, 3 starts left", "version-floor": "0.1.0"
        })));
        self.say(Part::Update, &said(json!({})));
        self.daemon_says(daemon_in_service());
    }
}

/// What a daemon in service answers.
pub fn daemon_in_service() -> Value {
    let device = |id: &str, profile: &str, driver: &str, age: Value, state: &str| json!({"id": id, "profile": profile, "driver": driver, "connected": (driver == "mqtt").then_some(true), "last_reading_age_s": age, "state": state});
    json!({
        "version": "0.2.0", "gateway": "practice-01", "uptime_s": 190_000,
        "health": {"ready": true, "state": "READY", "problems": []}, "clock_trust": "Authenticated", "warnings": [],
        "store": {
            "committed": 1_284_551, "keyed_applied": 1_284_551, "keyed_checkpointed": 1_284_402, "keyed_state": "running",
            "free_bytes": 41_231_686_041_u64, "floor_bytes": 268_435_456, "journal_bytes": 90_177_536, "days_left": 212.4,
            "damage": [], "dead_letters": 0
        },
        "devices": [
            device("monitor-01", "vitals-json", "mqtt", json!(2), "seen"),
            device("monitor-02", "vitals-json", "mqtt", json!(4), "seen"),
            device("bedside-modbus-1", "vitals-modbus", "modbus", json!(1), "ok"),
            device("scale-reception", "vitals-json", "mqtt", json!(512), "seen")
        ],
        "destinations": [
            {"id": "ehr", "queued": 3, "oldest_age_s": 1, "last_acknowledgement_age_s": 2, "alarm": null},
            {"id": "cloud", "queued": 41, "oldest_age_s": 6, "last_acknowledgement_age_s": 5, "alarm": null}
        ]
    })
}

/// The same with a ward's troubles: a destination is away, a device is gone, an update was undone.
pub fn daemon_in_trouble() -> Value {
    let mut status = daemon_in_service();
    status["health"] = json!({"ready": true, "state": "OFFLINE-BUFFERING", "problems": ["ehr: no connection: the server's certificate has expired; renew it there"]});
    status["devices"][1]["last_reading_age_s"] = json!(4_210);
    status["destinations"][0] = json!({
        "id": "ehr", "queued": 18_244, "oldest_age_s": 7_410, "last_acknowledgement_age_s": 7_402,
        "alarm": "no connection: the server's certificate has expired; renew it there"
    });
    status["store"]["days_left"] = json!(5.2);
    status["store"]["dead_letters"] = json!(2);
    status["warnings"] = json!(["[mqtt] plain_listen: devices on 127.0.0.1:1883 are not encrypted"]);
    status
}
