//! Block maps: which parts of an image hold something, each with its hash (bmaptool, format 2.0).

use crate::digest::{Digest, hex};

/// Largest image in bytes (1 TiB).
const IMAGE_BYTES_MAX: u64 = 1 << 40;
/// Most ranges.
const RANGES_MAX: usize = 1 << 20;
/// Block sizes that are taken, in bytes.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 512..=1024 * 1024;
/// Block size of our own maps in bytes.
pub(crate) const BLOCK: u64 = 4096;

/// Bytes that hold something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// First byte.
    pub(crate) start: u64,
    /// First byte after it.
    pub(crate) end: u64,
    /// Hash of what is between.
    pub(crate) digest: Digest,
}

/// A map in which ranges are in order, apart from each other, and within the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockMap {
    /// Size of the image.
    pub(crate) image_bytes: u64,
    /// What holds something.
    pub(crate) ranges: Vec<Range>,
    block: u64,
}

impl BlockMap {
    /// A map that was made here.
    pub(crate) fn new(image_bytes: u64, ranges: Vec<Range>) -> Self {
        Self { image_bytes, ranges, block: BLOCK }
    }

    /// Reads a block map; says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let options = roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: (RANGES_MAX * 3) as u32, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(text, options).map_err(|error| format!("no XML ({error})"))?;
        let root = document.root_element();
        if root.tag_name().name() != "bmap" {
            return Err("this is no block map".to_owned());
        }
        if !root.attribute("version").is_some_and(|version| version.starts_with("2.")) {
            return Err("a version other than 2".to_owned());
        }
        let field = |name: &str| {
            let node = root.children().find(|node| node.tag_name().name() == name).and_then(|node| node.text());
            node.map(str::trim).ok_or_else(|| format!("{name} is missing"))
        };
        let number = |name: &str| field(name)?.parse::<u64>().map_err(|_| format!("{name} is no number"));
        if field("ChecksumType")? != "sha256" {
            return Err("hashes other than sha256".to_owned());
        }
        check_own_hash(text, field("BmapFileChecksum")?)?;
        let (image_bytes, block) = (number("ImageSize")?, number("BlockSize")?);
        if !(1..=IMAGE_BYTES_MAX).contains(&image_bytes) {
            return Err(format!("an image of {image_bytes} bytes"));
        }
        if !BLOCK_BYTES.contains(&block) || !block.is_power_of_two() {
            return Err(format!("blocks of {block} bytes"));
        }
        let blocks = image_bytes.div_ceil(block);
        if number("BlocksCount")? != blocks {
            return Err("BlocksCount does not fit ImageSize".to_owned());
        }
        let list = root.children().find(|node| node.tag_name().name() == "BlockMap").ok_or("BlockMap is missing")?;
        let mut ranges = Vec::new();
        let mut mapped = 0;
        for node in list.children().filter(roxmltree::Node::is_element) {
            let range = range(&node, block, blocks, image_bytes)?;
            if ranges.last().is_some_and(|last: &Range| last.end > range.start) {
                return Err("ranges out of order".to_owned());
            }
            mapped += (range.end - range.start).div_ceil(block);
            ranges.push(range);
        }
        if number("MappedBlocksCount")? != mapped {
            return Err("MappedBlocksCount does not fit the ranges".to_owned());
        }
        Ok(Self { image_bytes, ranges, block })
    }

    /// The same as a file.
    pub(crate) fn to_xml(&self) -> String {
        let zeros = "0".repeat(64);
        let blocks = self.image_bytes.div_ceil(self.block);
        let mapped: u64 = self.ranges.iter().map(|range| (range.end - range.start).div_ceil(self.block)).sum();
        let mut text = format!(
            "<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n    <ImageSize> {} </ImageSize>\n    <BlockSize> {} </BlockSize>\n    \
             <BlocksCount> {blocks} </BlocksCount>\n    <MappedBlocksCount> {mapped} </MappedBlocksCount>\n    \
             <ChecksumType> sha256 </ChecksumType>\n    <BmapFileChecksum> {zeros} </BmapFileChecksum>\n    <BlockMap>\n",
            self.image_bytes, self.block
        );
        for range in &self.ranges {
            let (first, last) = (range.start / self.block, range.end.div_ceil(self.block) - 1);
            let blocks = if first == last { first.to_string() } else { format!("{first}-{last}") };
            text.push_str(&format!("        <Range chksum=\"{}\"> {blocks} </Range>\n", hex(&range.digest.0)));
        }
        text.push_str("    </BlockMap>\n</bmap>\n");
        let digest = Digest::of(text.as_bytes()).hex();
        text.replacen(&zeros, &digest, 1)
    }

    /// How much holds something.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// The file's own hash is made with zeros in its place.
