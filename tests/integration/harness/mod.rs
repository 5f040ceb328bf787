//! What the tests stand on: clients, a namespace each, the operator as a process, pods that act as told, and the audit log.

pub mod agent;
pub mod audit;
pub mod cluster;
pub mod gate;
pub mod normal;
pub mod operator;
pub mod proxy;
pub mod sandbox;
pub mod wait;

pub use agent::{Agent, saved};
pub use operator::Operator;
pub use sandbox::{Sandbox, in_sandbox};
