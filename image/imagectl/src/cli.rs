//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Verify, flash and provision Vitalgate appliances. Exit codes: 0 done, 1 refused, 2 wrong command line, 3 target refused, 4 file or program missing.
#[derive(Parser)]
#[command(name = "imagectl", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check the files of a release: signature, hashes, machine, version, end of support
    Verify(Verify),
    /// Write an image to a disk or to a file, read it back, print one line of proof
    Flash(Flash),
    /// Make, check and sign site files, and the keys for it
    #[command(subcommand)]
    Provision(Provision),
    /// Make and sign a request for a stick SUPPORT, RESET, REPLAY or CERTIFICATE
    Request(Request),
    /// Look into an update bundle
    #[command(subcommand)]
    Bundle(Bundle),
    /// Check what an appliance wrote back
    #[command(subcommand)]
    Report(Report),
    /// Open what an appliance wrote for support
    #[command(subcommand)]
    Support(Support),
    /// Make block maps and sign releases
    #[command(subcommand)]
    Release(Release),
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The folder of a release, or some of its files
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Public key of the release: a file, or 64 hex digits
    #[arg(long)]
    pub(crate) key: String,
    /// The machine that it must be for, such as amd64
    #[arg(long)]
    pub(crate) machine: Option<String>,
    /// Take a version whose support has ended
    #[arg(long)]
    pub(crate) unsupported: bool,
}

#[derive(Args)]
pub(crate) struct Flash {
    /// The image: .img.zst or .img
    #[arg(required_unless_present = "list")]
    pub(crate) image: Option<PathBuf>,
    /// Where to: a whole disk such as /dev/sdb, or a file
    #[arg(long, alias = "target", required_unless_present = "list")]
    pub(crate) to: Option<PathBuf>,
    /// List the disks that can be written to, and write nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// Size of a new file, such as 2GiB
    #[arg(long)]
    pub(crate) size: Option<String>,
    /// Block map; otherwise the .bmap beside the image
    #[arg(long)]
    pub(crate) bmap: Option<PathBuf>,
    /// Public key of the release: SHA256SUMS.sig beside the image must be its signature
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Serial number or name of the disk, or name of the file, that is erased; without it you are asked
    #[arg(long)]
    pub(crate) erase: Option<String>,
}

/// Which key signs.
#[derive(Args)]
pub(crate) struct Signer {
    /// The private key's file
    #[arg(long, conflicts_with = "sign_with")]
    pub(crate) key: Option<PathBuf>,
    /// A program that signs, for keys in a token: it gets the message on standard input, or as the file {} in its arguments, prints the signature, and cannot ask for a PIN
    #[arg(long, requires = "public")]
    pub(crate) sign_with: Option<String>,
    /// Public key of --sign-with: a file, or 64 hex digits
    #[arg(long, requires = "sign_with")]
    pub(crate) public: Option<String>,
    /// The key's delegation, where it is no root key
    #[arg(long)]
    pub(crate) delegation: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Provision {
    /// Ask for a site and write its file; or take answers from a TOML file
    New(New),
    /// Sign a site file
    Sign(Sign),
    /// Make a key pair: NAME.key and NAME.pub
    Keygen(Keygen),
    /// Give the right to sign on to another key, for a time
    Delegate(Delegate),
    /// Check a site file, and its signature where --root is given
    Check(Check),
}

#[derive(Args)]
pub(crate) struct New {
    /// A site file's text to start from instead of questions
    #[arg(long)]
    pub(crate) from: Option<PathBuf>,
    /// Where to write; signed: site.provision, otherwise site.toml
    #[arg(long, short)]
    pub(crate) output: Option<PathBuf>,
    /// Signs at once where one is given
    #[command(flatten)]
    pub(crate) signer: Signer,
    /// Write an example with every section instead
    #[arg(long, conflicts_with_all = ["from", "key", "sign_with"])]
    pub(crate) template: bool,
}

#[derive(Args)]
pub(crate) struct Sign {
    /// The site file's text
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) signer: Signer,
    /// Where to write
    #[arg(long, short, default_value = "site.provision")]
    pub(crate) output: PathBuf,
}

#[derive(Args)]
pub(crate) struct Keygen {
    /// Path and name without its end
    pub(crate) name: PathBuf,
}

