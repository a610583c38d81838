//! The host does what the services cannot do themselves. It listens, runs the launcher and the
//! tasks as processes, keeps time, chooses faults and writes the log.

pub mod cli;
pub(crate) mod environment;
pub(crate) mod faults;
pub(crate) mod sandbox;
pub(crate) mod settings;

mod admin;
mod children;
mod demo;
mod dispatch;
mod effects;
mod exec;
mod folder;
mod functions;
mod holds;
mod issuers;
mod launchers;
mod log;
mod own;
mod portal;
mod processes;
mod runtime;
mod server;
mod shared;
mod targets;
mod tasks;
mod tls;

pub use shared::ThirdParty;
pub use targets::Given;
