//! The signed site file: its text, its check, its signature, and what the appliance makes of it.

#![forbid(unsafe_code)]
