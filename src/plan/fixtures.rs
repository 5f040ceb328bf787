//! What the tests of several plans begin with.

use std::sync::Arc;

use serde_json::Value;

use crate::settings::Settings;

/// An installation without a default output.
pub fn settings() -> Settings {
    Settings {
        namespace: "finetune-system".into(),
        image: "operator:1".into(),
        image_pull_policy: "IfNotPresent".into(),
        report_url: "https://reports:443".into(),
        report_ca: "PEM".into(),
        default_output: None,
        settle_seconds: 10,
        stall_seconds: None,
        divergence_points: Some(3),
        grace_seconds: 600,
        queue_seconds: 30,
        gateway: None,
    }
}

/// An object written as JSON.
pub fn object<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}
