//! Arbitrary bytes as a trainer's state, as a safetensors header and as any file of a checkpoint:
//! nothing may panic, and a verdict must agree with its reasons.
//!
//! Run with `cargo +nightly fuzz run checkpoint_files`.
#![no_main]

#[path = "../../src/checkpoint_files/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "only a part of the module is fuzzed"
)]
mod checkpoint_files;

use checkpoint_files::testing::{MemoryFs, write_adapter, write_model};
use checkpoint_files::{
    Manifest, RelPath, TrainerState, as_report, header_end, inspect, manifest_name, parse_header,
};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 10] = [
    "trainer_state.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "optimizer.pt",
    "latest",
    "samples.jsonl",
];

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else {
        return;
    };
    if let Ok(state) = TrainerState::parse(bytes) {
        let metrics = state.metrics_at(state.global_step);
        assert!(
            metrics
                .values()
                .all(|value| value.parse::<f64>().is_ok_and(f64::is_finite))
        );
        let _ = state.learned_end();
    }
    let _ = header_end(bytes, bytes.len() as u64);
    let _ = parse_header(bytes);
    let name = FILES[usize::from(which) % FILES.len()];
    for write in [write_adapter, write_model] {
        let fs = MemoryFs::new();
        write(&fs, "checkpoint-4", 4);
        fs.write(&format!("checkpoint-4/{name}"), bytes);
        let manifest = manifest_name("checkpoint-4");
        fs.write(&manifest, bytes);
        let (Ok(dir), Ok(manifest)) = (RelPath::parse("checkpoint-4"), RelPath::parse(&manifest))
        else {
            return;
        };
        let found = inspect(&fs, &dir, 4);
        assert_eq!(found.complete, found.reasons.is_empty());
        assert!(found.complete || !(found.resumable || found.servable));
        let _ = as_report(&found);
        if let Ok(manifest) = Manifest::read(&fs, &manifest) {
            let _ = manifest.check(&fs, &dir, true);
        }
    }
});
