//! Flashing a virtual disk: what is written, what is refused, and that a refusal comes before the first write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

mod common;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use common::{Folder, ok, refused, run, with_a_changed_byte};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

const MIB: usize = 1024 * 1024;
const NAME: &str = "vitalgate-amd64-0.1.0.img";

/// An image of a little over 5 MiB with holes, its packed form and its block map, all signed.
fn release() -> Folder {
    let folder = Folder::new();
    let mut image = vec![0_u8; 5 * MIB + 700];
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (at, byte) in image[MIB + 4000..2 * MIB + 9000].iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    image[5 * MIB + 699] = 9;
    folder.write(NAME, &image);
    ok(["release", "map", &folder.text(NAME), "--output", &folder.text("vitalgate-amd64-0.1.0.bmap")]);
    folder.write(&format!("{NAME}.zst"), compress_to_vec(image.as_slice(), CompressionLevel::Fastest));
    let key = folder.key("release");
    std::fs::create_dir(folder.path("out")).unwrap();
    for name in [NAME, "vitalgate-amd64-0.1.0.img.zst", "vitalgate-amd64-0.1.0.bmap"] {
        std::fs::rename(folder.path(name), folder.path("out").join(name)).unwrap();
    }
    ok(["release", "sign", &folder.text("out"), "--key", &key, "--support-end", "2099-12-31"]);
    folder
}

fn packed(folder: &Folder) -> String {
    folder.text("out/vitalgate-amd64-0.1.0.img.zst")
}

#[test]
fn an_image_reaches_a_virtual_disk_and_is_proven() {
    let folder = release();
    let disk = folder.text("disk.img");
    let key = folder.text("release.pub");
    let said = run(["flash", &packed(&folder), "--to", &disk, "--size", "8MiB", "--key", &key]);
    assert_eq!(said.code, 0, "{}", said.err);
    let proof: Vec<_> = said.out.trim().split(' ').collect();
    assert_eq!(said.out.lines().count(), 1);
    assert_eq!((proof[0], proof[1], proof[2].len()), ("OK", "0.1.0", 8));
    let list = String::from_utf8(folder.read("out/SHA256SUMS")).unwrap();
    assert!(list.lines().any(|line| line.starts_with(proof[2]) && line.ends_with(".img.zst")), "the hash is the one of the list");
    let (image, written) = (folder.read(&format!("out/{NAME}")), folder.read("disk.img"));
    assert_eq!(written.len(), 8 * MIB);
    assert_eq!(written[..image.len()], image[..]);
    assert!(said.err.contains("reading back 100 %"), "{}", said.err);
    let held = std::fs::metadata(folder.path("disk.img")).unwrap().blocks() * 512;
    assert!(held < 4 * MIB as u64, "holes of the image are holes of a new file: {held} bytes are held");
}

/// OK proves every byte: what is zero in the image is zero on a disk that held something else, with and without a block map.
#[test]
fn nothing_of_a_used_disk_is_left() {
    for with_map in [true, false] {
        let folder = release();
        if !with_map {
            std::fs::remove_file(folder.path("out/vitalgate-amd64-0.1.0.bmap")).unwrap();
        }
        let mut used = vec![0xa5; 8 * MIB];
        used[510..512].copy_from_slice(&[0x55, 0xaa]);
        let disk = folder.write("disk.img", used);
        let said = run(["flash", &packed(&folder), "--to", &disk, "--erase", "disk.img"]);
        assert_eq!(said.code, 0, "{}", said.err);
        let (image, written) = (folder.read(&format!("out/{NAME}")), folder.read("disk.img"));
        assert!(written[..image.len()] == image[..], "the image, zeros as well (block map: {with_map})");
        assert!(written[image.len()..image.len() + MIB].iter().all(|byte| *byte == 0), "what was behind it");
        assert!(written[7 * MIB..].iter().all(|byte| *byte == 0), "what was at the end");
        // 5 MiB and 700 bytes of image, 1 MiB behind it, 1 MiB at the end.
        assert!(said.err.contains("writing 100 % (7 MiB)") && said.err.contains("reading back 100 % (7 MiB)"), "{}", said.err);
    }
}

