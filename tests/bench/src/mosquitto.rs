//! Debian's mosquitto as the one to compare with.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};
use vitalgate_simulator::Transport;
use vitalgate_test_support::{free_port, wait_until};
use vitalgate_trust::{ClientProfile, client_config};

/// A running broker.
pub(crate) struct Mosquitto {
    _child: Child,
    /// Plain port.
    pub(crate) plain_port: u16,
    /// Port with client certificates.
    pub(crate) mtls_port: u16,
    /// How a client connects to it.
    pub(crate) transport: Transport,
}

/// Starts a broker; `persistent` saves on every change, as close to an acknowledged write as it offers.
pub(crate) async fn start(folder: &Path, persistent: bool) -> anyhow::Result<Mosquitto> {
    std::fs::create_dir_all(folder)?;
    certificates(folder).await?;
    let (plain_port, mtls_port) = (free_port()?, free_port()?);
    let at = folder.display();
    let persistence = if persistent {
        format!("persistence true\npersistence_location {at}/\nautosave_on_changes true\nautosave_interval 1\n")
    } else {
        "persistence false\n".to_owned()
    };
    let user = if std::env::var("USER").as_deref() == Ok("root") || is_root() { "user root\n" } else { "" };
    let text = format!(
        "{user}per_listener_settings false\nallow_anonymous true\nmax_inflight_messages 100\nset_tcp_nodelay true\n{persistence}\
         listener {plain_port} 127.0.0.1\n\
         listener {mtls_port} 127.0.0.1\ncafile {at}/ca.pem\ncertfile {at}/server.pem\nkeyfile {at}/server.key\nrequire_certificate true\ntls_version tlsv1.3\n"
    );
    let config = folder.join("mosquitto.conf");
    std::fs::write(&config, text)?;
    let log = std::fs::File::create(folder.join("mosquitto.log"))?;
    let child = Command::new("mosquitto").arg("-c").arg(&config).stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn();
    let child = child.context("mosquitto is not installed; run tools/setup test")?;
    wait_until("mosquitto to listen", Duration::from_secs(10), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", plain_port)).await.ok()?;
        tokio::net::TcpStream::connect(("127.0.0.1", mtls_port)).await.ok()
    })
    .await?;
    let profile = ClientProfile {
        ca_file: Some(folder.join("ca.pem")),
        certificate_file: Some(folder.join("client.pem")),
        key_file: Some(folder.join("client.key")),
    };
    let transport = Transport::Tls { config: Arc::new(client_config(&profile)?), server_name: Arc::from("localhost") };
    Ok(Mosquitto { _child: child, plain_port, mtls_port, transport })
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// The same kind of keys as the gateway's: ECDSA P-256.
async fn certificates(folder: &Path) -> anyhow::Result<()> {
    let extensions = folder.join("extensions.cnf");
    std::fs::write(
        &extensions,
        "basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\nsubjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n",
    )?;
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        folder,
        &format!("req -x509 {new_key} -keyout ca.key -out ca.pem -days 30 -subj /CN=bench-ca -addext keyUsage=critical,keyCertSign"),
    )
    .await?;
    for name in ["server", "client"] {
        openssl(folder, &format!("req {new_key} -keyout {name}.key -out {name}.csr -subj /CN={name}")).await?;
        openssl(
            folder,
            &format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out {name}.pem -extfile extensions.cnf"),
        )
        .await?;
    }
    Ok(())
}

async fn openssl(folder: &Path, arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).stdin(Stdio::null()).output().await;
    let output = output.context("openssl is not installed; run tools/setup test")?;
    if !output.status.success() {
        bail!("openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