fn check_own_hash(text: &str, stated: &str) -> Result<(), String> {
    let wanted = Digest::parse(stated).ok_or("BmapFileChecksum is no SHA-256")?;
    let zeroed = text.replacen(stated, &"0".repeat(stated.len()), 1);
    if Digest::of(zeroed.as_bytes()) == wanted { Ok(()) } else { Err("it was changed: BmapFileChecksum does not match".to_owned()) }
}

fn range(node: &roxmltree::Node<'_, '_>, block: u64, blocks: u64, image_bytes: u64) -> Result<Range, String> {
    let text = node.text().map(str::trim).unwrap_or_default();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = first.trim().parse::<u64>().ok().zip(last.trim().parse::<u64>().ok()).ok_or("a range that is none")?;
    if node.tag_name().name() != "Range" || first > last || last >= blocks {
        return Err("a range outside the image".to_owned());
    }
    let digest = node.attribute("chksum").and_then(Digest::parse).ok_or("a range without a hash")?;
    // The last block may be a part of one. Nothing overflows: last < blocks <= 2^40 / 512.
    Ok(Range { start: first * block, end: ((last + 1) * block).min(image_bytes), digest })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map() -> BlockMap {
        let digest = Digest::of(b"x");
        BlockMap::new(
            10 * BLOCK + 7,
            vec![Range { start: 0, end: 2 * BLOCK, digest }, Range { start: 10 * BLOCK, end: 10 * BLOCK + 7, digest }],
        )
    }

    /// The same text, honest about its own hash.
    fn changed(from: &str, to: &str) -> String {
        let text = map().to_xml();
        let stated = text.split("<BmapFileChecksum> ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let zeros = "0".repeat(64);
        let text = text.replacen(&stated, &zeros, 1).replace(from, to);
        let digest = Digest::of(text.as_bytes()).hex();
        text.replacen(&zeros, &digest, 1)
    }

    #[test]
    fn a_map_survives_its_file() {
        assert_eq!(BlockMap::parse(&map().to_xml()).unwrap(), map());
        assert_eq!(map().mapped_bytes(), 2 * BLOCK + 7);
    }

    /// A map that would lead outside the image, or leave parts unchecked, is refused.
    #[test]
    fn a_hostile_map_is_refused() {
        let digest = Digest::of(b"x").hex();
        for (from, to) in [
            (" 0-1 ", " 0-11 "),
            (" 0-1 ", " 1-0 "),
            (" 0-1 ", " 0-10 "),
            (" 0-1 ", " 0-18446744073709551615 "),
            (" 0-1 ", " -1 "),
            ("> 4096 <", "> 0 <"),
            ("> 4096 <", "> 4095 <"),
            ("> 40967 <", "> 0 <"),
            ("> 40967 <", "> 18446744073709551615 <"),
            ("> 3 <", "> 4 <"),
            ("> 11 <", "> 12 <"),
            ("> sha256 <", "> sha1 <"),
            ("version=\"2.0\"", "version=\"1.2\""),
            (&format!(" chksum=\"{digest}\""), ""),
            ("<Range", "<Other"),
            ("<bmap", "<!DOCTYPE x [<!ENTITY a \"b\">]><bmap"),
        ] {
            let text = changed(from, to);
            assert_ne!(text, map().to_xml(), "{from} is in the map");
            assert!(BlockMap::parse(&text).is_err(), "{from} -> {to}");
        }
        assert!(BlockMap::parse(&map().to_xml().replace(" 0-1 ", " 0-1  ")).is_err(), "its own hash");
    }

    /// What is nested very deeply would exhaust the stack of a reader that follows it.
    #[test]
    fn deep_nesting_is_refused() {
        for text in
            ["<a>".repeat(300_000), "<bmap><BlockMap>".repeat(100_000), format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000))]
        {
            assert!(BlockMap::parse(&text).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in "\\PC{0,300}") {
            let _ = BlockMap::parse(&text);
        }

        #[test]
        fn a_damaged_map_stays_within_the_image(at in any::<prop::sample::Index>(), junk in "[0-9<>/a-z\" -]{0,6}") {
            let mut text = changed("x", "x");
            let at = at.index(text.len());
            if text.is_char_boundary(at) {
                text.insert_str(at, &junk);
            }
            if let Ok(map) = BlockMap::parse(&text) {
                prop_assert!(map.ranges.iter().all(|range| range.start < range.end && range.end <= map.image_bytes));
            }
        }
    }
}
