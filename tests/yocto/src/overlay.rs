//! The files that both builds of the image share: they are in `image/`, and only there.

use std::{collections::BTreeMap, path::Path};

use crate::{Breach, Tree, recipe};

const PLATFORM: &str = "yocto-layer/recipes-gateway/vitalgate-platform";
const ROOT: &str = "yocto-layer/classes-recipe/vitalgate_root.bbclass";
const OVERLAY: &str = "image/rootfs";
/// Shorter texts are equal by chance.
const COPY_BYTES_MIN: usize = 40;

fn shared(tree: &Tree) -> Vec<String> {
    tree.files("image")
        .into_iter()
        .filter(|name| !name.ends_with(".rs") && !name.ends_with("Cargo.toml") && !name.ends_with(".md"))
        .collect()
}

fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A file that is in both places is one that drifts.
pub(crate) fn no_copies(tree: &Tree) -> Vec<Breach> {
    let shared = shared(tree);
    let by_text: BTreeMap<_, _> =
        shared.iter().map(|name| (tree.text(name), name)).filter(|(text, _)| text.len() >= COPY_BYTES_MIN).collect();
    let by_name: BTreeMap<_, _> = shared.iter().filter(|name| name.starts_with(OVERLAY)).map(|name| (base_name(name), name)).collect();
    tree.files("yocto-layer")
        .into_iter()
        .filter_map(|name| {
            let original = by_text.get(&tree.text(&name)).or_else(|| by_name.get(base_name(&name)))?;
            Some(format!("{name}: a copy of {original}; delete it, recipes reach the original by FILESEXTRAPATHS"))
        })
        .collect()
}

/// Where bitbake looks for the local files of a recipe; `None`: outside the repository.
fn search_paths(tree: &Tree, recipe: &str) -> Vec<Option<String>> {
    let folder = recipe.rsplit_once('/').map_or("", |(folder, _)| folder);
    let package = base_name(recipe).split(['_', '.']).next().unwrap_or_default();
    let mut paths: Vec<_> = ["files".to_owned(), package.to_owned()].into_iter().map(|name| Some(format!("{folder}/{name}"))).collect();
    for (name, value) in recipe::assignments(&tree.text(recipe)) {
        if name.starts_with("FILESEXTRAPATHS") {
            paths.extend(value.split(':').filter(|path| !path.is_empty()).map(|path| {
                let inside = path.replace("${THISDIR}", folder).replace("${VITALGATE_TOPDIR}", ".");
                (!inside.contains("${")).then_some(inside)
            }));
        }
    }
    paths
}

/// Words like `file://name;subdir=x` of a recipe's SRC_URI.
fn local_files(tree: &Tree, recipe: &str) -> Vec<String> {
    recipe::assignments(&tree.text(recipe))
        .into_iter()
        .filter(|(name, _)| name.starts_with("SRC_URI") && !name.contains('['))
        .flat_map(|(_, value)| value.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|word| word.strip_prefix("file://").and_then(|rest| rest.split(';').next()).map(str::to_owned))
        .filter(|word| !word.contains("${"))
        .collect()
}

/// Every file and folder that a recipe, a class or a description of the layer names exists.
pub(crate) fn references_lead_somewhere(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for recipe in tree.metadata() {
        for file in local_files(tree, &recipe) {
            let found = search_paths(tree, &recipe).into_iter().flatten().any(|path| tree.has(&format!("{path}/{file}")));
            if !found {
                breaches.push(format!("{recipe}: file://{file} is nowhere; bring it back, or take it out of SRC_URI"));
            }
        }
        let text = tree.text(&recipe);
        let mut named: Vec<_> = text
            .split("${VITALGATE_TOPDIR}/")
            .skip(1)
            .filter_map(|rest| rest.split(|letter: char| letter.is_whitespace() || "\":;)".contains(letter)).next())
            .filter(|path| !path.is_empty() && !path.contains("${"))
            .map(str::to_owned)
            .collect();
        for call in ["vitalgate_lines(d, \"", "vitalgate_words(d, \"", "vitalgate_words(d, '"] {
            named.extend(text.split(call).skip(1).filter_map(|rest| rest.split(['"', '\'']).next()).map(|name| format!("image/{name}")));
        }
        for path in named.into_iter().filter(|path| !tree.has(path)) {
            breaches.push(format!("{recipe}: names {path}, which is not there; bring it back, or take the name out"));
        }
    }
    let gone = folders(tree).into_iter().filter(|folder| !tree.has(folder));
    breaches.extend(
        gone.map(|folder| format!("{PLATFORM}: VITALGATE_FOLDERS names {folder}, which is not there; bring it back, or take the name out")),
    );
    breaches.dedup();
    breaches
}

