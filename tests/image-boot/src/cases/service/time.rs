//! Time with proof: against a real chrony the clock counts as authenticated, against one with a stranger's
//! certificate it does not, and a server without proof is called what it is.

use std::time::Duration;

use serde_json::Value;

use crate::appliance::{Appliance, Order, practice};
use crate::evidence::Evidence;
use crate::image::{DISK_BYTES, Image};
use crate::machine::{Running, Surroundings};
use crate::nts_server::{Credentials, NtsServer};
use crate::practice::{HOST, SiteOptions};

/// Longest wait until chrony has made up its mind.
const JUDGED_WITHIN: Duration = Duration::from_secs(240);

pub(super) async fn run(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let credentials = Credentials::new().await?;
    let server = NtsServer::start(&credentials, None, &evidence.folder().join("chronyd.log")).await?;
    let practice = practice().await?;
    let site = practice.site_text_with(&SiteOptions { nts: Some((server.port, credentials.authority()?)), ..SiteOptions::default() })?;
    let order = Order { machine: "time-machine", disk_bytes: DISK_BYTES, site, surroundings: Surroundings::default() };
    let mut appliance = Appliance::commission_as(first, &order, practice, evidence).await?;

    let running = appliance.boot(evidence).await?;
    let status = trusted(&appliance, &running, "authenticated").await;
    if let Some(status) = evidence.outcome("a server that proves who it is: the clock is authenticated", status) {
        let clock = clock(&status);
        evidence.check(
            &format!("the page names the proof: {clock}"),
            clock["facts"]["source-1"] == format!("{HOST}: followed, proves who it is (NTS)"),
        );
        evidence.check("and has nothing to say against the time", clock["word"] == "READY" && clock["detail"] == "");
        evidence.keep("page-authenticated.json", serde_json::to_string_pretty(&status)?);
    }
    running.cut().await?;

    let port = server.port;
    drop(server);
    let stranger = Credentials::new().await?;
    let server = NtsServer::start(&stranger, Some(port), &evidence.folder().join("chronyd-stranger.log")).await?;
    let running = appliance.boot(evidence).await?;
    let status = distrusted(&appliance, &running, evidence).await;
    if let Some(status) = evidence.outcome("a server with a stranger's certificate: the clock follows nobody", status) {
        evidence.keep("page-stranger.json", serde_json::to_string_pretty(&status)?);
    }
    running.cut().await?;
    drop((server, appliance));

    let mut plain = Appliance::commissioned(first, "service-machine", evidence).await?;
    let running = plain.boot(evidence).await?;
    let status = trusted(&plain, &running, "synchronised").await;
    if let Some(status) = evidence.outcome("a server without proof: the clock is synchronised, not authenticated", status) {
        let clock = clock(&status);
        let flagged = clock["detail"].as_str().is_some_and(|detail| detail.contains("does not prove who it is"));
        evidence.check(
            &format!("the page says that there is no proof: {clock}"),
            flagged && clock["facts"]["source-1"] == format!("{HOST}: followed, without proof"),
        );
        evidence.keep("page-synchronised.json", serde_json::to_string_pretty(&status)?);
    }
    running.cut().await
}

/// The page when it says this of the clock.
async fn trusted(appliance: &Appliance, running: &Running, word: &str) -> anyhow::Result<Value> {
    appliance.status_within(running, word, JUDGED_WITHIN, |status| status["network"]["time_trust"] == word).await
}

/// The stranger has been asked and nothing came of it: the page's clock stays by itself, however long chrony tries.
async fn distrusted(appliance: &Appliance, running: &Running, evidence: &Evidence) -> anyhow::Result<Value> {
    /// Longer than chrony took to follow the server that it believed.
    const LOOK_FOR: Duration = Duration::from_secs(90);
    let wrong = |status: &Value| matches!(status["network"]["time_trust"].as_str(), Some("authenticated" | "synchronised"));
    let free =
        appliance.status_within(running, "a clock by itself", JUDGED_WITHIN, |status| status["network"]["time_trust"] == "free").await?;
    let followed = appliance.status_within(running, "the stranger is followed", LOOK_FOR, wrong).await;
    evidence.say(&format!("the clock: {}", clock(&free)));
    let log = std::fs::read_to_string(evidence.folder().join("chronyd-stranger.log"))?;
    evidence.say(&format!("the stranger's log: {log:?}"));
    match followed {
        Ok(status) => anyhow::bail!("the stranger is followed: {}", clock(&status)),
        Err(_) => Ok(free),
    }
}

fn clock(status: &Value) -> Value {
    status["parts"]["clock"]["said"].clone()
}
