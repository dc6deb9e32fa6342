//! Where a gateway is to be asked is found also in a file that has been spoilt since.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails loudly")]

use std::fs;

use vitalgate_config::{Config, ConfigError, Places, check};

const GATEWAY: &str = "[gateway]\nname = \"g1\"\nstate_dir = \"state\"\n";

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// Promise 5: whoever asks a gateway that runs needs only what says where it is; that counts as in the whole file, whatever is wrong
/// elsewhere and whichever file is away or not for everybody to read.
#[test]
fn what_is_wrong_elsewhere_hides_no_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vitalgate.toml");
    let sections = format!("{GATEWAY}[store]\nkey_credential = \"kek\"\n[console]\nadmin_socket = \"run/admin.sock\"\n");
    let ehr = "[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = \"https://ehr.local/fhir\"\n";
    let sound = check(&format!("{sections}{ehr}"), path.to_str().unwrap()).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    for spoilt in [
        format!("unknown = 1\n{sections}{ehr}"),
        format!("{sections}{ehr}ca_file = \"away.pem\"\nbearer_token_file = \"away\"\n"),
        format!("{sections}[profiles]\ndir = \"away\"\n[log]\nlevel = \"loud\"\n"),
        format!("{sections}[mqtt]\nlisten = \"127.0.0.1:9464\"\n[[device]]\nid = \"m 1\"\n"),
    ] {
        fs::write(&path, &spoilt).unwrap();
        assert!(Config::load(&path).is_err(), "{spoilt}");
        let places = Places::load(&path).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
        assert_eq!((&places.gateway, &places.store, &places.console), (&sound.gateway, &sound.store, &sound.console));
    }
}

/// What they need themselves is judged as ever: a socket or a folder is not guessed.
#[test]
fn what_is_wrong_with_the_places_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vitalgate.toml");
    assert!(lines(&Places::load(&path).unwrap_err()).contains("cannot be read"));
    for (wrong, why) in [
        (String::new(), "there is no section [gateway]"),
        ("[gateway]\nname = \"g1\"\n".to_owned(), "vitalgate.toml:1: [gateway] has no state_dir"),
        (format!("{GATEWAY}folder = 1\n"), "vitalgate.toml:4: unknown key \"folder\""),
        (format!("{GATEWAY}[console]\nadmin_socket = 1\n"), "vitalgate.toml:5: admin_socket in [console] must be text"),
        (format!("{GATEWAY}[[device]\n"), "not valid TOML"),
    ] {
        fs::write(&path, &wrong).unwrap();
        let said = lines(&Places::load(&path).unwrap_err());
        assert!(said.contains(why), "{said}");
    }
}