/// An image as a release has it: tables of partitions at both ends, an EFI system partition, and one more.
fn partitioned() -> Vec<u8> {
    const SECTOR: usize = 512;
    let mut image = vec![0; 8 * MIB];
    let last = image.len() / SECTOR - 1;
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (header, entries, other) in [(1, 2, last), (last, last - 32, 1)] {
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(header * SECTOR, b"EFI PART");
        for (at, number) in [(24, header), (32, other), (40, 34), (48, last - 33), (72, entries)] {
            put(header * SECTOR + at, &(number as u64).to_le_bytes());
        }
        put(header * SECTOR + 80, &128_u32.to_le_bytes());
        put(header * SECTOR + 84, &128_u32.to_le_bytes());
        let esp = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        for (number, kind, from, until) in [(0, esp, 2048_u64, 6143_u64), (1, [7; 16], 6144, 12287)] {
            let entry = entries * SECTOR + number * 128;
            put(entry, &kind);
            put(entry + 32, &from.to_le_bytes());
            put(entry + 40, &until.to_le_bytes());
        }
    }
    image[MIB..MIB + 100].fill(1);
    image[2 * MIB + 5..2 * MIB + 10].fill(2);
    image[3 * MIB..3 * MIB + 6000].fill(3);
    image
}

/// The first and the last block of every range of a block map.
fn mapped(map: &str) -> Vec<(usize, usize)> {
    let spans = map.lines().filter_map(|line| line.trim().strip_prefix("<Range ")?.split(' ').nth(1));
    spans
        .map(|span| {
            let (first, last) = span.split_once('-').unwrap_or((span, span));
            (first.parse().unwrap(), last.parse().unwrap())
        })
        .collect()
}

/// Other tools write what the block map names and nothing else: on a used disk both tables and the EFI partition are whole all the same.
#[test]
fn a_block_map_names_the_zeros_that_mean_something() {
    let folder = Folder::new();
    let image = partitioned();
    let file = folder.write("disk.img", &image);
    ok(["release", "map", &file, "--output", &folder.text("disk.bmap")]);
    let map = String::from_utf8(folder.read("disk.bmap")).unwrap();
    let mut used = vec![0xa5; image.len()];
    for (first, last) in mapped(&map) {
        let (start, end) = (first * 4096, (last + 1) * 4096);
        used[start..end].copy_from_slice(&image[start..end]);
    }
    assert!(used[..34 * 512] == image[..34 * 512], "the table of partitions");
    assert!(used[MIB..3 * MIB] == image[MIB..3 * MIB], "the EFI system partition");
    assert!(used[8 * MIB - 33 * 512..] == image[8 * MIB - 33 * 512..], "the table's copy");
    assert_eq!(used[5 * MIB], 0xa5, "what means nothing is left out");
    // What builds the image makes the same map.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/blockmap");
    assert!(Command::new(&script).args([&file, &folder.text("built.bmap")]).status().unwrap().success());
    assert_eq!(String::from_utf8(folder.read("built.bmap")).unwrap(), map);
}

/// The raw form and a disk that is there already, without the block map.
#[test]
fn a_raw_image_reaches_an_existing_disk() {
    let folder = release();
    std::fs::remove_file(folder.path("out/vitalgate-amd64-0.1.0.bmap")).unwrap();
    let disk = folder.path("disk.img");
    let file = File::create(&disk).unwrap();
    file.set_len(8 * MIB as u64).unwrap();
    // An old table of partitions, and old data where the data partition will begin.
    file.write_all_at(&[0x55, 0xaa], 510).unwrap();
    file.write_all_at(&[7; 64], 5 * MIB as u64 + 700).unwrap();
    file.write_all_at(&[7; 64], 8 * MIB as u64 - 64).unwrap();
    let proof = ok(["flash", &folder.text(&format!("out/{NAME}")), "--target", disk.to_str().unwrap(), "--erase", "disk.img"]);
    assert!(proof.starts_with("OK 0.1.0 "), "{proof}");
    let written = folder.read("disk.img");
    assert_eq!(written[..5 * MIB + 700], folder.read(&format!("out/{NAME}"))[..]);
    assert!(written[5 * MIB + 700..].iter().all(|byte| *byte == 0), "what was behind is gone");
}

