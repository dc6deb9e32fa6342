//! The journal side against its promises: power cuts, damage, a model, a full disk.

mod basics;
mod damage;
mod missing;
mod model;
mod power_cut;
mod room;
mod second;
mod unreadable;
