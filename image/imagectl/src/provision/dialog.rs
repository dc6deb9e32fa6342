//! Questions and answers that become a site file.

use std::path::Path;

use vitalgate_site::SiteFile;

use crate::failure::{Failure, Outcome};
use crate::{files, say};

/// Most devices that are asked for one by one; more are written into the file by hand.
const DEVICES_ASKED_MAX: usize = 100;

/// Whoever answers.
pub(crate) type Answers<'a> = &'a mut dyn FnMut(&str) -> Outcome<String>;
/// The questions of one section, whose answers go to the end of a text.
type Questions<'a> = &'a dyn Fn(&mut String, Answers<'_>) -> Outcome;

/// Asks for a site, section by section, and hands on each section when it was answered; the text still has to pass the
/// check.
pub(crate) fn ask(answers: Answers<'_>, keep: &mut dyn FnMut(&str) -> Outcome) -> Outcome<String> {
    let mut text = String::new();
    let mut section = |questions: Questions<'_>| {
        let more = section(&text, answers, questions)?;
        keep(&more)?;
        text.push_str(&more);
        Ok(!more.is_empty())
    };
    let before_devices: [Questions<'_>; 5] = [&site, &network, &time, &ehr, &mqtt];
    for questions in before_devices {
        section(questions)?;
    }
    for number in 1..=DEVICES_ASKED_MAX {
        if !section(&|text, answers| device(text, answers, number))? {
            break;
        }
    }
    section(&maintenance)?;
    Ok(text)
}

/// Asks for one section, and again where its answers do not pass, until they do or whoever answers leaves it at that.
fn section(text: &str, answers: Answers<'_>, questions: Questions<'_>) -> Outcome<String> {
    let errors_of = |text: &str| SiteFile::check(text, "").err().unwrap_or_default();
    let before = errors_of(text);
    loop {
        let mut more = String::new();
        questions(&mut more, answers)?;
        let errors = errors_of(&format!("{text}{more}"));
        // Those that this part brings, wherever they stand: one that was left to be corrected in the file is not said again.
        let mut wrong = errors.iter().filter(|error| !before.contains(error)).peekable();
        if wrong.peek().is_none() {
            return Ok(more);
        }
        wrong.for_each(|error| say::note(format_args!("{}; {}", error.message, error.remedy)));
        let again = answers("Answer this part again? (empty: yes; no: correct it in the file afterwards):")?;
        if ["n", "no"].contains(&again.to_ascii_lowercase().as_str()) {
            return Ok(more);
        }
    }
}

/// Asks until the answer can be read.
fn until<T>(answers: Answers<'_>, question: &str, read: impl Fn(&str) -> Outcome<T>) -> Outcome<T> {
    loop {
        match read(&answers(question)?) {
            Ok(value) => return Ok(value),
            Err(failure) => say::note(failure),
        }
    }
}

fn site(text: &mut String, answers: Answers<'_>) -> Outcome {
    text.push_str("# Made by imagectl provision new.\n[site]\n");
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key} = {}\n", quoted(value)));
    line("name", &answers("Name of the site:")?);
    line("gateway", &answers("Name of the gateway (such as practice-01; never changed later):")?);
    let serials = answers("Serial number on the label (several with blanks; empty: any):")?;
    text.push_str(&format!("serial = {}\n", if serials.is_empty() { quoted("any") } else { list(&serials) }));
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key} = {}\n", quoted(value)));
    line("expires", &answers("Valid until (such as 2026-12-31):")?);
    line("technician", &answers("Your name:")?);
    Ok(())
}

fn network(text: &mut String, answers: Answers<'_>) -> Outcome {
    let address = answers("Address with prefix length, such as 192.0.2.10/24 (empty: DHCP):")?;
    if address.is_empty() {
        text.push_str("\n[[network]]\nmatch = \"en*\"\ndhcp = true\n");
        return Ok(());
    }
    text.push_str(&format!("\n[[network]]\nmatch = \"en*\"\naddress = {}\n", list(&address)));
    let gateway = answers("Router (empty: none):")?;
    if !gateway.is_empty() {
        text.push_str(&format!("gateway = {}\n", quoted(&gateway)));
    }
    let dns = answers("Name servers (blanks between; empty: none):")?;
    if !dns.is_empty() {
        text.push_str(&format!("dns = {}\n", list(&dns)));
    }
    Ok(())
}

fn time(text: &mut String, answers: Answers<'_>) -> Outcome {
    let nts = answers("Time servers with NTS (blanks between; empty: none):")?;
    let ntp = answers("Time servers without NTS (blanks between; empty: none):")?;
    if nts.is_empty() && ntp.is_empty() {
        return Ok(());
    }
    text.push_str("\n[time]\n");
    for (key, servers) in [("nts", nts), ("ntp", ntp)] {
        if !servers.is_empty() {
            text.push_str(&format!("{key} = {}\n", list(&servers)));
        }
    }
    Ok(())
}

fn ehr(text: &mut String, answers: Answers<'_>) -> Outcome {
    let url = answers("FHIR base URL of the EHR, such as https://ehr.example/fhir (empty: none yet):")?;
    if url.is_empty() {
        return Ok(());
    }
    text.push_str(&format!("\n[ehr]\nurl = {}\n", quoted(&url)));
    if let Some(pem) = until(answers, "File with the certificate of its authority, PEM (empty: a public one):", authority)? {
        text.push_str(&format!("ca_pem = '''\n{pem}\n'''\n"));
    }
    let demanded = answers("Does it demand a client certificate of the appliance? (yes; empty: no):")?;
    if !["", "n", "no"].contains(&demanded.to_ascii_lowercase().as_str()) {
        text.push_str("client_certificate = \"own\"\n");
    }
    Ok(())
}

