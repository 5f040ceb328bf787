//! The rules of `inspect`: what is whole passes, every damage gets its own reason.

use proptest::prelude::*;

use super::super::testing::{MemoryFs, safetensors, torch_file, trainer_state, write_adapter, write_model};
use super::super::{Format, Reason, as_report, inspect, inspect_weights, limits};
use super::{DIR, codes, look, path};

type Damage = fn(&MemoryFs);

fn at(name: &str) -> String {
    format!("{DIR}/{name}")
}

fn adapter() -> MemoryFs {
    let fs = MemoryFs::new();
    write_adapter(&fs, DIR, 4);
    fs
}

fn model() -> MemoryFs {
    let fs = MemoryFs::new();
    write_model(&fs, DIR, 4);
    fs
}

const SHARD: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn a_whole_adapter_is_complete_and_resumable_with_its_facts() {
    let found = look(&adapter());
    assert_eq!(found.reasons, []);
    assert!(found.complete && found.resumable && found.servable);
    assert_eq!((found.format, found.step, found.file_count), (Some(Format::Adapter), 4, 7));
    let facts = found.adapter.unwrap();
    assert_eq!(facts.rank, Some(32), "the greatest of r and rank_pattern");
    assert_eq!(facts.target_modules, ["q_proj", "v_proj"]);
    assert_eq!(facts.base_model.as_deref(), Some("org/base"));
    assert_eq!(found.metrics["loss"], "0.85");
    assert_eq!(found.metrics["learning_rate"], "0.0002");
    assert!(!found.metrics.contains_key("grad_norm"), "NaN is left out");
}

#[test]
fn a_whole_sharded_model_is_complete_and_reported() {
    let found = look(&model());
    assert!(found.complete && found.resumable && found.servable, "{:?}", found.reasons);
    let report = as_report(&found);
    let keys: Vec<_> = report.as_object().unwrap().keys().cloned().collect();
    let expected = ["complete", "format", "metrics", "reasons", "resumable", "sizeBytes", "step"];
    assert_eq!(keys, expected);
    assert_eq!(report["format"], "Model");
    assert_eq!(report["sizeBytes"], found.size_bytes);
    assert_eq!(report["reasons"], serde_json::json!([]));
}

#[test]
fn every_damage_to_an_adapter_has_its_own_reason() {
    let damages: [(&str, Damage); 15] = [
        ("unfinished", |fs| {
            fs.write(&at("checkpoint-is-incomplete.txt"), "");
        }),
        ("unfinished", |fs| fs.write(&at(".incomplete"), "")),
        ("missing-file", |fs| fs.remove(&at("trainer_state.json"))),
        ("bad-json", |fs| {
            fs.edit(&at("trainer_state.json"), |b| b.truncate(100));
        }),
        ("bad-json", |fs| fs.write(&at("trainer_state.json"), "[4]")),
        ("wrong-step", |fs| {
            fs.write(&at("trainer_state.json"), trainer_state(3, 10));
        }),
        ("bad-json", |fs| {
            fs.edit(&at("adapter_config.json"), |b| b.truncate(20));
        }),
        ("missing-file", |fs| fs.remove(&at("adapter_config.json"))),
        ("no-weights", |fs| {
            fs.remove(&at("adapter_model.safetensors"));
        }),
        ("bad-safetensors", |fs| {
            fs.write(&at("adapter_model.safetensors"), "");
        }),
        ("bad-safetensors", |fs| {
            fs.edit(&at("adapter_model.safetensors"), |b| b.truncate(40));
        }),
        ("link", |fs| fs.link(&at("adapter_model.safetensors"))),
        ("link", |fs| fs.link(&at("runs"))),
        ("special-file", |fs| fs.pipe(&at("pipe"))),
        ("unreadable", |fs| fs.fail(&at("trainer_state.json"))),
    ];
    for (number, (code, damage)) in damages.into_iter().enumerate() {
        let fs = adapter();
        damage(&fs);
        let found = look(&fs);
        assert!(codes(&found).contains(&code), "{number} {code}: {:?}", found.reasons);
        assert!(!found.complete && !found.resumable && !found.servable, "{number} {code}");
    }
}

