//! The content of the parameters file: what the user asked for, and what the run knows under the keys
//! the script wants it. Pure.

use serde_json::{Map, Value};

use crate::protocol::RunConfig;

/// The parameters file of an attempt; `resume` is the checkpoint it resumes from.
///
/// Paths are the run's to say, so they replace what the user gave under the same key; the seed is only a
/// default.
#[must_use]
pub fn file(config: &RunConfig, resume: Option<&str>) -> Map<String, Value> {
    let mut file: Map<_, _> = config.parameters.clone().into_iter().collect();
    let bind = &config.bind;
    let paths = [
        (&bind.base_model, Some(config.base_model.target().to_owned())),
        (&bind.dataset, Some(config.dataset.target().to_owned())),
        (&bind.validation_dataset, config.validation_dataset.as_ref().map(|input| input.target().to_owned())),
        (&bind.output, Some(config.output_dir())),
        (&bind.resume_from, resume.map(str::to_owned)),
    ];
    for (key, value) in paths {
        if let (Some(key), Some(value)) = (key, value) {
            file.insert(key.clone(), value.into());
        }
    }
    // What the user gave for it would be resumed from unverified.
    if let (Some(key), None) = (&bind.resume_from, resume) {
        file.remove(key);
    }
    if let Some(key) = &bind.seed {
        file.entry(key.clone()).or_insert_with(|| config.seed.into());
    }
    file
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::fixture::config;

    #[test]
    fn parameters_and_paths_stand_under_the_scripts_names() {
        let mut config = config();
        config.parameters = [("lr".to_owned(), json!(0.1))].into();
        let expected = json!({
            "lr": 0.1, "model_name_or_path": "org/model", "dataset_name": "org/data",
            "output_dir": "/finetune/output/lineage-1", "seed": 7,
        });
        assert_eq!(Value::Object(file(&config, None)), expected);
    }

    #[test]
    fn the_checkpoint_to_resume_from_is_there_only_when_resuming() {
        let mut config = config();
        config.parameters = [("resume_from_checkpoint".to_owned(), json!("/elsewhere"))].into();
        assert_eq!(file(&config, None).get("resume_from_checkpoint"), None);
        let resumed = file(&config, Some("/finetune/output/lineage-1/checkpoint-5"));
        assert_eq!(resumed.get("resume_from_checkpoint"), Some(&json!("/finetune/output/lineage-1/checkpoint-5")));
    }

    #[test]
    fn a_seed_of_the_users_own_wins_and_paths_of_the_users_do_not() {
        let mut config = config();
        config.parameters = [("seed".to_owned(), json!(3)), ("output_dir".to_owned(), json!("/tmp"))].into();
        let file = file(&config, None);
        assert_eq!(file.get("seed"), Some(&json!(3)));
        assert_eq!(file.get("output_dir"), Some(&json!("/finetune/output/lineage-1")));
    }

    #[test]
    fn nothing_is_added_under_keys_the_script_does_not_name() {
        let mut config = config();
        config.bind = crate::api::Bindings::default();
        assert!(file(&config, Some("/x")).is_empty());
    }
}
