//! Lists of an answer with a limit on what is kept: a hostile answer of many small elements must not
//! grow in memory beyond its own size.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

/// A text that borrows from the answer where it holds no escapes.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// At most `N` elements; more are an error.
#[derive(Debug)]
pub(crate) struct AtMost<T, const N: usize>(pub(crate) Vec<T>);

/// The first `N` elements; more are passed over.
#[derive(Debug)]
pub(crate) struct First<T, const N: usize>(pub(crate) Vec<T>);

impl<T, const N: usize> Default for AtMost<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> Default for First<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

struct Limited<T> {
    limit: usize,
    refuse_more: bool,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Limited<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {} elements", self.limit)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.limit {
            let Some(element) = list.next_element()? else { return Ok(kept) };
            kept.push(element);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            if self.refuse_more {
                return Err(A::Error::custom("the list has more elements than were asked for"));
            }
        }
        Ok(kept)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Limited { limit: N, refuse_more: true, element: PhantomData }).map(Self)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for First<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Limited { limit: N, refuse_more: false, element: PhantomData }).map(Self)
    }
}