/// What the Debian-built image reads and the layer need not, each with its reason.
const OTHERWISE: [(&str, &str); 6] = [
    ("image/apparmor", "the layers have no AppArmor"),
    ("image/keys", "a folder of target/, not of image/"),
    ("image/packages", "packagegroup-vitalgate is its counterpart"),
    ("image/rootfs", "by folders, see VITALGATE_FOLDERS"),
    ("image/units", "looks at image/rootfs, once for both builds"),
    ("image/variants", "for tests in a virtual machine only"),
];

/// What the scripts of the Debian-built image read from image/ is read by the layer as well.
pub(crate) fn inputs_agree(tree: &Tree) -> Vec<Breach> {
    let layer: String = tree.metadata().iter().map(|name| tree.text(name)).collect();
    let mut breaches = BTreeMap::new();
    for script in tree.files("image/build") {
        for name in tree.text(&script).split(|letter: char| !letter.is_ascii_alphanumeric() && !"-./_".contains(letter)) {
            let Some(rest) = name.strip_prefix("image/") else { continue };
            let input = format!("image/{}", rest.split('/').next().unwrap_or_default().trim_end_matches('.'));
            let called = input.trim_start_matches("image/");
            let known =
                OTHERWISE.iter().any(|(other, _)| *other == input) || called == "build" || called.ends_with(".md") || !tree.has(&input);
            let read = layer.contains(&format!("${{VITALGATE_TOPDIR}}/{input}")) || layer.contains(&format!("\"{called}\")"));
            if !known && !read && !layer.contains(&format!("'{called}')")) {
                let todo = "read it in a class of yocto-layer/classes-recipe too, or give the reason in tests/yocto/src/overlay.rs";
                breaches.insert(input.clone(), format!("{input}: {script} reads it, the layer does not; {todo}"));
            }
        }
    }
    let years = |text: &str| text.lines().find_map(|line| line.strip_prefix("SUPPORT_YEARS=").map(str::to_owned));
    let built = tree.files("image/build").iter().find_map(|script| years(&tree.text(script))).unwrap_or_default();
    let said = recipe::value(tree, ROOT, "VITALGATE_SUPPORT_YEARS");
    if built != said {
        breaches.insert(
            ROOT.to_owned(),
            format!("{ROOT}: VITALGATE_SUPPORT_YEARS is {said}, image/build says {built}; write the same in both"),
        );
    }
    breaches.into_values().collect()
}

/// Folders of image/rootfs that the platform's recipe takes whole.
fn folders(tree: &Tree) -> Vec<String> {
    tree.files(PLATFORM)
        .iter()
        .map(|recipe| recipe::value(tree, recipe, "VITALGATE_FOLDERS"))
        .flat_map(|folders| folders.split_ascii_whitespace().map(|folder| format!("{OVERLAY}/{folder}")).collect::<Vec<_>>())
        .collect()
}

/// Every file below image/rootfs is in a folder that the platform's recipe takes.
pub(crate) fn all_is_shipped(tree: &Tree) -> Vec<Breach> {
    let mut taken = folders(tree);
    // An append that looks for another layer's file in a folder of ours ships that folder.
    let appends = tree.metadata().into_iter().filter(|name| name.ends_with(".bbappend"));
    taken.extend(
        appends.flat_map(|append| search_paths(tree, &append)).flatten().filter_map(|path| path.strip_prefix("./").map(str::to_owned)),
    );
    let files = tree.files(OVERLAY);
    if files.is_empty() {
        return vec![format!("{OVERLAY}: no files; is the folder there?")];
    }
    files
        .iter()
        .filter(|file| !taken.iter().any(|folder| Path::new(file).starts_with(folder)))
        .map(|file| {
            let folder = Path::new(file).parent().and_then(|folder| folder.strip_prefix(OVERLAY).ok()).unwrap_or(Path::new("."));
            format!("{file}: shipped by no recipe; add {} to VITALGATE_FOLDERS in {PLATFORM}", folder.display())
        })
        .collect()
}
