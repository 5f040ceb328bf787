//! Which metrics people look at first, where there is no room for all. Pure.

/// Orders names: the loss, then evaluations, then the rest of training, then timings.
#[must_use]
pub fn rank(name: &str) -> u8 {
    let timing = ["_runtime", "_per_second", "total_flos", "elapsed_time"];
    match name {
        "loss" | "eval_loss" => 0,
        _ if timing.iter().any(|end| name.ends_with(end)) => 4,
        "learning_rate" | "grad_norm" | "mean_token_accuracy" => 1,
        _ if is_eval(name) => 2,
        _ => 3,
    }
}

/// Whether it comes from an evaluation.
#[must_use]
pub fn is_eval(name: &str) -> bool {
    name.starts_with("eval_")
}
