//! Names that people give: devices, destinations, gateways.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name in bytes. Names stand in topics, client ids, certificate subjects and file names.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a name must not be empty")]
    Empty,
    /// The name has more than [`NAME_BYTES_MAX`] bytes.
    #[error("a name has at most {NAME_BYTES_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// The name holds a character that a topic, certificate or file name cannot carry.
    #[error("a name may hold a-z, A-Z, 0-9, '.', '_' and '-', and starts with a letter or digit; found {0:?}")]
    Character(char),
}

pub(crate) fn checked(name: &str) -> Result<Arc<str>, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    for (index, character) in name.chars().enumerate() {
        let letter = character.is_ascii_alphanumeric();
        let mark = matches!(character, '.' | '_' | '-') && index > 0;
        if !letter && !mark {
            return Err(NameError::Character(character));
        }
    }
    Ok(Arc::from(name))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name of 1 to [`NAME_BYTES_MAX`] characters of `[A-Za-z0-9._-]`.
            ///
            /// # Errors
            /// Says which rule the name breaks.
            pub fn new(name: &str) -> Result<Self, NameError> {
                checked(name).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

name! {
    /// The key of a device, unique within its [`crate::DeviceNamespace`] and the same on whichever gateway
    /// of it the device reports to. It is also its MQTT client id, the second level of its topics and the
    /// common name of its certificate.
    DeviceId
}
name! {
    /// The name of one place that readings are delivered to.
    DestinationId
}
name! {
    /// The name of this gateway.
    GatewayId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_escape_a_topic_or_a_path_is_refused() {
        for bad in ["", "a/b", "a+b", "#", "../x", ".hidden", "-x", "a b", "ä", &"x".repeat(65)] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(DeviceId::new("monitor-07.b").unwrap().as_str(), "monitor-07.b");
    }
}
