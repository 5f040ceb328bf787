#![allow(clippy::needless_pass_by_value, reason = "test data reads better by value")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::plan::fixtures::object;

fn model(spec: Value) -> std::sync::Arc<BaseModel> {
    let mut whole =
        json!({"source": {"huggingFace": {"repo": "org/m"}}, "tokensPerSecond": {"gpu": 1000, "cpu": 10, "broken": 0}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(json!({"apiVersion": "finetune.dev/v1alpha1", "kind": "BaseModel", "metadata": {"name": "m"}, "spec": whole}))
}

fn profile(name: &str, gpus: i32, price: Option<&str>) -> std::sync::Arc<HardwareProfile> {
    let mut spec = json!({"gpu": {"count": gpus}});
    if let Some(price) = price {
        spec["costPerHour"] = price.into();
    }
    object(json!({"apiVersion": "finetune.dev/v1alpha1", "kind": "HardwareProfile", "metadata": {"name": name}, "spec": spec}))
}

/// A run of `m` on `gpu` with two GPUs that has succeeded; `status` is laid over its status.
fn run(status: Value) -> FineTune {
    let mut whole = json!({
        "phase": "Succeeded", "attempt": 1,
        "resolved": {"runtime": "r", "hardware": "gpu", "image": "i", "output": "o", "parametersDigest": "d", "gpus": 2, "nodes": 1},
        "progress": {"attempt": 1, "trainedTokens": 4_000_000},
        "cost": {"perHour": "1", "gpuSeconds": 2000, "seconds": 1000, "accrued": "1", "currency": "USD"},
    });
    whole.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
    let run = json!({
        "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": "a"},
        "spec": {"baseModel": {"name": "m"}, "dataset": {"name": "d"}}, "status": whole,
    });
    serde_json::from_value(run).unwrap()
}

fn training<'a>(base_model: &'a BaseModel, hardware: &'a HardwareProfile, dataset: DatasetSize) -> Training<'a> {
    Training { base_model, hardware, nodes: 1, dataset, epochs: Decimal::ONE }
}

#[test]
fn without_finished_runs_the_base_model_says_how_fast_it_is() {
    let (model, hardware) = (model(json!({})), profile("gpu", 2, Some("3.60")));
    let wanted = Training { nodes: 3, epochs: Decimal::from(3), ..training(&model, &hardware, DatasetSize::Tokens(7_200_000)) };
    let found = estimate(&wanted, []).unwrap();
    assert_eq!((found.tokens, found.seconds, found.source), (21_600_000, 3600, Source::BaseModel));
    assert_eq!((found.cost, found.currency.as_str()), (Some(Decimal::new(108, 1)), "USD"), "three nodes for an hour at 3.60");
    let expected = "21600000 tokens to train: 7200000 tokens, 3 epochs; 1000 tokens a second on each GPU, 3 nodes with 2 GPUs each: \
        spec.tokensPerSecond of BaseModel m for gpu";
    assert_eq!(found.explanation, expected);
}

#[test]
fn finished_runs_know_better_and_the_median_of_them_counts() {
    let (model, hardware) = (model(json!({})), profile("gpu", 1, Some("3.60")));
    let of_speed = |speed: i64| run(json!({"progress": {"attempt": 1, "trainedTokens": 2000 * speed}}));
    let wanted = training(&model, &hardware, DatasetSize::Tokens(1_000_000));
    for (speeds, seconds) in [(vec![500], 2000), (vec![1, 500, 4000], 2000), (vec![4000, 500], 2000)] {
        let runs: Vec<_> = speeds.iter().map(|speed| of_speed(*speed)).collect();
        let found = estimate(&wanted, &runs).unwrap();
        assert_eq!((found.seconds, found.source), (seconds, Source::FinishedRuns { count: runs.len() }), "{speeds:?}");
        assert!(found.explanation.ends_with(&format!("the median of {} finished runs of m on gpu", runs.len())));
    }
}

#[test]
fn only_runs_that_are_alike_and_whole_are_asked() {
    let (model, hardware) = (model(json!({})), profile("gpu", 1, None));
    let mut of_another_model = run(json!({}));
    of_another_model.spec.base_model.name = "other".into();
    let mut on_another_profile = run(json!({}));
    on_another_profile.status.as_mut().unwrap().resolved.as_mut().unwrap().hardware = "other".into();
    let mut without_time = run(json!({}));
    without_time.status.as_mut().unwrap().cost.as_mut().unwrap().gpu_seconds = 0;
    let mut without_status = run(json!({}));
    without_status.status = None;
    let useless = vec![
        of_another_model,
        on_another_profile,
        without_time,
        without_status,
        run(json!({"phase": "Failed"})),
        run(json!({"attempt": 2})),
        run(json!({"progress": {"attempt": 1}})),
    ];
    let found = estimate(&training(&model, &hardware, DatasetSize::Tokens(1)), &useless).unwrap();
    assert_eq!((found.source, found.cost), (Source::BaseModel, None), "and without a price there is no cost");
}

#[test]
fn nodes_without_gpus_are_as_fast_as_they_were() {
    let (model, hardware) = (model(json!({})), profile("cpu", 0, Some("0.036")));
    let mut slow = run(json!({}));
    let status = slow.status.as_mut().unwrap();
    let resolved = status.resolved.as_mut().unwrap();
    (resolved.hardware, resolved.gpus, resolved.nodes) = ("cpu".into(), 0, 2);
    status.cost.as_mut().unwrap().gpu_seconds = 0;
    let wanted = training(&model, &hardware, DatasetSize::Tokens(200_000));
    assert_eq!(estimate(&wanted, [&slow]).unwrap().seconds, 100, "4000000 tokens in 1000 seconds on two nodes");
    let found = estimate(&wanted, []).unwrap();
    assert_eq!((found.seconds, found.cost), (20_000, Some(Decimal::new(2, 1))));
    assert!(found.explanation.contains("on each node"));
}

#[test]
fn data_of_which_only_bytes_or_examples_are_known_is_measured_in_tokens() {
    let (plain, short, hardware) = (model(json!({})), model(json!({"maxSequenceLength": 128})), profile("gpu", 1, None));
    let tokens = |model: &BaseModel, dataset| estimate(&training(model, &hardware, dataset), []).unwrap();
    let examples = |tokens_each| DatasetSize::Examples { count: 10, tokens_each };
    assert_eq!(tokens(&plain, DatasetSize::Bytes(4001)).tokens, 1001);
    assert_eq!(tokens(&plain, examples(Some(100))).tokens, 1000);
    assert_eq!(tokens(&plain, examples(None)).tokens, 5120);
    assert_eq!(tokens(&short, examples(None)).tokens, 1280, "no example is longer than the model takes");
    assert!(tokens(&plain, examples(None)).explanation.contains("10 examples of 512 tokens (assumed)"));
    assert!(tokens(&plain, DatasetSize::Bytes(8)).explanation.contains("8 bytes at 4 a token"));
}

#[test]
fn where_nothing_is_known_the_reason_says_what_is_missing() {
    let model = model(json!({}));
    for name in ["unheard-of", "broken"] {
        let hardware = profile(name, 1, None);
        let unknown = estimate(&training(&model, &hardware, DatasetSize::Tokens(1)), []).unwrap_err().to_string();
        assert!(unknown.contains("spec.tokensPerSecond") && unknown.contains(name), "{unknown}");
    }
}

proptest! {
    #[test]
    fn more_tokens_never_take_less_and_nothing_overflows_or_is_negative(
        (one, more) in (any::<u64>(), any::<u64>()), epochs in (any::<i64>(), 0_u32..28), nodes in any::<i32>(), gpus in any::<i32>(),
        speed in any::<i64>(), price in "[0-9]{1,20}(\\.[0-9]{1,3})?", (trained, held) in (any::<i64>(), any::<i64>()),
        kind in 0..3,
    ) {
        let model = model(json!({"tokensPerSecond": {"gpu": speed}, "maxSequenceLength": 4096}));
        let hardware = profile("gpu", gpus, Some(&price));
        let mut finished = run(json!({"progress": {"attempt": 1, "trainedTokens": trained}}));
        finished.status.as_mut().unwrap().cost.as_mut().unwrap().gpu_seconds = held;
        let of = |size: u64| {
            let dataset = match kind {
                0 => DatasetSize::Tokens(size),
                1 => DatasetSize::Bytes(size),
                _ => DatasetSize::Examples { count: size, tokens_each: size.is_multiple_of(2).then_some(512) },
            };
            let epochs = Decimal::new(epochs.0, epochs.1);
            Training { nodes, epochs, ..training(&model, &hardware, dataset) }
        };
        for runs in [vec![], vec![&finished]] {
            let fewer = estimate(&of(one.min(more)), runs.iter().copied());
            let most = estimate(&of(one.max(more)), runs.iter().copied());
            prop_assert_eq!(fewer.is_ok(), most.is_ok(), "what is known does not depend on the size");
            if let (Ok(fewer), Ok(most)) = (fewer, most) {
                prop_assert!(fewer.tokens <= most.tokens && fewer.seconds <= most.seconds && fewer.cost <= most.cost);
                prop_assert!(fewer.seconds >= 0 && fewer.cost >= Some(Decimal::ZERO));
            }
        }
    }
}
