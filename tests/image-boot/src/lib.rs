//! Boots the production image in a virtual machine and tests it from outside.

#![forbid(unsafe_code)]
