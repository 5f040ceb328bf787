//! What the documents name exists: links, headings, files, tests and make targets.
#![expect(clippy::unwrap_used, reason = "a document that cannot be read fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A document and its path relative to the root of the repository.
struct Document {
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and everything in docs/.
fn documents() -> Vec<Document> {
    let mut paths = vec![PathBuf::from("README.md")];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let read = |path: PathBuf| Document { text: fs::read_to_string(root().join(&path)).unwrap(), path };
    paths.into_iter().map(read).collect()
}

/// The parts of `text` between `open` and `close`, each within a line.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().flat_map(move |line| line.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0)))
}

/// Text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(|words| !words.is_empty())
}

/// The anchor a heading gets: lower case, spaces as dashes, nothing but words.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn broken_links(root: &Path, document: &Document) -> Vec<String> {
    let mut complaints = Vec::new();
    for link in between(&document.text, "](", ")") {
        if link.starts_with("http://") || link.starts_with("https://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let folder = document.path.parent().unwrap_or_else(|| Path::new(""));
        let target = if file.is_empty() { root.join(&document.path) } else { root.join(folder).join(file) };
        let text = if heading.is_empty() { String::new() } else { fs::read_to_string(&target).unwrap_or_default() };
        let mut headings = text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')));
        if !target.exists() || !heading.is_empty() && !headings.any(|found| found == heading) {
            complaints.push(format!("{}: {link} leads nowhere", document.path.display()));
        }
    }
    complaints
}

/// Paths from the root that are named in backticks, and the tests named after `::`.
fn missing_files(root: &Path, document: &Document) -> Vec<String> {
    const FOLDERS: [&str; 10] = ["src/", "run/", "tests/", "crds/", "charts/", "deploy/", "docs/", "hack/", "images/", "fuzz/"];
    let mut complaints = Vec::new();
    for words in quoted(&document.text).filter(|words| FOLDERS.iter().any(|folder| words.starts_with(folder))) {
        let (path, test) = words.split_once("::").unwrap_or((words, ""));
        let path = path.split_whitespace().next().unwrap_or_default();
        let code = fs::read_to_string(root.join(path)).unwrap_or_default();
        if !root.join(path).exists() {
            complaints.push(format!("{}: there is no {path}", document.path.display()));
        } else if !test.is_empty() && !code.contains(&format!("fn {test}(")) {
            complaints.push(format!("{}: there is no test {test} in {path}", document.path.display()));
        }
    }
    complaints
}

/// `make` targets that are named, in backticks or in a block of commands, and not in the Makefile.
fn missing_targets(makefile: &str, document: &Document) -> Vec<String> {
    let mut fenced = false;
    let mut commands: Vec<&str> = quoted(&document.text).collect();
    for line in document.text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            commands.push(line.trim_start_matches("$ "));
        }
    }
    let target = |command: &str| {
        let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
        let is_make = words.next() == Some("make");
        words.find(|word| !word.starts_with('-')).filter(|word| is_make && *word != "#").map(str::to_owned)
    };
    let exists = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let missing = commands.into_iter().filter_map(target).filter(|target| !exists(target));
    missing.map(|target| format!("{}: the Makefile has no {target}", document.path.display())).collect()
}

/// What a page of docs/adr lacks.
fn incomplete_decision(index: &str, document: &Document) -> Vec<String> {
    let name = document.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let title = name.split_once('-').map(|(number, _)| format!("# {number}: ")).unwrap_or_default();
    let mut lacks = Vec::new();
    if !document.text.starts_with(&title) {
        lacks.push(format!("{name}: its title does not begin with {title:?}"));
    }
    for heading in ["\n## Context\n", "\n## Decision\n", "\n## Consequences\n"] {
        if !document.text.contains(heading) {
            lacks.push(format!("{name}: lacks {}", heading.trim()));
        }
    }
    if !index.contains(&format!("]({name})")) {
        lacks.push(format!("{name}: is not in docs/adr/README.md"));
    }
    lacks
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    assert_none(&documents().iter().flat_map(|document| broken_links(root(), document)).collect::<Vec<_>>());
}

#[test]
fn every_file_and_test_that_is_named_exists() {
    assert_none(&documents().iter().flat_map(|document| missing_files(root(), document)).collect::<Vec<_>>());
}

#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    assert_none(&documents().iter().flat_map(|document| missing_targets(&makefile, document)).collect::<Vec<_>>());
}

#[test]
fn every_decision_is_whole_and_in_the_index() {
    let index = fs::read_to_string(root().join("docs/adr/README.md")).unwrap();
    let pages = documents();
    let decisions = pages.iter().filter(|page| page.path.starts_with("docs/adr") && !page.path.ends_with("README.md"));
    assert_none(&decisions.flat_map(|page| incomplete_decision(&index, page)).collect::<Vec<_>>());
}

/// That each check can fail, and does not fail for no reason.
mod checks {
    use super::*;

    fn page(text: &str) -> Document {
        Document { path: "docs/page.md".into(), text: text.into() }
    }

    #[test]
    fn a_broken_link_is_found() {
        assert_none(&broken_links(root(), &page("[a](../Makefile) [b](https://example.org/x) [c](adr/README.md#decisions)")));
        assert_eq!(broken_links(root(), &page("[a](../nowhere.md) and [b](adr/README.md#nothing)")).len(), 2);
    }

    #[test]
    fn a_missing_file_or_test_is_found() {
        assert_none(&missing_files(
            root(),
            &page("`src/lib.rs`, `tests/docs.rs::a_missing_file_or_test_is_found`, `src`, src/none.rs"),
        ));
        assert_eq!(missing_files(root(), &page("`src/none.rs` | `src/lib.rs::no_such_test`")).len(), 2);
    }

    #[test]
    fn a_missing_target_is_found() {
        let makefile = "demo: ## x\ntest: demo\n";
        let text = "`make demo` and `A=b make -s test`, make nothing of it\n```sh\nmake demo   # why\n```\n";
        assert_none(&missing_targets(makefile, &page(text)));
        assert_eq!(missing_targets(makefile, &page("`make tea`\n```sh\n$ make coffee\n```\n")).len(), 2);
    }

    #[test]
    fn an_unfinished_decision_is_found() {
        let decision = |text: &str| Document { path: "docs/adr/0099-x.md".into(), text: text.into() };
        let whole = decision("# 0099: X\n\n## Context\n\n## Decision\n\n## Consequences\n");
        assert_none(&incomplete_decision("[0099](0099-x.md)", &whole));
        assert_eq!(incomplete_decision("", &decision("# X\n")).len(), 5);
    }
}
