//! Walks a JSON message once and keeps the texts that the profile asks for, borrowed from the payload.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::pointer::Node;

/// Slots of an element of the array of values.
pub(crate) const ELEMENT_SLOTS: usize = 4;
/// Byte order mark that some publishers put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a payload is not a message at all. No text of the payload is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoMessage {
    #[error("the payload is not UTF-8 (byte {0}); the device must send JSON in UTF-8")]
    Encoding(usize),
    #[error("the payload ends in the middle of its JSON (column {0}); look for a limit on the device's message size")]
    CutOff(usize),
    #[error("the payload is not JSON (line {line}, column {column}); compare the device's output with its profile")]
    Syntax { line: usize, column: usize },
    #[error(
        "a key that the profile reads stands twice in the message (column {0}), or its list is no list; correct the device or the profile"
    )]
    Shape(usize),
}

impl From<serde_json::Error> for NoMessage {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Eof => Self::CutOff(error.column()),
            serde_json::error::Category::Data => Self::Shape(error.column()),
            _ => Self::Syntax { line: error.line(), column: error.column() },
        }
    }
}

/// What the profile asked for, as raw JSON texts.
#[derive(Debug, Default)]
pub(crate) struct Message<'a> {
    /// By slot; `None` where the message has not got it.
    pub(crate) slots: Vec<Option<&'a str>>,
    /// The elements of the array of values, `None` where the message has no such array.
    pub(crate) elements: Option<Vec<Element<'a>>>,
}

/// One element of the array of values.
#[derive(Debug, Default)]
pub(crate) struct Element<'a> {
    /// By slot.
    pub(crate) slots: [Option<&'a str>; ELEMENT_SLOTS],
    /// It is no object, or has a wanted key twice.
    pub(crate) malformed: bool,
}

/// Reads a payload.
pub(crate) fn read<'a>(root: &Node, slots: usize, bytes: &'a [u8]) -> Result<Message<'a>, NoMessage> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| NoMessage::Encoding(error.valid_up_to()))?;
    let mut message = Message { slots: vec![None; slots], elements: None };
    let mut duplicate = false;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = Found { slots: &mut message.slots, duplicate: &mut duplicate, elements: &mut message.elements };
    Walk { node: root, found }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    if duplicate { Err(NoMessage::Shape(0)) } else { Ok(message) }
}

struct Found<'s, 'a> {
    slots: &'s mut [Option<&'a str>],
    duplicate: &'s mut bool,
    elements: &'s mut Option<Vec<Element<'a>>>,
}

impl<'a> Found<'_, 'a> {
    fn again(&mut self) -> Found<'_, 'a> {
        Found { slots: self.slots, duplicate: self.duplicate, elements: self.elements }
    }

    fn keep(&mut self, slot: usize, text: &'a str) {
        if let Some(place) = self.slots.get_mut(slot) {
            *self.duplicate |= place.replace(text).is_some();
        }
    }
}

/// Walks one value with one place of the tree.
struct Walk<'s, 'a, 'n> {
    node: &'n Node,
    found: Found<'s, 'a>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        if let Some(slot) = self.node.slot {
            let raw = <&RawValue>::deserialize(deserializer)?;
            self.found.keep(slot, raw.get());
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("what the profile describes")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        if self.node.each.is_some() {
            return Err(A::Error::custom("no list"));
        }
        // A leaf that stands twice shows in its slot; of two objects each could hold a part.
        let mut parents: Vec<&Node> = Vec::new();
        while let Some(child) = map.next_key_seed(Key(self.node))? {
            match child {
                Some(node) => {
                    if parents.iter().any(|known| std::ptr::eq(*known, node)) {
                        *self.found.duplicate = true;
                    } else if node.is_parent() {
                        parents.push(node);
                    }
                    map.next_value_seed(Walk { node, found: self.found.again() })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        if let Some(each) = &self.node.each {
            return visit_elements(each, self.found.elements, list);
        }
        let mut index = 0;
        loop {
            let more = match self.node.element(index) {
                Some(node) => list.next_element_seed(Walk { node, found: self.found.again() })?.is_some(),
                None => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.scalar()
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

impl Walk<'_, '_, '_> {
    /// A plain value where the profile expects an object: what is below it is not there. A list must be one.
    fn scalar<E: serde::de::Error>(self) -> Result<(), E> {
        if self.node.each.is_some() { Err(E::custom("no list")) } else { Ok(()) }
    }
}

fn visit_elements<'de, A: SeqAccess<'de>>(each: &Node, elements: &mut Option<Vec<Element<'de>>>, mut list: A) -> Result<(), A::Error> {
    if elements.is_some() {
        return Err(A::Error::custom("twice"));
    }
    let mut read = Vec::with_capacity(list.size_hint().unwrap_or(1).min(8));
    while let Some(element) = list.next_element_seed(ElementSeed(each))? {
        read.push(element);
    }
    *elements = Some(read);
    Ok(())
}

/// Reads one element; one that is no object is marked and does not spoil the others.
struct ElementSeed<'n>(&'n Node);

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = Element<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Element<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

const NO_OBJECT: Element<'static> = Element { slots: [None; ELEMENT_SLOTS], malformed: true };

impl<'de> Visitor<'de> for ElementSeed<'_> {
    type Value = Element<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("one value as the profile describes it")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element<'de>, A::Error> {
        let mut element = Element::default();
        let (mut duplicate, mut none) = (false, None);
        Walk { node: self.0, found: Found { slots: &mut element.slots, duplicate: &mut duplicate, elements: &mut none } }.visit_map(map)?;
        element.malformed = duplicate;
        Ok(element)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(NO_OBJECT)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Element<'de>, E> {
        Ok(NO_OBJECT)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Element<'de>, E> {
        Ok(NO_OBJECT)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Element<'de>, E> {
        Ok(NO_OBJECT)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Element<'de>, E> {
        Ok(NO_OBJECT)
    }
    fn visit_str<E>(self, _: &str) -> Result<Element<'de>, E> {
        Ok(NO_OBJECT)
    }
    fn visit_unit<E>(self) -> Result<Element<'de>, E> {
        Ok(NO_OBJECT)
    }
}

/// Finds the child of a key without keeping the key.
struct Key<'n>(&'n Node);

impl<'de, 'n> DeserializeSeed<'de> for Key<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Key<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(key))
    }
}

/// A raw JSON text, told apart by its first byte; its syntax was checked when the message was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scalar<'a> {
    Null,
    Truth(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    Composite,
}

impl<'a> Scalar<'a> {
    pub(crate) fn of(raw: &'a str) -> Self {
        match raw.as_bytes().first() {
            Some(b'n') | None => Self::Null,
            Some(b't') => Self::Truth(true),
            Some(b'f') => Self::Truth(false),
            Some(b'"') => text_of(raw).map_or(Self::Composite, Self::Text),
            Some(b'[' | b'{') => Self::Composite,
            Some(_) => Self::Number(raw),
        }
    }
}

/// The text of a JSON string, borrowed where nothing in it is escaped.
fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
}

/// The members of a JSON list as raw texts; `None` when it is no list.
pub(crate) fn members(raw: &str) -> Option<Vec<&str>> {
    let members: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    Some(members.into_iter().map(RawValue::get).collect())
}
