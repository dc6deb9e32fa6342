//! Documents must stay true.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::{assert_none, root, tracked_files};

/// Longest ARCHITECTURE.md in lines: it is one page.
const ARCHITECTURE_LINES_MAX: usize = 120;

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_external_dependency_has_its_reason() {
    let reasons = document("docs/dependencies.md");
    let metadata =
        MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().other_options(vec!["--offline".into()]).exec().unwrap();
    let named: BTreeSet<_> = metadata
        .packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.kind != DependencyKind::Build && !dependency.name.starts_with("vitalgate-"))
        .map(|dependency| dependency.name.clone())
        .collect();
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !reasons.contains(&format!("| {name} |")))
        .map(|name| format!("{name}: add a row to docs/dependencies.md"))
        .collect();
    assert_none("a dependency without a reason", &missing);
}

/// What building and tests install is named with its reason as well.
#[test]
fn every_package_that_is_installed_has_its_reason() {
    let reasons = document("docs/dependencies.md");
    let setup = document("tools/setup");
    let lists = setup.split("_PACKAGES=(").skip(1).filter_map(|rest| rest.split(')').next());
    let mut installed: BTreeSet<_> = lists.flat_map(str::split_whitespace).map(str::to_owned).collect();
    assert!(installed.len() > 40, "only {} packages found in tools/setup: the rule would pass for nothing", installed.len());
    let tools = setup.split("install_cargo_tool ").filter_map(|rest| rest.split_once(" \"$CARGO_"));
    installed.extend(tools.map(|(tool, _)| format!("cargo-{tool}")));
    for (name, text) in tracked_files().into_iter().filter(|(name, _)| name.starts_with("tests/python/") && name.ends_with(".txt")) {
        let packages = text.lines().filter_map(|line| line.split_once("=="));
        assert!(packages.clone().next().is_some(), "{name} pins no package");
        installed.extend(packages.map(|(package, _)| package.to_owned()));
    }
    let cells = reasons.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let named: BTreeSet<_> = cells.flat_map(|cell| cell.split([',', ';'])).map(str::trim).collect();
    let missing: Vec<_> = installed.iter().filter(|name| !named.contains(name.as_str())).cloned().collect();
    assert_none("packages without a row in docs/dependencies.md", &missing);
}

#[test]
fn the_architecture_stays_one_page() {
    let lines = document("ARCHITECTURE.md").lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines, at most {ARCHITECTURE_LINES_MAX}");
}

/// A link to a file that is gone sends its reader nowhere.
#[test]
fn links_between_documents_lead_somewhere() {
    let mut breaches = Vec::new();
    for (name, text) in tracked_files().into_iter().filter(|(name, _)| name.ends_with(".md")) {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                breaches.push(format!("{name}: {link}"));
            }
        }
    }
    assert_none("a link leads nowhere", &breaches);
}

/// A figure in a document is one that was measured: it names the command that prints it.
#[test]
fn a_document_with_figures_names_the_command_that_prints_them() {
    for name in ["README.md", "docs/performance.md"] {
        let text = document(name);
        let has_figures = text.contains("readings/s") || text.contains(" MiB");
        assert!(!has_figures || text.contains("make bench"), "{name} has figures but not the command `make bench`");
    }
}

#[test]
fn the_two_commands_of_the_readme_exist() {
    let makefile = document("Makefile");
    for command in ["demo", "test", "bench", "torture", "cross"] {
        assert!(makefile.contains(&format!("\n{command}:")), "make {command} is missing");
    }
    let readme = document("README.md");
    assert!(readme.contains("make demo") && readme.contains("make test"), "README.md names both commands");
    assert!(document(".ci/run").contains("make test"), ".ci/run runs the same command");
}

/// What the technician's table says that `imagectl` prints is what it prints: who searches for the words finds them.
#[test]
fn what_imagectl_is_said_to_print_it_prints() {
    let manual = document("docs/technician.md");
    let table = manual.split_once("| `imagectl` says | do |\n").expect("the table of what imagectl says").1;
    let said: Vec<_> = table.lines().map_while(|line| line.strip_prefix("| ")?.split(" | ").next()).skip(1).collect();
    assert!(said.len() > 20, "only {} rows: the rule would pass for nothing", said.len());
    let sources = tracked_files().into_iter().filter(|(name, _)| name.starts_with("image/imagectl/src/"));
    let code: String = sources.map(|(_, text)| text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()).collect();
    // As it comes out: no escapes, one line, the names of constants in their place.
    let printed = code.replace("\\\n", "").replace("\\\"", "\"").replace("{LIST}", "SHA256SUMS");
    let printed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut missing = Vec::new();
    for row in said {
        for fragment in row.split(" / ").flat_map(|one| one.split("...")).map(|one| one.replace('`', "")) {
            let fragment = fragment.trim_matches(|one: char| !one.is_alphanumeric());
            if !printed.contains(fragment) {
                missing.push(format!("{row}: {fragment:?}"));
            }
        }
    }
    assert_none("words in docs/technician.md that imagectl does not print", &missing);
}
