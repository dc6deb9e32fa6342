//! JSON pointers (RFC 6901) of a profile, compiled into one tree that a message is walked with once.

/// Deepest pointer, in levels.
const POINTER_LEVELS_MAX: usize = 16;

/// One place in the tree.
#[derive(Debug, Default)]
pub(crate) struct Node {
    children: Vec<Child>,
    /// The text here is kept in this slot.
    pub(crate) slot: Option<usize>,
    /// The array here is walked, each element with this tree.
    pub(crate) each: Option<Box<Node>>,
}

#[derive(Debug)]
struct Child {
    key: Box<str>,
    index: Option<usize>,
    node: Node,
}

/// Why a pointer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PointerError {
    /// Something else in the profile reads the same place, one above it or one below it.
    #[error("reads what another key of the profile already reads")]
    Taken,
    /// A `~` that is not `~0` or `~1`.
    #[error("holds a '~' that is neither ~0 nor ~1")]
    Escape,
    /// More levels than [`POINTER_LEVELS_MAX`].
    #[error("goes deeper than {POINTER_LEVELS_MAX} levels")]
    TooDeep,
}

impl Node {
    /// The child of that key.
    pub(crate) fn child(&self, key: &str) -> Option<&Node> {
        self.children.iter().find(|child| *child.key == *key).map(|child| &child.node)
    }

    /// The child of that place in an array.
    pub(crate) fn element(&self, index: usize) -> Option<&Node> {
        self.children.iter().find(|child| child.index == Some(index)).map(|child| &child.node)
    }

    /// Whether nothing below is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.slot.is_none() && self.each.is_none()
    }

    /// Whether what is wanted stands below it.
    pub(crate) fn is_parent(&self) -> bool {
        !self.children.is_empty()
    }

    /// Marks the place of a pointer to be kept in a slot.
    pub(crate) fn keep(&mut self, pointer: &str, slot: usize) -> Result<(), PointerError> {
        let node = self.reach(pointer)?;
        node.slot = Some(slot);
        Ok(())
    }

    /// Marks the place of a pointer as the array whose elements are walked.
    pub(crate) fn walk_each(&mut self, pointer: &str, element: Node) -> Result<(), PointerError> {
        let node = self.reach(pointer)?;
        node.each = Some(Box::new(element));
        Ok(())
    }

    fn reach(&mut self, pointer: &str) -> Result<&mut Node, PointerError> {
        let mut node = self;
        let mut levels = 0;
        for token in pointer.split('/').skip(1) {
            levels += 1;
            if node.slot.is_some() || node.each.is_some() {
                return Err(PointerError::Taken);
            }
            if levels > POINTER_LEVELS_MAX {
                return Err(PointerError::TooDeep);
            }
            node = node.child_or_new(&unescaped(token)?);
        }
        if node.is_empty() { Ok(node) } else { Err(PointerError::Taken) }
    }

    fn child_or_new(&mut self, key: &str) -> &mut Node {
        let place = self.children.iter().position(|child| *child.key == *key);
        let place = place.unwrap_or_else(|| {
            let canonical = key == "0" || !key.starts_with('0');
            let index = key.parse().ok().filter(|_| canonical && key.bytes().all(|byte| byte.is_ascii_digit()));
            self.children.push(Child { key: key.into(), index, node: Node::default() });
            self.children.len() - 1
        });
        &mut self.children[place].node
    }
}

fn unescaped(token: &str) -> Result<String, PointerError> {
    let mut text = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        match (character, character == '~') {
            (_, true) => match characters.next() {
                Some('0') => text.push('~'),
                Some('1') => text.push('/'),
                _ => return Err(PointerError::Escape),
            },
            (character, false) => text.push(character),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_two_keys_would_read_is_refused() {
        let mut root = Node::default();
        root.keep("/a/b", 0).unwrap();
        assert_eq!(root.keep("/a/b", 1), Err(PointerError::Taken));
        assert_eq!(root.keep("/a", 1), Err(PointerError::Taken));
        assert_eq!(root.keep("/a/b/c", 1), Err(PointerError::Taken));
        assert_eq!(root.keep("/a/~2", 1), Err(PointerError::Escape));
        assert_eq!(root.keep(&"/x".repeat(17), 1), Err(PointerError::TooDeep));
        root.keep("/m~1n/~0", 1).unwrap();
        assert_eq!(root.child("m/n").unwrap().child("~").unwrap().slot, Some(1));
    }

    #[test]
    fn a_number_is_a_key_of_an_object_and_a_place_in_an_array() {
        let mut root = Node::default();
        root.keep("/v/2", 7).unwrap();
        root.keep("/v/02", 8).unwrap();
        let list = root.child("v").unwrap();
        assert_eq!(list.child("2").unwrap().slot, Some(7));
        assert_eq!(list.element(2).unwrap().slot, Some(7));
    }
}