/// Two frames in one file are one image.
#[test]
fn an_image_may_be_packed_in_several_frames() {
    let folder = Folder::new();
    let mut file = compress_to_vec([1_u8; 5000].as_slice(), CompressionLevel::Fastest);
    file.extend(compress_to_vec([2_u8; 3000].as_slice(), CompressionLevel::Fastest));
    let image = folder.write("vitalgate-amd64-0.2.0.img.zst", file);
    let disk = folder.text("disk.img");
    assert!(ok(["flash", &image, "--to", &disk, "--size", "1MiB"]).starts_with("OK 0.2.0 "));
    let written = folder.read("disk.img");
    assert!(written[..5000].iter().all(|byte| *byte == 1) && written[5000..8000].iter().all(|byte| *byte == 2));
}

/// Whatever is wrong with the image: no byte of the target changes, a new file is not even made.
#[test]
fn a_damaged_image_is_refused_before_the_first_write() {
    let folder = release();
    let image = packed(&folder);
    let (whole, map) = (folder.read("out/vitalgate-amd64-0.1.0.img.zst"), folder.read("out/vitalgate-amd64-0.1.0.bmap"));
    let key = folder.text("release.pub");
    let disk = folder.text("disk.img");
    let untouched = || !folder.path("disk.img").exists();
    for at in [whole.len() / 3, whole.len() / 2, whole.len() - 40] {
        folder.write("out/vitalgate-amd64-0.1.0.img.zst", with_a_changed_byte(image.as_ref(), at));
        // Once by the signed hash, once by the block map alone.
        refused(1, "damaged", ["flash", &image, "--to", &disk, "--size", "8MiB", "--key", &key]);
        std::fs::rename(folder.path("out/SHA256SUMS"), folder.path("list")).unwrap();
        refused(1, "damaged", ["flash", &image, "--to", &disk, "--size", "8MiB"]);
        std::fs::rename(folder.path("list"), folder.path("out/SHA256SUMS")).unwrap();
        folder.write("out/vitalgate-amd64-0.1.0.img.zst", &whole);
    }
    folder.write("out/vitalgate-amd64-0.1.0.img.zst", &whole[..whole.len() - 100]);
    std::fs::remove_file(folder.path("out/SHA256SUMS")).unwrap();
    refused(1, "damaged", ["flash", &image, "--to", &disk, "--size", "8MiB"]);
    folder.write("out/vitalgate-amd64-0.1.0.img.zst", &whole);
    folder.write("out/vitalgate-amd64-0.1.0.bmap", String::from_utf8(map).unwrap().replacen(" 0 ", " 1 ", 1));
    refused(1, "BmapFileChecksum", ["flash", &image, "--to", &disk, "--size", "8MiB"]);
    assert!(untouched());
}

/// A map that leaves out a part of the image would leave it unwritten.
#[test]
fn a_map_of_another_image_is_refused() {
    let folder = Folder::new();
    let one = folder.write("one.img", vec![1; 8192]);
    let two = folder.write("two.img", [vec![1; 4096], vec![0; 4096]].concat());
    ok(["release", "map", &two, "--output", &folder.text("two.bmap")]);
    refused(1, "leaves out", ["flash", &one, "--bmap", &folder.text("two.bmap"), "--to", &folder.text("disk"), "--size", "1MiB"]);
    let short = folder.write("short.img", vec![1; 4096]);
    refused(
        1,
        "its block map says 8192",
        ["flash", &short, "--bmap", &folder.text("two.bmap"), "--to", &folder.text("disk"), "--size", "1MiB"],
    );
    let long = folder.write("long.img", [vec![1; 4096], vec![0; 8192]].concat());
    refused(
        1,
        "larger than its block map",
        ["flash", &long, "--bmap", &folder.text("two.bmap"), "--to", &folder.text("disk"), "--size", "1MiB"],
    );
    assert!(!folder.path("disk").exists());
}