fn authority(file: &str) -> Outcome<Option<String>> {
    if file.is_empty() {
        return Ok(None);
    }
    let pem = files::read_text(Path::new(file))?;
    if pem.contains("'''") {
        return Err(Failure::refused(format!("{file} is no PEM"), "name the file of the authority's certificate"));
    }
    Ok(Some(pem.replace('\r', "").trim().to_owned()))
}

fn mqtt(text: &mut String, answers: Answers<'_>) -> Outcome {
    let names = answers("Names or addresses that devices reach the gateway by (blanks between; empty: no device publishes):")?;
    if !names.is_empty() {
        text.push_str(&format!("\n[mqtt]\nserver_names = {}\n", list(&names)));
    }
    Ok(())
}

/// One device; nothing when there are no more.
fn device(text: &mut String, answers: Answers<'_>, number: usize) -> Outcome {
    let id = answers(&format!("Device {number}, id such as monitor-01 (empty: no more):"))?;
    if id.is_empty() {
        return Ok(());
    }
    text.push_str(&format!("\n[[device]]\nid = {}\n", quoted(&id)));
    let address = answers("  Polled by Modbus? Address such as 192.0.2.9:502 (empty: it publishes by MQTT):")?;
    let default = if address.is_empty() { "vitals-json" } else { "vitals-modbus" };
    let profile = answers(&format!("  Profile (empty: {default}):"))?;
    text.push_str(&format!("profile = {}\n", quoted(if profile.is_empty() { default } else { &profile })));
    if !address.is_empty() {
        let unit = until(answers, "  Unit (empty: 1):", unit)?;
        text.push_str(&format!("modbus = {{ address = {}, unit = {unit} }}\n", quoted(&address)));
    }
    let patient = answers("  Patient, such as Patient/4711 (empty: readings are kept, not sent, until another site file names one):")?;
    if !patient.is_empty() {
        text.push_str(&format!("patient = {}\n", quoted(&patient)));
    }
    Ok(())
}

fn unit(text: &str) -> Outcome<u8> {
    if text.is_empty() {
        return Ok(1);
    }
    text.parse().map_err(|_| Failure::refused(format!("\"{text}\" is no unit"), "write a number from 0 to 255"))
}

fn maintenance(text: &mut String, answers: Answers<'_>) -> Outcome {
    let window = answers("When may it restart for an update (UTC, such as 02:00-04:00; empty: at any time):")?;
    if !window.is_empty() {
        text.push_str(&format!("\n[maintenance]\nwindow = {}\n", quoted(&window)));
    }
    Ok(())
}

fn list(words: &str) -> String {
    let words: Vec<_> = words.split([' ', ',']).filter(|word| !word.is_empty()).map(quoted).collect();
    format!("[{}]", words.join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(answers: &[&str]) -> String {
        let mut answers = answers.iter();
        let mut kept = String::new();
        let keep = &mut |more: &str| {
            kept.push_str(more);
            Ok(())
        };
        let text = ask(&mut |_| Ok((*answers.next().unwrap_or(&"")).to_owned()), keep).unwrap();
        assert_eq!(kept, text, "what is kept on the way is the text");
        text
    }

    /// What was answered passes the check of the appliance.
    #[test]
    fn answers_become_a_site_file() {
        let text = made(&[
            "Practice \"north\"",
            "practice-01",
            "VG-0001 VG-0002",
            "2026-12-31",
            "A. Example",
            "192.0.2.10/24",
            "192.0.2.1",
            "192.0.2.53",
            "time.example",
            "",
            "https://ehr.example/fhir",
            "",
            "yes",
            "gateway.example",
            "monitor-01",
            "",
            "",
            "Patient/4711",
            "bedside-1",
            "192.0.2.9:502",
            "",
            "",
            "",
            "",
            "02:00-04:00",
        ]);
        let site = SiteFile::check(&text, "site").unwrap();
        assert_eq!(site.name, "Practice \"north\"");
        assert_eq!((site.devices.len(), site.destinations.len(), site.networks.len()), (2, 1, 1));
        assert_eq!(site.client_certificate_for, ["ehr"]);
        assert!(site.maintenance.is_some() && site.serial.matches("VG-0002"));
    }

    #[test]
    fn the_shortest_answers_do() {
        let site = SiteFile::check(&made(&["x", "g", "", "2026-12-31", "t"]), "site").unwrap();
        assert!(site.networks[0].dhcp && site.mqtt.is_none());
    }

    /// What is wrong with the file as a whole is said of the section that made it so, and of none after it.
    #[test]
    fn a_section_that_makes_the_file_too_large_is_asked_for_again() {
        let pem = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(pem.path(), "x".repeat(70_000)).unwrap();
        let file = pem.path().to_str().unwrap();
        let given = ["x", "g", "", "2026-12-31", "t", "", "", "", "https://ehr.example/fhir", file, "", "no", "gateway.example"];
        let mut given = given.iter();
        let mut asked = Vec::new();
        let answers = &mut |question: &str| {
            asked.push(question.to_owned());
            Ok((*given.next().unwrap_or(&"")).to_owned())
        };
        assert!(ask(answers, &mut |_| Ok(())).unwrap().len() > 70_000);
        let again: Vec<_> = (0..asked.len()).filter(|at| asked[*at].starts_with("Answer this part again?")).collect();
        assert_eq!(again, [11], "{asked:?}");
    }

    #[test]
    fn the_template_passes_the_check_as_it_is() {
        let site = SiteFile::check(super::super::TEMPLATE, "site").unwrap();
        assert_eq!(site.devices.len(), 2);
        assert_eq!(site.warnings(), Vec::<String>::new(), "filled in like this, readings arrive");
    }
}
