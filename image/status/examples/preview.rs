//! Serves the real page over a stand-in for the appliance, to look at it in a browser:
//! `cargo run -p vitalgate-status --example preview -- 127.0.0.1:8443 service`
//! (or `trouble`, `waiting`, `refused`, `starting`).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for people who work on the page")]
#![allow(missing_docs, unreachable_pub, reason = "shared with the tests")]

use serde_json::json;
use vitalgate_layout::state::Part;
use vitalgate_status::arguments::Arguments;
use vitalgate_status::run;

#[path = "../tests/double/mod.rs"]
mod double;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let scene = arguments.next().unwrap_or_else(|| "service".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let appliance = {
        let _inside = runtime.enter();
        staged(&scene)
    };
    run::run(Arguments::parse(appliance.arguments(&listen).into_iter())?)
}

fn staged(scene: &str) -> double::Appliance {
    let mut appliance = double::Appliance::switched_on();
    let ready = json!({"word": "READY", "since_unix_ms": 0});
    match scene {
        "service" => appliance.goes_into_service(),
        "trouble" => {
            appliance.goes_into_service();
            appliance.daemon_says(double::daemon_in_trouble());
            let facts = json!({
                "running": "slot b (0.2.0)", "slot-a": "0.3.0 not started any more", "slot-b": "0.2.0 good, 3 starts left", "version-floor": "0.1.0",
                "last-rollback": "0.3.0 (slot a): the store did not open within 120 s", "last-rollback-unix-ms": "1795227249000"
            });
            let detail = "0.3.0 was undone: the store did not open within 120 s";
            appliance.say(Part::Slots, &json!({"word": "ROLLED-BACK", "since_unix_ms": 0, "detail": detail, "facts": facts}));
        }
        "waiting" => {
            appliance.say(Part::Data, &ready);
            appliance.say(Part::Provision, &json!({"word": "AWAIT-PROVISION", "since_unix_ms": 0, "facts": {"serial": "VG-2026-00417"}}));
        }
        "refused" => {
            appliance.say(Part::Data, &ready);
            let detail = "the signature does not match: the file was changed after it was signed; correct the text, then sign it again";
            appliance.say(Part::Provision, &json!({"word": "PROVISION-REJECTED", "code": 13, "since_unix_ms": 0, "detail": detail}));
        }
        _ => {}
    }
    appliance
}
