//! The REST gateway against a real API server, with tokens of ServiceAccounts that have the roles that ship.

mod api;
mod document;
mod hostile;
mod identity;
mod live;
mod mutate;
mod mutations;
mod openai;
mod oxen;
mod page;
mod schemathesis;
mod strongly;