#[derive(Args)]
pub(crate) struct Delegate {
    /// The public key that gets the right: a file, or 64 hex digits
    pub(crate) to: String,
    /// The private root key
    #[arg(long)]
    pub(crate) key: PathBuf,
    /// Who holds the key
    #[arg(long)]
    pub(crate) name: String,
    /// The last day, such as 2026-12-31
    #[arg(long)]
    pub(crate) expires: String,
    /// What it is for
    #[arg(long = "for", value_enum, default_values_t = [Right::Site])]
    pub(crate) rights: Vec<Right>,
    /// Where to write
    #[arg(long, short, default_value = "delegation.txt")]
    pub(crate) output: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Right {
    /// Site files
    Site,
    /// Support, reset, decommission, certificate, replay, discard
    Request,
}

#[derive(Args)]
pub(crate) struct Check {
    /// The site file, signed or not
    pub(crate) file: PathBuf,
    /// Public root key: a file, or 64 hex digits
    #[arg(long)]
    pub(crate) root: Vec<String>,
    /// Serial number of the appliance
    #[arg(long, requires = "root")]
    pub(crate) serial: Option<String>,
    /// The site file that is in service: whether this one may follow it
    #[arg(long)]
    pub(crate) after: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Request {
    /// What is asked for
    #[arg(value_enum)]
    pub(crate) action: RequestAction,
    /// Serial numbers of the appliances
    #[arg(long, required = true)]
    pub(crate) serial: Vec<String>,
    /// The last day, such as 2026-12-31
    #[arg(long)]
    pub(crate) expires: String,
    /// Who asks
    #[arg(long)]
    pub(crate) technician: String,
    /// Why
    #[arg(long)]
    pub(crate) reason: String,
    /// With the action certificate: the certificate that the authority issued, then those that issued it (PEM)
    #[arg(long, required_if_eq("action", "certificate"))]
    pub(crate) certificate: Option<PathBuf>,
    /// The appliance's signed report: the certificate must be for the key that stands in it
    #[arg(long, requires = "certificate")]
    pub(crate) report: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) discard: Discard,
    #[command(flatten)]
    pub(crate) signer: Signer,
    /// Where to write; otherwise the name that the stick wants
    #[arg(long, short)]
    pub(crate) output: Option<PathBuf>,
}

/// Which dead letters are discarded: those that are all that is given.
#[derive(Args)]
pub(crate) struct Discard {
    /// With the action discard: dead letters of this kind, such as Undecodable
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// With the action discard: dead letters of this device
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// With the action discard: dead letters received before this day (UTC) or moment, such as 2026-11-01 or 2026-11-01T10:00:00+01:00
    #[arg(long)]
    pub(crate) before: Option<String>,
    /// With the action discard: all dead letters
    #[arg(long)]
    pub(crate) all: bool,
    /// With the action discard: only say how many they are
    #[arg(long)]
    pub(crate) count: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RequestAction {
    /// A support bundle, on a stick SUPPORT
    Support,
    /// Erase and wait for a new site file, on a stick RESET
    Reset,
    /// Erase for good and certify it, on a stick RESET
    Decommission,
    /// Take a certificate that an authority issued for the appliance's key, on a stick CERTIFICATE
    Certificate,
    /// Send all dead letters again, on a stick REPLAY
    Replay,
    /// Discard the dead letters that --kind, --device and --before name, or --all of them, or --count them; on a stick REPLAY
    Discard,
}

#[derive(Subcommand)]
pub(crate) enum Bundle {
    /// Print what a bundle says of itself, unchecked
    Info {
        /// The bundle (.raucb)
        file: PathBuf,
    },
    /// Check signature and content
    Verify {
        /// The bundle (.raucb)
        file: PathBuf,
        /// Certificate of the authority that signs bundles (PEM)
        #[arg(long)]
        ca: PathBuf,
        /// The machine that it must be for, such as amd64
        #[arg(long)]
        machine: Option<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Report {
    /// Check the signature of a report or certificate and print it
    Verify {
        /// The report
        file: PathBuf,
        /// Fingerprint or public key on the appliance's console; without it you compare it yourself
        #[arg(long)]
        key: Option<String>,
        /// Write the request for the EHR's authority (PKCS #10, PEM) to this file
        #[arg(long)]
        csr: Option<PathBuf>,
        /// Write the certificate that the appliance shows to the EHR (PEM) to this file
        #[arg(long)]
        certificate: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Support {
    /// Decrypt a support bundle
    Decrypt {
        /// The bundle (.age)
        file: PathBuf,
        /// Support's private key (age identity)
        #[arg(long)]
        key: PathBuf,
        /// Where to write
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Make support's key pair: NAME.key and NAME.recipient
    Keygen {
        /// Path and name without its end
        name: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum Release {
    /// Write the block map of a raw image
    Map {
        /// The image (.img)
        image: PathBuf,
        /// Where to write
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Write SHA256SUMS and SHA256SUMS.sig for the files of a folder
    Sign {
        /// The folder
        folder: PathBuf,
        /// The private key of the release
        #[arg(long)]
        key: PathBuf,
        /// The last day of support, such as 2031-12-31
        #[arg(long)]
        support_end: String,
    },
}
