//! A seeded simulation of the pipeline with a virtual clock.
