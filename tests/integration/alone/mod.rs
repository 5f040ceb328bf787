//! Tests that have an operator of their own, the only one in the cluster: they kill it, or want it to be quiet.

mod absence;
mod crashes;
mod late;
mod namespaces;
mod peers;
mod quiet;
mod routes;
