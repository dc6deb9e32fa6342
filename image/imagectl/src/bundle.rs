//! `imagectl bundle`: update bundles in RAUC's verity format.
//!
//! A bundle is a squashfs, its dm-verity hash tree, a CMS signature over the manifest, and the length
//! of that signature as eight bytes, highest first. The manifest holds the root hash of the tree, so
//! that signature and tree together prove every byte.

mod manifest;
mod tree;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use manifest::Manifest;
use tree::Tree;

use crate::cli;
use crate::failure::{Failure, Outcome};
use crate::{files, say};

/// Largest signature in bytes (RAUC: 64 KiB).
const SIGNATURE_BYTES_MAX: u64 = 64 * 1024;

/// `imagectl bundle ...`
pub(crate) fn run(command: &cli::Bundle) -> Outcome {
    match command {
        cli::Bundle::Info { file } => {
            let bundle = Bundle::open(file)?;
            print(&bundle.manifest(None)?);
            say::result("signature  NOT checked; imagectl bundle verify --ca ... does");
            Ok(())
        }
        cli::Bundle::Verify { file, ca, machine } => verify(file, ca, machine.as_deref()),
    }
}

fn verify(file: &Path, ca: &Path, machine: Option<&str>) -> Outcome {
    let mut bundle = Bundle::open(file)?;
    files::read(ca, files::TEXT_BYTES_MAX)?;
    let manifest = bundle.manifest(Some(ca))?;
    if let Some(machine) = machine
        && manifest.compatible != format!("vitalgate-{machine}")
    {
        let what = format!("the bundle is for {}, not for vitalgate-{machine}", manifest.compatible);
        return Err(Failure::refused(what, "download the bundle for this machine"));
    }
    bundle.check_content(&manifest)?;
    print(&manifest);
    say::result("signature  OK");
    say::result("content    OK");
    Ok(())
}

fn print(manifest: &Manifest) {
    say::result(format_args!("machine    {}", manifest.compatible));
    say::result(format_args!("version    {}", manifest.version));
    if let Some(build) = &manifest.build {
        say::result(format_args!("build      {build}"));
    }
    for (slot, digest) in &manifest.images {
        say::result(format_args!("image      {slot} sha256 {digest}"));
    }
}

/// A bundle's file.
struct Bundle<'a> {
    path: &'a Path,
    file: File,
    /// Where the signature begins: the end of the content.
    content_bytes: u64,
    signature: Vec<u8>,
}

impl<'a> Bundle<'a> {
    fn open(path: &'a Path) -> Outcome<Self> {
        let unreadable = |error| Failure::unreadable(path, &error);
        let no_bundle =
            |what: &str| Failure::refused(format!("{} is no bundle: {what}", path.display()), "download it again, or name a .raucb file");
        let mut file = File::open(path).map_err(unreadable)?;
        let all = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
        let before_length = all.checked_sub(8).ok_or_else(|| no_bundle("it is too short"))?;
        let mut length = [0; 8];
        file.seek(SeekFrom::Start(before_length)).and_then(|_| file.read_exact(&mut length)).map_err(unreadable)?;
        let length = u64::from_be_bytes(length);
        let content_bytes = before_length.checked_sub(length).filter(|_| (1..=SIGNATURE_BYTES_MAX).contains(&length));
        let content_bytes = content_bytes.ok_or_else(|| no_bundle("it carries no signature"))?;
        let mut signature = Vec::new();
        file.seek(SeekFrom::Start(content_bytes)).map_err(unreadable)?;
        Read::by_ref(&mut file).take(length).read_to_end(&mut signature).map_err(unreadable)?;
        Ok(Self { path, file, content_bytes, signature })
    }

    /// The signed manifest; without an authority it is only read.
    fn manifest(&self, ca: Option<&Path>) -> Outcome<Manifest> {
        let text = self.cms(ca)?;
        Manifest::parse(&text)
            .map_err(|what| Failure::refused(format!("the manifest of {} {what}", self.path.display()), "this is no bundle of Vitalgate"))
    }

    /// What the signature encloses, by the openssl program.
    fn cms(&self, ca: Option<&Path>) -> Outcome<String> {
        let mut command = Command::new("openssl");
        command.args(["cms", "-verify", "-inform", "DER", "-binary", "-purpose", "any"]);
        match ca {
            Some(ca) => command.arg("-no-CApath").arg("-no-CAstore").arg("-CAfile").arg(ca),
            None => command.args(["-noverify", "-nosigs"]),
        };
        let missing = |error: std::io::Error| {
            Failure::machine(format!("the program openssl cannot be used ({error})"), "install openssl, version 3 or later")
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(missing)?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read to the end says why on its own.
            let _ = input.write_all(&self.signature);
        }
        let output = child.wait_with_output().map_err(missing)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let reason =
                said.lines().filter_map(|line| line.rsplit(':').next()).find(|line| !line.trim().is_empty()).unwrap_or("no reason");
            let what = format!("the signature of {} does not hold ({})", self.path.display(), reason.trim());
            return Err(Failure::refused(what, "download the bundle again; check that --ca is the authority for bundles"));
        }
        String::from_utf8(output.stdout).map_err(|_| {
            Failure::refused(format!("{} encloses no manifest", self.path.display()), "only bundles of the verity format are taken")
        })
    }

    /// Every byte of the content and of its tree against the root hash in the manifest.
    fn check_content(&mut self, manifest: &Manifest) -> Outcome {
        let damaged = |what: &str| Failure::refused(format!("{} is damaged: {what}", self.path.display()), "download it again");
        let data_bytes = self.content_bytes.checked_sub(manifest.verity_bytes);
        let data_bytes = data_bytes
            .filter(|bytes| *bytes > 0 && bytes % tree::BLOCK as u64 == 0)
            .ok_or_else(|| damaged("its hash tree has no place"))?;
        self.file.seek(SeekFrom::Start(0)).map_err(|error| Failure::unreadable(self.path, &error))?;
        let content = Read::by_ref(&mut self.file).take(data_bytes);
        let unreadable = |error| Failure::unreadable(self.path, &error);
        let tree = Tree::over(content, data_bytes, &manifest.verity_salt).map_err(unreadable)?;
        if tree.root.0 != manifest.verity_hash {
            return Err(damaged("its content is not what was signed"));
        }
        // The appliance reads the content through the tree in the file, which stands behind it.
        let is_its_own = tree.stored_bytes() == manifest.verity_bytes && tree.is_stored_in(&self.file).map_err(unreadable)?;
        if is_its_own { Ok(()) } else { Err(damaged("its hash tree is not that of its content")) }
    }
}