#[test]
fn every_damage_to_a_model_has_its_own_reason() {
    let damages: [(&str, Damage); 10] = [
        ("missing-file", |fs| fs.remove(&at(SHARD))),
        ("missing-file", |fs| fs.remove(&at(INDEX))),
        ("bad-safetensors", |fs| fs.edit(&at(SHARD), |b| b.push(0))),
        ("bad-index", |fs| {
            fs.write(&at(SHARD), safetensors(&["another"]));
        }),
        ("bad-index", |fs| {
            fs.write(&at(INDEX), r#"{"weight_map": {}}"#);
        }),
        ("bad-index", |fs| {
            fs.write(&at(INDEX), r#"{"weight_map": {"a": "../../x.safetensors"}}"#);
        }),
        ("bad-index", |fs| {
            fs.write(&at(INDEX), r#"{"weight_map": {"a": "/etc/passwd"}}"#);
        }),
        ("bad-json", |fs| {
            fs.write(&at(INDEX), r#"{"weight_map": {"a": 1}}"#);
        }),
        ("bad-json", |fs| fs.write(&at(INDEX), "{}")),
        ("bad-json", |fs| fs.write(&at("config.json"), "{")),
    ];
    for (number, (code, damage)) in damages.into_iter().enumerate() {
        let fs = model();
        damage(&fs);
        let found = look(&fs);
        assert!(codes(&found).contains(&code), "{number} {code}: {:?}", found.reasons);
        assert!(!found.complete, "{number} {code}");
    }
}

#[test]
fn reasons_name_the_file_from_the_root() {
    let fs = model();
    fs.remove(&at(SHARD));
    let texts: Vec<_> = look(&fs).reasons.iter().map(Reason::render).collect();
    assert_eq!(texts, [format!("missing-file: {DIR}/{SHARD} is missing")]);
}

#[test]
fn torch_weights_must_be_whole_archives() {
    let whole = torch_file(b"tensors");
    let cut = &whole[..whole.len() - 1];
    let mut moved = whole.clone();
    moved.splice(4..4, *b"inserted");
    let cases: [(&[u8], &[&str]); 5] = [
        (&whole, &[]),
        (cut, &["bad-torch-file"]),
        (&moved, &["bad-torch-file"]),
        (b"", &["empty-file"]),
        (b"\x80\x02legacy", &["bad-torch-file"]),
    ];
    for (bytes, expected) in cases {
        let fs = adapter();
        fs.remove(&at("adapter_model.safetensors"));
        fs.write(&at("adapter_model.bin"), bytes);
        assert_eq!(codes(&look(&fs)), expected);
    }
}

#[test]
fn large_archives_keep_their_directory_behind_a_second_record() {
    let small = torch_file(b"tensors");
    let (body, end) = small.split_at(small.len() - 22);
    let field = |at: usize| u64::from(u32::from_le_bytes(end[at..at + 4].try_into().unwrap()));
    let mut record = b"PK\x06\x06".to_vec();
    record.resize(40, 0);
    record.extend(field(12).to_le_bytes());
    record.extend(field(16).to_le_bytes());
    let locator = [b"PK\x06\x07\0\0\0\0", &(body.len() as u64).to_le_bytes()[..], &[1, 0, 0, 0]];
    let mut large_end = end.to_vec();
    large_end[8..20].fill(0xff);
    let fs = adapter();
    fs.remove(&at("adapter_model.safetensors"));
    fs.write(&at("adapter_model.bin"), [body, &record, &locator.concat(), &large_end].concat());
    assert_eq!(codes(&look(&fs)), [""; 0]);
    fs.write(&at("adapter_model.bin"), [body, &locator.concat(), &large_end].concat());
    assert_eq!(codes(&look(&fs)), ["bad-torch-file"]);
}

#[test]
fn what_cannot_be_resumed_is_still_complete() {
    let damages: [(&[&str], Damage); 6] = [
        (&["no-optimizer"], |fs| fs.remove(&at("optimizer.pt"))),
        (&["no-scheduler"], |fs| fs.remove(&at("scheduler.pt"))),
        (&["empty-file"], |fs| fs.write(&at("optimizer.pt"), "")),
        (&["bad-torch-file"], |fs| {
            fs.edit(&at("optimizer.pt"), |b| b.truncate(60));
        }),
        (&["bad-torch-file"], |fs| {
            fs.write(&at("scheduler.pt"), [0; 64]);
        }),
        (&["no-optimizer", "no-scheduler"], |fs| {
            fs.remove(&at("optimizer.pt"));
            fs.remove(&at("scheduler.pt"));
        }),
    ];
    for (expected, damage) in damages {
        let fs = adapter();
        damage(&fs);
        let found = look(&fs);
        let notes: Vec<_> = found.notes.iter().map(Reason::code).collect();
        assert_eq!(notes, expected);
        assert!(found.complete && found.servable && !found.resumable);
    }
    let fs = adapter();
    fs.remove(&at("optimizer.pt"));
    fs.write(&at("optimizer.bin"), torch_file(b"whole optimizer"));
    assert!(look(&fs).resumable);
}

#[test]
fn distributed_shards_need_every_file_and_their_metadata() {
    let fs = MemoryFs::new();
    fs.write(&at("trainer_state.json"), trainer_state(4, 10));
    fs.write(&at("scheduler.pt"), torch_file(b""));
    for dir in ["pytorch_model_fsdp_0", "optimizer_0"] {
        fs.write(&at(&format!("{dir}/__0_0.distcp")), torch_file(b"shard"));
        fs.write(&at(&format!("{dir}/.metadata")), "metadata");
    }
    let found = look(&fs);
    assert!(found.complete && found.resumable, "{:?} {:?}", found.reasons, found.notes);
    assert!(!found.servable, "a server cannot load a trainer's shards");
    fs.write(&at("pytorch_model_fsdp_0/__0_0.distcp"), "");
    assert_eq!(codes(&look(&fs)), ["empty-file"]);
    fs.remove(&at("pytorch_model_fsdp_0/__0_0.distcp"));
    fs.remove(&at("pytorch_model_fsdp_0/.metadata"));
    assert_eq!(codes(&look(&fs)), ["missing-file"; 2], "an empty directory still says what it was");
}

#[test]
fn deepspeed_needs_the_directory_that_latest_names() {
    let fs = MemoryFs::new();
    fs.write(&at("trainer_state.json"), trainer_state(4, 10));
    fs.write(&at("scheduler.pt"), torch_file(b""));
    fs.write(&at("global_step4/mp_rank_00_model_states.pt"), torch_file(b"model"));
    fs.write(&at("latest"), "global_step4\n");
    let found = look(&fs);
    assert!(found.complete && found.resumable && !found.servable, "{:?}", found.reasons);
    fs.write(&at("latest"), "../other");
    assert_eq!(codes(&look(&fs)), ["bad-index"]);
    fs.write(&at("latest"), "global_step3");
    assert_eq!(codes(&look(&fs)), ["missing-file"]);
    fs.remove(&at("latest"));
    assert_eq!(codes(&look(&fs)), ["missing-file"]);
}

#[test]
fn a_named_adapter_lies_in_a_directory_of_its_name() {
    let fs = adapter();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs.remove(&at(name));
    }
    fs.write(&at("policy/adapter_config.json"), r#"{"r": 4, "target_modules": "all-linear"}"#);
    fs.write(&at("policy/adapter_model.safetensors"), safetensors(&["a"]));
    let found = look(&fs);
    assert_eq!((found.complete, found.format), (true, Some(Format::Adapter)));
    assert_eq!(found.adapter.unwrap().target_modules, ["all-linear"]);
}

#[test]
fn foreign_weights_need_no_trainer_state() {
    let fs = model();
    fs.remove(&at("trainer_state.json"));
    assert!(!look(&fs).complete);
    assert!(inspect_weights(&fs, &path(DIR), 4).complete);
    fs.write(&at("trainer_state.json"), trainer_state(3, 10));
    assert!(inspect_weights(&fs, &path(DIR), 4).complete);
    fs.write(&at("trainer_state.json"), "{");
    assert!(!inspect_weights(&fs, &path(DIR), 4).complete);
}

#[test]
fn temporary_missing_and_linked_directories_are_refused() {
    let fs = MemoryFs::new();
    write_adapter(&fs, "out/tmp-checkpoint-4", 4);
    fs.link("out/checkpoint-5");
    let found = inspect(&fs, &path("out/tmp-checkpoint-4"), 4);
    assert_eq!(codes(&found), ["temporary"]);
    assert_eq!(codes(&inspect(&fs, &path("out/checkpoint-5"), 5)), ["link"]);
    assert_eq!(codes(&inspect(&fs, &path("out/checkpoint-6"), 6)), ["vanished"]);
}

#[test]
fn a_checkpoint_that_vanishes_at_any_moment_says_just_that() {
    let calls = {
        let fs = model();
        look(&fs);
        fs.calls()
    };
    for after in 0..calls {
        let fs = model();
        fs.vanish_after(after, DIR);
        let found = look(&fs);
        // Removed after the last file was needed, nothing was missed.
        assert!(found.complete || codes(&found) == ["vanished"], "{after}: {:?}", found.reasons);
        let fs = model();
        fs.vanish_after(after, &at(SHARD));
        let found = look(&fs);
        assert!(found.complete || !codes(&found).contains(&"vanished"), "{:?}", found.reasons);
    }
}

#[test]
fn what_is_too_many_too_deep_or_too_large_is_refused() {
    let fs = adapter();
    for number in 0..limits::ENTRIES {
        fs.write(&at(&format!("many/{number}")), "");
    }
    assert_eq!(codes(&look(&fs)), ["too-many-files"]);
    let fs = adapter();
    fs.write(&at("1/2/3/4/5/6/7/8/file"), "");
    assert_eq!(codes(&look(&fs)), [""; 0]);
    fs.write(&at("1/2/3/4/5/6/7/8/9/file"), "");
    assert_eq!(codes(&look(&fs)), ["too-deep"]);
    let fs = adapter();
    let size = usize::try_from(limits::JSON_BYTES).unwrap() + 1;
    fs.write(&at("adapter_config.json"), vec![b' '; size]);
    assert_eq!(codes(&look(&fs)), ["too-large"]);
    let fs = adapter();
    fs.write(&at("line\nbreak"), "");
    assert_eq!(codes(&look(&fs)), ["strange-name"]);
}

#[test]
fn safetensors_offsets_must_be_sane() {
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let tensor = |begin: u64, end: u64| format!(r#"{{"dtype": "U8", "shape": [4], "data_offsets": [{begin}, {end}]}}"#);
    let one = |begin, end| format!(r#"{{"a": {}}}"#, tensor(begin, end));
    let two = |a, b| format!(r#"{{"a": {}, "b": {}}}"#, tensor(0, a), tensor(b, 8));
    let cases: Vec<(Vec<u8>, bool)> = vec![
        (file(&one(0, 4), 4), true),
        (file(&format!("{}   ", one(0, 4)), 4), true),
        (file(r#"{"__metadata__": {"format": "pt"}}"#, 0), true),
        (file(&two(4, 4), 8), true),
        (file(&two(4, 5), 8), false),
        (file(&two(4, 3), 8), false),
        (file(&one(4, 0), 4), false),
        (file(&one(0, u64::MAX), 4), false),
        (file(&one(u64::MAX - 1, u64::MAX), 4), false),
        (file(r#"{"a": {"data_offsets": [-1, 4]}}"#, 4), false),
        (file("[]", 0), false),
        (vec![0; 7], false),
        (100_000_001_u64.to_le_bytes().to_vec(), false),
        (u64::MAX.to_le_bytes().to_vec(), false),
    ];
    for (bytes, whole) in cases {
        let fs = adapter();
        fs.write(&at("adapter_model.safetensors"), &bytes);
        let found = look(&fs);
        assert_eq!(found.complete, whole, "{:?}: {}", found.reasons, bytes.escape_ascii());
    }
}

#[test]
fn what_was_saved_after_the_run_had_diverged_is_not_complete() {
    let nan = |fs: &MemoryFs, name: &str| {
        fs.edit(&at(name), |whole| {
            let from = whole.len() - 4;
            whole.splice(from.., f32::NAN.to_le_bytes());
        });
    };
    let fs = model();
    nan(&fs, SHARD);
    let found = look(&fs);
    assert_eq!(codes(&found), ["weights-lost"]);
    assert!(!found.complete && !found.resumable && found.reasons[0].is_divergence());
    assert!(inspect_weights(&fs, &path(DIR), 4).complete, "weights of others are theirs to judge");
    let fs = adapter();
    nan(&fs, "adapter_model.safetensors");
    assert!(look(&fs).complete, "one tensor of two");
    let state = r#"{"global_step": 4, "log_history": [{"step": 4, "loss": NaN}]}"#;
    fs.write(&at("trainer_state.json"), state);
    let found = look(&fs);
    assert_eq!(codes(&found), ["loss-lost"]);
    assert!(found.reasons[0].to_string().contains("since step 4"), "{:?}", found.reasons);
}

#[test]
fn samples_are_bounded_and_cut_between_characters() {
    let fs = adapter();
    let lines = format!("\n{}\n", "é".repeat(2000)).repeat(40);
    fs.write(&at("samples.jsonl"), lines);
    let found = look(&fs);
    assert_eq!(found.samples.len(), limits::SAMPLES);
    assert_eq!(found.samples[0], "é".repeat(512));
    fs.write(&at("samples.jsonl"), b"\xff\xfe{}");
    assert_eq!(look(&fs).samples, ["\u{fffd}\u{fffd}{}"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn inspecting_arbitrary_bytes_in_any_file_never_panics(
        which in 0_usize..9,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        from in 0_usize..200,
    ) {
        for make in [adapter, model] {
            let fs = make();
            let names = [
                "trainer_state.json", "adapter_config.json", "adapter_model.safetensors",
                "adapter_model.bin", "config.json", INDEX, SHARD, "optimizer.pt", "latest",
            ];
            let file = at(names[which]);
            fs.edit(&file, |whole| {
                let from = from.min(whole.len());
                let to = (from + bytes.len()).min(whole.len());
                whole.splice(from..to, bytes.iter().copied());
            });
            let found = look(&fs);
            prop_assert_eq!(found.complete, found.reasons.is_empty());
            fs.write(&file, &bytes);
            let found = look(&fs);
            prop_assert_eq!(found.complete, found.reasons.is_empty());
        }
    }
}
