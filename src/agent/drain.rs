//! Waits until nobody is connected to the server any more, so that it ends only after it has answered. Connections are counted in the kernel's
//! table, which all containers of a pod share: that works for every server.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::protocol::DRAIN_SECONDS;

/// For so long Services may still send new connections to a pod that goes.
const UNTIL_UNLISTED: Duration = Duration::from_secs(5);
/// Time between two looks; the kernel tells nobody when a connection ends.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// State of a connection both sides of which may still speak.
const ESTABLISHED: &str = "01";

/// Returns once nobody from outside the pod is connected to `port`, or the time for that has passed.
pub async fn drained(port: u16) {
    drained_after(UNTIL_UNLISTED, port).await;
}

async fn drained_after(pause: Duration, port: u16) {
    let begin = Instant::now();
    sleep(pause).await;
    while begin.elapsed() < Duration::from_secs(DRAIN_SECONDS) && connections(port).await > 0 {
        sleep(LOOK_EVERY).await;
    }
    let left = connections(port).await;
    tracing::info!(seconds = begin.elapsed().as_secs(), left, "the server may end");
}

async fn connections(port: u16) -> usize {
    let mut count = 0;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        count += established(&tokio::fs::read_to_string(table).await.unwrap_or_default(), port);
    }
    count
}

/// Connections to `port` in a table of the kernel, but for those from within the pod.
fn established(table: &str, port: u16) -> usize {
    let is_counted = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let local_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        Some(state == ESTABLISHED && local_port == port && !is_loopback(remote.rsplit_once(':')?.0))
    };
    table.lines().filter(|line| is_counted(line) == Some(true)).count()
}

/// Whether an address, as the kernel writes it (words in the byte order of the machine), is the pod itself.
fn is_loopback(address: &str) -> bool {
    let last_word = address.get(address.len().saturating_sub(8)..).unwrap_or(address);
    let is_mapped = address.len() == 8 || address.starts_with("0000000000000000FFFF0000");
    is_mapped && last_word.ends_with("7F") || address == "00000000000000000000000001000000"
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// An address of this machine by which a connection looks as if it came from elsewhere; none where there is no network.
    async fn outside() -> Option<std::net::IpAddr> {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).await.ok()?;
        socket.connect(("192.0.2.1", 9)).await.ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
    }

    /// What a client gets of a server that is ended while it thinks, at once or once it is drained.
    async fn answer_of_one_that_goes(address: std::net::IpAddr, drains: bool) -> String {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            client.read_u8().await.unwrap();
            sleep(2 * LOOK_EVERY).await;
            client.write_all(b"Paris").await.unwrap();
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_u8(b'?').await.unwrap();
        if drains {
            drained_after(Duration::ZERO, address.port()).await;
        }
        server.abort();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn what_is_being_answered_is_lost_without_the_drain_and_with_it_is_not() {
        let Some(address) = outside().await else {
            eprintln!("SKIPPED: this machine has no address but the loopback");
            return;
        };
        assert_eq!(answer_of_one_that_goes(address, false).await, "");
        assert_eq!(answer_of_one_that_goes(address, true).await, "Paris");
    }

    #[test]
    fn what_comes_from_outside_and_is_open_is_counted() {
        let table = "  sl  local_address rem_address   st tx_queue
   0: 00000000:1F40 00000000:0000 0A 00000000:00000000
   1: 0500F40A:1F40 0100F40A:D431 01 00000000:00000000
   2: 0500F40A:1F40 0200F40A:D432 06 00000000:00000000
   3: 0100007F:1F40 0100007F:D433 01 00000000:00000000
   4: 0500F40A:D434 0700F40A:1F40 01 00000000:00000000
   5: 0000000000000000FFFF00000500F40A:1F40 0000000000000000FFFF00000300F40A:D435 01
   6: 0000000000000000FFFF00000100007F:1F40 0000000000000000FFFF00000100007F:D436 01
   7: 00000000000000000000000001000000:1F40 00000000000000000000000001000000:D437 01
   8: 0000000000000000FFFF00000500F40A:1F40 000080FE00000000FFEF86527F000010:D438 01
 garbage";
        assert_eq!(established(table, 8000), 3);
        assert_eq!(established(table, 8001), 0);
        assert_eq!(established("", 8000), 0);
    }
}
