//! Batches to FHIR bundles and answers to outcomes.
