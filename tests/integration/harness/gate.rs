//! A TCP way to a server that can be shut: open connections are cut, new ones are hung up on.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A way to one server.
pub struct Gate {
    /// The port it listens on.
    pub port: u16,
    shut: watch::Sender<bool>,
    turned_away: Arc<Mutex<Vec<Instant>>>,
    keeper: JoinHandle<()>,
}

impl Gate {
    /// An open gate.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (shut, seen) = watch::channel(false);
        let turned_away = Arc::<Mutex<Vec<Instant>>>::default();
        let keeper = tokio::spawn(keep(listener, server, seen, Arc::clone(&turned_away)));
        Self { port, shut, turned_away, keeper }
    }

    /// Shuts it, which cuts every connection, or opens it.
    pub fn shut(&self, shut: bool) {
        self.shut.send_replace(shut);
    }

    /// When it hung up on whom.
    pub fn turned_away(&self) -> Vec<Instant> {
        self.turned_away.lock().unwrap().clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(listener: TcpListener, server: SocketAddr, shut: watch::Receiver<bool>, turned_away: Arc<Mutex<Vec<Instant>>>) {
    loop {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut shut = shut.clone();
        if *shut.borrow_and_update() {
            turned_away.lock().unwrap().push(Instant::now());
            continue;
        }
        tokio::spawn(async move {
            let mut onward = TcpStream::connect(server).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut from, &mut onward) => {}
                _ = shut.changed() => {}
            }
        });
    }
}
