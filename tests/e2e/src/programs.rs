//! Programs that others wrote: MQTT clients, Modbus tools and servers, a FHIR server.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use vitalgate_test_support::ehr::{Sighting, sightings_in};
use vitalgate_test_support::http::ask;
use vitalgate_test_support::{free_port, wait_until};

/// Longest run of a client.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(90);
/// Longest wait for a server to listen: Python on a busy machine.
const LISTEN_DEADLINE: Duration = Duration::from_secs(90);
/// Resources asked for on one page of a search.
const PAGE: usize = 500;
/// Most pages of one search.
const PAGES_MAX: usize = 100;

/// What a program left behind.
#[derive(Debug)]
pub struct Ended {
    /// Whether it ended well.
    pub success: bool,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A script or a requirements file of `tests/python`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    root().join("tests/python").join(name)
}

async fn environment(kind: &str) -> anyhow::Result<()> {
    let made = Command::new(root().join("tools/setup")).arg(kind).status().await.context("tools/setup cannot be started")?;
    ensure!(made.success(), "tools/setup {kind} failed: it needs PyPI once");
    Ok(())
}

/// A Python with the packages of `tests/python/devices.txt`: the one that `VITALGATE_TEST_PYTHON` names, or
/// the one that `tools/setup devices` makes.
///
/// # Errors
/// When it cannot be made.
pub async fn python() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("VITALGATE_TEST_PYTHON") {
        return Ok(named.into());
    }
    environment("devices").await?;
    Ok(root().join("target/venv/bin/python"))
}

/// Runs a program to its end with `input` on its standard input.
///
/// # Errors
/// When it cannot be started or does not end in time.
pub async fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A], input: &str) -> anyhow::Result<Ended> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{name} does not start; install what the tests need: tools/setup test"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let feeding = async {
        // A program that was refused does not read on.
        let _closed = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let ending = async { tokio::join!(feeding, child.wait_with_output()).1 };
    let output = tokio::time::timeout(PROGRAM_DEADLINE, ending).await.with_context(|| format!("{name} did not end"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { success: output.status.success(), output: text(&output.stdout), errors: text(&output.stderr) })
}

/// What mbpoll reads from a server on loopback: unsigned registers, in order. `table` is its option `-t`.
///
/// # Errors
/// When it cannot be started or reads nothing.
pub async fn mbpoll(address: SocketAddr, unit: u8, table: &str, first: u16, count: u16) -> anyhow::Result<Vec<u16>> {
    let port = address.port();
    let arguments = format!("-m tcp -a {unit} -0 -r {first} -c {count} -t {table} -1 -p {port} 127.0.0.1");
    let ended = run("mbpoll", &arguments.split(' ').collect::<Vec<_>>(), "").await?;
    ensure!(ended.success, "mbpoll: {} {}", ended.output, ended.errors);
    let number = |line: &str| line.strip_prefix('[')?.split_once("]:")?.1.split_whitespace().next()?.parse::<u16>().ok();
    Ok(ended.output.lines().filter_map(number).collect())
}

/// A Modbus server made of pymodbus, see `tests/python/pymodbus_server.py`.
pub struct Pymodbus {
    process: Child,
    address: SocketAddr,
}

impl Pymodbus {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn start() -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        Ok(Self { process: serve_registers(address).await?, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("pymodbus could not be killed")
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = serve_registers(self.address).await?;
        Ok(())
    }
}

async fn serve_registers(address: SocketAddr) -> anyhow::Result<Child> {
    let mut command = Command::new(python().await?);
    command.arg(script("pymodbus_server.py")).arg(address.port().to_string());
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
    let line = tokio::time::timeout(LISTEN_DEADLINE, lines.next_line()).await.context("pymodbus does not listen")??;
    ensure!(line.as_deref() == Some(address.port().to_string().as_str()), "pymodbus listens elsewhere: {line:?}");
    Ok(process)
}

/// The FHIR server `sekmet-fhir` with its own database, over plain HTTP on loopback.
pub struct Sekmet {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Sekmet {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn start() -> anyhow::Result<Self> {
        environment("sekmet").await?;
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let sekmet = Self { process: serve_fhir(address, folder.path())?, address, folder };
        sekmet.wait_listening().await?;
        Ok(sekmet)
    }

    async fn wait_listening(&self) -> anyhow::Result<()> {
        wait_until("sekmet to listen", LISTEN_DEADLINE, async || self.get("/fhir/metadata").await.ok().map(drop)).await
    }

    /// The FHIR base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/fhir", self.address)
    }

    /// Kills it with SIGKILL, in the middle of whatever it does.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("sekmet could not be killed")
    }

    /// Starts it again with its database.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = serve_fhir(self.address, self.folder.path())?;
        self.wait_listening().await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, text) = ask(self.address, Method::GET, path, None, &[]).await?;
        ensure!(status == 200, "{path}: {status} {text}");
        serde_json::from_str(&text).context("no JSON")
    }

    /// Makes a patient known.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn put_patient(&self, id: &str) -> anyhow::Result<()> {
        let patient = json!({"resourceType": "Patient", "id": id});
        let (status, text) = ask(self.address, Method::PUT, &format!("/fhir/Patient/{id}"), Some(&patient), &[]).await?;
        ensure!((200..300).contains(&status), "{status} {text}");
        Ok(())
    }

    /// How many Observations a search counts.
    ///
    /// # Errors
    /// When the search fails.
    pub async fn count(&self) -> anyhow::Result<u64> {
        self.get("/fhir/Observation?_summary=count").await?["total"].as_u64().context("no total")
    }

    /// Every Observation that a search finds, page by page.
    ///
    /// # Errors
    /// When the search fails.
    pub async fn observations(&self) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut path = format!("/fhir/Observation?_count={PAGE}&_sort=_id");
        for _page in 0..PAGES_MAX {
            let page = self.get(&path).await?;
            for entry in page["entry"].as_array().map(Vec::as_slice).unwrap_or_default() {
                found.push(entry["resource"].clone());
            }
            let links = page["link"].as_array().cloned().unwrap_or_default();
            let next = links.iter().find(|link| link["relation"] == "next").and_then(|link| link["url"].as_str());
            let Some(next) = next else { return Ok(found) };
            let at = next.find("/fhir").context("a link to somewhere else")?;
            next.get(at..).context("no path")?.clone_into(&mut path);
        }
        bail!("the search has no end")
    }

    /// Every reading that the Observations state.
    ///
    /// # Errors
    /// When the search fails.
    pub async fn sightings(&self) -> anyhow::Result<Vec<Sighting>> {
        let observations = self.observations().await?;
        let sightings = observations.iter().flat_map(|one| sightings_in(one, &one["id"].as_str().unwrap_or_default().into()));
        Ok(sightings.collect())
    }
}

fn serve_fhir(address: SocketAddr, folder: &Path) -> anyhow::Result<Child> {
    let program = root().canonicalize()?.join("target/venv-sekmet/bin/sekmet");
    Command::new(program)
        .args(["serve", "--host", "127.0.0.1", "--port", &address.port().to_string()])
        .current_dir(folder)
        .env("SEKMET_BASE_URL", format!("http://{address}/fhir"))
        .env("SEKMET_DB", folder.join("sekmet.db"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("sekmet cannot be started")
}
