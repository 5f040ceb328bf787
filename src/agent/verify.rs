//! `agent verify`: says of one directory whether it is a whole checkpoint, for people and for scripts.
//! Reads only.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::check::{self, signed};
use crate::checkpoint_files::{
    FileSystem, FsError, Inspection, Kind, RealFs, RelPath, TrainerState, as_report, inspect, inspect_weights, manifest_name,
    step_of,
};

/// What `agent verify` is asked.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How the verdict is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// The checkpoint's directory, such as `out/checkpoint-500`.
    pub dir: PathBuf,
}

/// How a verdict is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// One JSON object.
    Json,
    /// A short table.
    Text,
}

/// Runs `agent verify`: 0 when it is complete, 1 when it is not, 2 when it cannot be read.
pub async fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { output, dir } = arguments.clone();
    let looked = tokio::task::spawn_blocking(move || look(&dir)).await;
    let looked = looked.unwrap_or_else(|error| Err(error.to_string()));
    let (text, code) = match (looked, output) {
        (Ok(found), output) => {
            let report = as_report(&found);
            let text = if output == Output::Json { report.to_string() } else { table(&report) };
            (text, u8::from(!found.complete))
        }
        (Err(problem), Output::Json) => (unreadable(&problem).to_string(), 2),
        (Err(problem), Output::Text) => (format!("cannot be read: {problem}"), 2),
    };
    print(text.trim_end());
    ExitCode::from(code)
}

/// Prints without panicking where the reader has gone.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Inspects a directory: by all rules where its name is a checkpoint's, else for whole weights alone;
/// and against the manifest beside it where there is one.
fn look(dir: &Path) -> Result<Inspection, String> {
    let shown = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
    // A path that ends in `..` or a link has no name of its own.
    let dir_found = std::fs::canonicalize(dir).map_err(|error| shown(&error))?;
    let name = dir_found.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = RelPath::parse(name).ok().zip(dir_found.parent());
    let (fs, relative) = match named {
        Some((relative, parent)) => (RealFs::new(parent), relative),
        None => (RealFs::new(&dir_found), RelPath::root()),
    };
    let fs = fs.map_err(|error| shown(&error))?;
    match fs.metadata(&relative).map(|found| found.kind) {
        Ok(Kind::Directory) => {}
        Ok(_) => return Err(shown(&"it is no directory")),
        Err(error) => return Err(shown(&error)),
    }
    if let Err(error @ FsError::Io(_)) = fs.read_dir(&relative, 1) {
        return Err(shown(&error));
    }
    let mut found = match step_of(name) {
        Some(step) => inspect(&fs, &relative, step),
        None => inspect_weights(&fs, &relative, recorded_step(&fs, &relative)),
    };
    match RelPath::parse(&manifest_name(name)).map(|record| check::manifest(&fs, &record)) {
        Ok(Ok(Some(manifest))) => found.reasons.extend(manifest.check(&fs, &relative, true)),
        Ok(Err(reason)) => found.reasons.push(reason),
        Ok(Ok(None)) | Err(_) => {}
    }
    found.complete = found.reasons.is_empty();
    found.resumable &= found.complete;
    Ok(found)
}

/// The step the trainer's state says; 0 where there is none.
fn recorded_step(fs: &RealFs, dir: &RelPath) -> u64 {
    let state = dir.join("trainer_state.json").map(|path| TrainerState::read(fs, &path));
    state.ok().and_then(Result::ok).map_or(0, |state| state.global_step)
}

fn unreadable(problem: &str) -> Value {
    json!({
        "complete": false, "resumable": false, "step": null, "format": null, "sizeBytes": 0,
        "metrics": {}, "reasons": [format!("unreadable: {problem}")],
    })
}

/// The report as a table of two columns.
fn table(report: &Value) -> String {
    let yes = |key: &str| if report.get(key) == Some(&Value::Bool(true)) { "yes" } else { "no" };
    let number = |key: &str| report.get(key).and_then(Value::as_u64).unwrap_or_default();
    let format = report.get("format").and_then(Value::as_str).unwrap_or("none found");
    let mut rows = vec![
        ("complete", yes("complete").to_owned()),
        ("resumable", yes("resumable").to_owned()),
        ("step", number("step").to_string()),
        ("weights", format.to_owned()),
        ("size", size(number("sizeBytes"))),
    ];
    let metrics = report.get("metrics").and_then(Value::as_object).into_iter().flatten();
    rows.extend(metrics.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or("-").to_owned())));
    let reasons = report.get("reasons").and_then(Value::as_array).into_iter().flatten();
    rows.extend(reasons.filter_map(Value::as_str).map(|reason| ("problem", reason.to_owned())));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:width$}  {value}");
        text
    })
}

/// A number of bytes as people say it, exact below 10 kB.
fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000_u64), ("MB", 1_000_000), ("kB", 1000)];
    let fits = units.into_iter().find(|(_, unit)| bytes >= unit.saturating_mul(10));
    fits.map_or_else(|| format!("{} bytes", signed(bytes)), |(name, unit)| format!("{} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use std::fs::{remove_file, write};

    use tempfile::tempdir;

    use super::*;
    use crate::agent::fixture::{UID, damage, write_checkpoint, write_manifest};

    #[test]
    fn a_whole_checkpoint_is_complete_and_its_table_says_so() {
        let root = tempdir().unwrap();
        write_checkpoint(root.path(), 5);
        let found = look(&root.path().join("checkpoint-5")).unwrap();
        assert!(found.complete && found.resumable);
        let table = table(&as_report(&found));
        assert!(table.contains("complete   yes\n") && table.contains("loss       0.5\n"), "{table}");
    }

    #[test]
    fn a_folder_of_any_name_takes_the_step_its_state_says() {
        let root = tempdir().unwrap();
        write_checkpoint(root.path(), 5);
        let dir = root.path().join("best");
        std::fs::rename(root.path().join("checkpoint-5"), &dir).unwrap();
        let found = look(&dir).unwrap();
        assert_eq!((found.complete, found.step), (true, 5));
        remove_file(dir.join("trainer_state.json")).unwrap();
        assert!(look(&dir).unwrap().complete);
    }

    #[test]
    fn the_name_and_the_manifest_are_held_against_it() {
        let root = tempdir().unwrap();
        write_checkpoint(root.path(), 5);
        write_manifest(root.path(), 5, UID);
        damage(root.path(), 5);
        let found = look(&root.path().join("checkpoint-5")).unwrap();
        assert_eq!(found.reasons.first().map(crate::checkpoint_files::Reason::code), Some("hash-differs"));
        assert!(!found.complete && !found.resumable);
        std::fs::rename(root.path().join("checkpoint-5"), root.path().join("checkpoint-6")).unwrap();
        let found = look(&root.path().join("checkpoint-6")).unwrap();
        assert_eq!(found.reasons.first().map(crate::checkpoint_files::Reason::code), Some("wrong-step"));
    }

    #[tokio::test]
    async fn what_is_no_directory_cannot_be_read() {
        let root = tempdir().unwrap();
        write(root.path().join("file"), "x").unwrap();
        assert!(look(&root.path().join("file")).is_err());
        assert!(look(&root.path().join("none")).is_err());
        for (name, code) in [("none", 2), ("file", 2), (".", 1)] {
            let arguments = Arguments { output: Output::Json, dir: root.path().join(name) };
            assert_eq!(run(&arguments).await, ExitCode::from(code), "{name}");
        }
    }
}
