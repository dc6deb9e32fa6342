//! What the image, its tools and its tests agree on: partitions, slots, file names, state words.
//!
//! Nothing here touches a disk. Everything that is written on one side and read on another (a
//! partition's label by the build and by the first program of the boot, a state word by the
//! appliance and by the technician's manual) stands here once.

#![forbid(unsafe_code)]

pub mod account;
pub mod entry;
pub mod fact;
pub mod partition;
pub mod path;
pub mod port;
pub mod rejection;
pub mod slot;
pub mod state;
pub mod stick;
pub mod version;

pub use entry::BootEntry;
pub use rejection::Rejection;
pub use slot::Slot;
pub use state::StateWord;
pub use version::Version;
