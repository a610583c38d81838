//! Translates HTTP requests into typed parameters, and answers into HTTP responses, in the protocol
//! of each service.
//!
//! This layer knows AWS's formats, but not what any operation does.

pub(crate) mod answer;
pub(crate) mod error;
pub(crate) mod parameters;
pub(crate) mod request;
pub(crate) mod service;
pub(crate) mod times;
