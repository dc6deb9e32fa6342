//! The endpoint as devices meet it: real clients, and clients that no library would be.
//!
//! Each module is `cfg(test)`, so that the lints know helpers here for what they are.

#[cfg(test)]
mod acknowledgement;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod rig;
