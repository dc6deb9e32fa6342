//! Raw configuration to checked configuration.
