//! Whole checkpoints, built in memory byte by byte.

use super::MemoryFs;

/// The bytes of a safetensors file with one tensor of each name, of 4 bytes each.
#[must_use]
pub fn safetensors(tensors: &[&str]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    for (at, name) in tensors.iter().enumerate() {
        let offsets = [at * 4, at * 4 + 4];
        let tensor = serde_json::json!({"dtype": "F32", "shape": [1], "data_offsets": offsets});
        header.insert((*name).to_owned(), tensor);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![7; tensors.len() * 4]);
    bytes
}

/// The bytes of a zip archive with one stored entry, as `torch.save` writes them.
#[must_use]
pub fn torch_file(content: &[u8]) -> Vec<u8> {
    let name = b"archive/data.pkl";
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes();
    let name_length = u16::try_from(name.len()).unwrap_or(0).to_le_bytes();
    // Versions, flags, times and checksum are zero; sizes are the stored content's.
    let common = [&[0; 12][..], &[0; 2], &length, &length, &name_length, &[0; 2]].concat();
    let entry = [b"PK\x03\x04", &common[..], name, content].concat();
    let directory = [b"PK\x01\x02\0\0", &common[..], &[0; 14], name].concat();
    let count = [1, 0, 1, 0];
    let place = [directory.len(), entry.len()].map(|n| u32::try_from(n).unwrap_or(0).to_le_bytes());
    let end = [b"PK\x05\x06\0\0\0\0", &count[..], &place[0], &place[1], &[0; 2]].concat();
    [entry, directory, end].concat()
}

/// The text of a `trainer_state.json` at `step` of `max_steps`.
#[must_use]
pub fn trainer_state(step: u64, max_steps: u64) -> String {
    format!(
        r#"{{"epoch": 1.0, "global_step": {step}, "max_steps": {max_steps}, "num_train_epochs": 3,
  "num_input_tokens_seen": 0, "log_history": [
    {{"epoch": 0.5, "grad_norm": NaN, "learning_rate": 0.0002, "loss": 0.85, "step": {step}}},
    {{"epoch": 0.5, "eval_loss": 0.91, "eval_runtime": 22.13, "step": {step}}}],
  "stateful_callbacks": {{"TrainerControl": {{"args": {{"should_training_stop": {stop}}}}}}}
}}
"#,
        stop = step >= max_steps
    )
}

fn write_state(fs: &MemoryFs, dir: &str, step: u64) {
    fs.write(&format!("{dir}/trainer_state.json"), trainer_state(step, 10));
    for name in ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"] {
        fs.write(&format!("{dir}/{name}"), torch_file(name.as_bytes()));
    }
}

/// Writes a whole adapter checkpoint.
pub fn write_adapter(fs: &MemoryFs, dir: &str, step: u64) {
    let config = r#"{"peft_type": "LORA", "r": 8, "rank_pattern": {"q_proj": 32},
        "target_modules": ["v_proj", "q_proj"], "modules_to_save": null,
        "base_model_name_or_path": "org/base"}"#;
    fs.write(&format!("{dir}/adapter_config.json"), config);
    fs.write(&format!("{dir}/adapter_model.safetensors"), safetensors(&["a", "b"]));
    write_state(fs, dir, step);
}

/// Writes a whole checkpoint of a model in two shards.
pub fn write_model(fs: &MemoryFs, dir: &str, step: u64) {
    fs.write(&format!("{dir}/config.json"), r#"{"model_type": "llama"}"#);
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    fs.write(&format!("{dir}/{}", shards[0]), safetensors(&["a", "b"]));
    fs.write(&format!("{dir}/{}", shards[1]), safetensors(&["c"]));
    let map = serde_json::json!({"a": shards[0], "b": shards[0], "c": shards[1]});
    let index = serde_json::json!({"metadata": {"total_size": 12}, "weight_map": map});
    fs.write(&format!("{dir}/model.safetensors.index.json"), index.to_string());
    write_state(fs, dir, step);
}