#[test]
fn a_packed_file_that_is_none_is_refused() {
    let folder = Folder::new();
    for (name, bytes) in [("a", vec![0x28, 0xb5, 0x2f, 0xfd]), ("b", [vec![0x28, 0xb5, 0x2f, 0xfd], vec![0xff; 5000]].concat())] {
        let image = folder.write(name, bytes);
        refused(1, "cannot be unpacked", ["flash", &image, "--to", &folder.text("disk"), "--size", "1MiB"]);
    }
}

/// A signature that does not hold, or is missing where a key is given.
#[test]
fn an_unsigned_image_is_refused_when_a_key_is_given() {
    let folder = release();
    let other = folder.key("other").replace(".key", ".pub");
    let flash = |key: &str| run(["flash", &packed(&folder), "--to", &folder.text("disk"), "--size", "8MiB", "--key", key]);
    assert!(flash(&other).err.contains("does not match"));
    std::fs::remove_file(folder.path("out/SHA256SUMS.sig")).unwrap();
    let said = flash(&folder.text("release.pub"));
    assert!(said.code == 4 && said.err.contains("SHA256SUMS.sig cannot be read"), "{}", said.err);
    assert!(!folder.path("disk").exists());
}

#[test]
fn targets_that_must_not_be_written_are_refused() {
    let folder = release();
    let image = packed(&folder);
    let flash = |to: &str, more: &[&str]| run(["flash", &image, "--to", to].into_iter().chain(more.iter().copied()));
    let told = |said: common::Said, why: &str| assert!(said.code == 3 && said.err.contains(why), "{why}: {} {}", said.code, said.err);
    told(flash(&folder.text("new"), &[]), "does not exist");
    told(flash(&folder.text("new"), &["--size", "5MiB"]), "the image needs 6");
    told(flash(&folder.text("new"), &["--size", "many"]), "no size");
    told(flash(&image, &[]), "same file");
    told(flash(&folder.text("out"), &[]), "neither a disk nor a file");
    told(flash("/dev/null", &[]), "neither a disk nor a file");
    let thesis = folder.write("thesis.txt", "x".repeat(8 * MIB));
    told(flash(&thesis, &[]), "no disk");
    assert_eq!(folder.read("thesis.txt")[0], b'x');
    let small = folder.write("small.img", vec![0; MIB]);
    told(flash(&small, &[]), "has 1 MiB, the image needs 6");
    let busy = File::create(folder.path("busy.img")).unwrap();
    busy.set_len(8 * MIB as u64).unwrap();
    busy.lock().unwrap();
    told(flash(&folder.text("busy.img"), &[]), "in use by another program");
    assert!(!folder.path("new").exists());
}

/// A file that holds something is erased like a disk: only when it is named. What holds nothing is written without a question.
#[test]
fn a_file_that_holds_something_is_erased_only_when_it_is_named() {
    let folder = release();
    let image = packed(&folder);
    let mut another_system = vec![0; 8 * MIB];
    another_system[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut whole_file_system = vec![0; 8 * MIB];
    whole_file_system[64 * 1024..64 * 1024 + 8].copy_from_slice(b"_BHRfS_M");
    for (name, held) in [("windows.img", another_system), ("backup.img", whole_file_system)] {
        let path = folder.write(name, &held);
        refused(3, &format!("nobody is there to confirm that {name} is erased; add --erase {name}"), ["flash", &image, "--to", &path]);
        refused(3, "\"disk.img\" is not this file", ["flash", &image, "--to", &path, "--erase", "disk.img"]);
        assert!(folder.read(name) == held, "{name} is as it was");
        assert!(ok(["flash", &image, "--to", &path, "--erase", name]).starts_with("OK "));
        assert!(ok(["flash", &image, "--to", &path, "--erase", &path]).starts_with("OK "));
    }
    // Zeros that take room, and a hole.
    let zeros = folder.write("zeros.img", vec![0; 8 * MIB]);
    File::create(folder.path("hole.img")).unwrap().set_len(8 * MIB as u64).unwrap();
    for empty in [zeros, folder.text("hole.img")] {
        assert!(ok(["flash", &image, "--to", &empty]).starts_with("OK "));
    }
}

/// On any machine: the list is printed, and writes nothing.
#[test]
fn the_list_of_disks_is_printed() {
    assert_eq!(run(["flash", "--list"]).code, 0);
}
