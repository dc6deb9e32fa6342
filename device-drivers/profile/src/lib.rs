//! Device profiles and the decoding of what a device says.
