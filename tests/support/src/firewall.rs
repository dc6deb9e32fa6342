//! What nftables has against rules, without touching this machine's.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, bail};

/// Ways to call it, the first that works is taken: rules can be read only by who may change those of its network.
const WAYS: [&[&str]; 4] = [
    &["unshare", "--net", "nft"],
    &["unshare", "--map-root-user", "--net", "nft"],
    &["sudo", "-n", "unshare", "--net", "nft"],
    // Where there is no network of its own to be had; a check changes nothing.
    &["nft"],
];
/// What is tried first: a way that fails with it says nothing of other rules.
const SOUND: &str = "table inet vitalgate_probe {\n}\n";

/// What `nft --check` says of these rules; nothing where they are sound.
///
/// # Errors
/// When no way to call it works on this machine.
pub fn firewall_objections(rules: &str) -> anyhow::Result<String> {
    objections_by(&WAYS, rules)
}

fn objections_by(ways: &[&[&str]], rules: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let (sound, asked) = (folder.path().join("sound.nft"), folder.path().join("asked.nft"));
    std::fs::write(&sound, SOUND)?;
    std::fs::write(&asked, rules)?;
    let mut refusals = Vec::new();
    for way in ways {
        match check(way, &sound) {
            Ok(probe) if probe.status.success() => {
                let output = check(way, &asked)?;
                let objections = String::from_utf8_lossy(&output.stderr).into_owned();
                if !output.status.success() && objections.is_empty() {
                    bail!("nft refuses the rules and says nothing: {}", output.status);
                }
                return Ok(objections);
            }
            Ok(probe) => refusals.push(format!("{}: {}", way.join(" "), String::from_utf8_lossy(&probe.stderr).trim())),
            Err(error) => refusals.push(format!("{error:#}")),
        }
    }
    bail!(
        "nft cannot be asked on this machine: run as root, or with sudo, or let users have networks of their own \
         (Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0). {}",
        refusals.join("; ")
    )
}

fn check(way: &[&str], file: &Path) -> anyhow::Result<Output> {
    let (program, first) = way.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    // Debian keeps nft where the path of a user that is not root does not lead.
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(first).args(["--check", "--file"]).arg(file).env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command.output().with_context(|| format!("{program} cannot be started"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that cannot look at the rules is told what it lacks; the rules are not blamed.
    #[test]
    fn a_machine_without_the_right_to_look_is_named_and_not_the_rules() {
        let refused = objections_by(&[&["false"], &["/nowhere/nft"]], SOUND).unwrap_err().to_string();
        assert!(refused.contains("run as root, or with sudo") && refused.contains("/nowhere/nft"), "{refused}");
    }

    /// Sound rules pass, and others do not.
    #[test]
    fn what_is_wrong_with_rules_is_told() {
        assert_eq!(firewall_objections(SOUND).unwrap(), "");
        assert!(firewall_objections("table inet probe {\n  chain c { policy deny; }\n}\n").unwrap().contains("deny"));
    }
}
