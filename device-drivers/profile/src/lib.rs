//! Device profiles: what a device says, in which units, and what it sends instead of a value.
//!
//! A profile is a TOML file. Loading it checks everything that can be wrong with it at once
//! (unknown keys, unknown metrics, units that cannot be converted, registers outside their block)
//! and compiles it; afterwards decoding cannot fail, it can only say that a part was unreadable.
//!
//! - [`Profiles`]: the built-in profiles and those of the site.
//! - [`decode_publish`]: a JSON payload of a publishing device.
//! - [`decode_block`]: a block of registers of a polled device; [`decode_block_again`]: from a dead letter.

#![forbid(unsafe_code)]

mod document;
mod error;
mod json;
mod json_profile;
mod meaning;
mod number;
mod pointer;
mod profiles;
mod publish;
mod registers;
mod registers_profile;
mod time;

pub use error::{ProfileError, ProfileErrors};
pub use json_profile::PublishProfile;
pub use profiles::{Kind, PROFILE_FILE_BYTES_MAX, Profile, Profiles};
pub use publish::decode_publish;
pub use registers::{decode_block, decode_block_again};
pub use registers_profile::{BLOCK_REGISTERS_MAX, Block, IdentityCheck, PolledProfile, ReadFunction};
