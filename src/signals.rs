//! When the process is asked to stop.

use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

/// Returns once somebody asks the process to stop: SIGTERM, as the kubelet does, or Ctrl-C.
pub async fn asked_to_stop() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => drop(terminated.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = ctrl_c() => {}
    }
}
