//! The REST gateway against a real API server, with tokens of ServiceAccounts that have the roles that ship.

mod api;
mod hostile;
mod identity;
mod live;
mod openai;
mod oxen;
mod page;
mod strongly;
