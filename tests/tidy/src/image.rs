//! What the scripts of `image/build` refuse, with programs in place of those that they call.

use std::path::Path;
use std::process::{Command, Output};

use crate::root;
use crate::setup::program;

fn run(script: &str, arguments: &[&Path], programs: &Path, variables: &[(&str, &str)]) -> Output {
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
    let mut command = Command::new(root().join("image/build").join(script));
    command.args(arguments).env("PATH", path).envs(variables.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn archives(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("debs")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What an interrupted download left is not taken along: the image is made of one kernel, the newest.
#[test]
fn a_download_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (programs, packages) = (folder.path().join("bin"), folder.path().join("packages.new"));
    std::fs::create_dir(&programs).unwrap();
    program(&programs, "apt-get", "case \"$*\" in *download*) touch \"linux-image-${KERNEL_NOW}_1_amd64.deb\"; exit \"$ENDS\" ;; esac");
    program(&programs, "apt-cache", "echo \"  Depends: linux-image-$KERNEL_NOW\"");
    program(&programs, "dpkg-deb", "printf 'linux-image\\t1'");
    let download = |kernel, ends| {
        let variables = [("KERNEL_NOW", kernel), ("ENDS", ends), ("MIRROR", "http://mirror.invalid"), ("MACHINE", "amd64")];
        run("packages", &[&packages], &programs, &variables)
    };
    let interrupted = download("6.1.0-1-amd64", "100");
    assert_eq!((interrupted.status.code(), archives(&packages).len()), (Some(100), 1), "{}", said(&interrupted));
    let whole = download("6.1.0-2-amd64", "0");
    assert!(whole.status.success(), "{}", said(&whole));
    assert_eq!(archives(&packages), ["linux-image-6.1.0-2-amd64_1_amd64.deb"]);
}

/// A root is made of one kernel and one version of each package, or of none.
#[test]
fn two_kernels_or_two_versions_are_refused() {
    for (left, names) in [
        ("linux-image-6.1.0-1-amd64_6.1.1_amd64.deb", "2 kernels"),
        ("linux-image-6.1.0-2-amd64_6.1.1_amd64.deb", "several archives of linux-image-6.1.0-2-amd64 in"),
        ("chrony_4.2_amd64.deb", "several archives of chrony in"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("packages");
        std::fs::create_dir_all(packages.join("debs")).unwrap();
        for name in ["linux-image-6.1.0-2-amd64_6.1.2_amd64.deb", "chrony_4.3_amd64.deb", left] {
            std::fs::write(packages.join("debs").join(name), "").unwrap();
        }
        let refused = run("base", &[&folder.path().join("base"), &packages], folder.path(), &[("MACHINE", "amd64")]);
        assert!(!refused.status.success() && said(&refused).contains(names), "{}", said(&refused));
        assert!(said(&refused).contains("REFRESH=1"), "{}", said(&refused));
    }
}

/// A folder whose name a compiler would take apart is named before anything is built.
#[test]
fn a_folder_with_a_blank_is_refused_first() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "cargo", "exit 9");
    let build = |home: &str| {
        run("image", &[], folder.path(), &[("CARGO", "cargo"), ("CARGO_HOME", home), ("OUTPUT", folder.path().to_str().unwrap())])
    };
    let refused = build("/srv/a b/.cargo");
    assert!(refused.status.code() == Some(2) && said(&refused).contains("'/srv/a b/.cargo'"), "{}", said(&refused));
    assert_eq!(build("/srv/a/.cargo").status.code(), Some(9), "any other gets as far as cargo");
}

/// A place of the machine that built the root is found; a path that only goes on like it is none.
#[test]
fn a_place_is_found_where_a_path_begins_with_it() {
    let check = |home: &str, text: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("usr/lib")).unwrap();
        std::fs::write(folder.path().join("usr/lib/libx.so"), text).unwrap();
        run("check", &[folder.path(), Path::new("")], Path::new("/usr/bin"), &[("CARGO_HOME", home)])
    };
    for (home, text) in [
        ("/src", &b"\x7fELF\0\xff\0/src/registry/x.rs\0"[..]),
        ("/src", b"(/src/registry/x.rs"),
        ("/a+b", b"in\n/a+b/registry/x.rs"),
        ("/srv/me/.cargo", b"one.rs/srv/me/.cargo/registry/x.rs"),
    ] {
        let refused = check(home, text);
        assert!(!refused.status.success(), "{home}");
        assert!(said(&refused).contains(&format!("({home};")) && said(&refused).contains("another folder"), "{}", said(&refused));
    }
    for (home, text) in [
        ("/src", &b"\x7fELF\0\xff\0library/core/src/fmt.rs\0"[..]),
        ("/vitalgate", b"\0/vitalgate/image/status/src/run.rs\0/usr/lib/vitalgate/firewall.nft"),
        ("/srv/me/.cargo", b"\0/crates/x.rs"),
    ] {
        let passed = check(home, text);
        assert!(passed.status.success(), "{home}: {}", said(&passed));
    }
}

/// An image without a date is refused before anything is built: it could never be built again.
#[test]
fn an_image_without_a_date_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "git", "echo 'fatal: not a git repository' >&2; exit 128");
    program(folder.path(), "cargo", "echo 'cargo was called' >&2; exit 1");
    let target = folder.path().join("image").display().to_string();
    let refused = run("image", &[], folder.path(), &[("OUTPUT", target.as_str()), ("CARGO", "cargo"), ("SOURCE_DATE_EPOCH", "")]);
    assert!(!refused.status.success() && said(&refused).contains("set SOURCE_DATE_EPOCH"), "{}", said(&refused));
    assert!(!said(&refused).contains("cargo was called"), "{}", said(&refused));
}
