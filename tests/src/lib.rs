//! What the tests of the whole share: the conformance vectors.

pub mod vectors;
