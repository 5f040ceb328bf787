//! Reads Rust source just well enough to check its shape: blanks comments, texts and tests, finds paths and functions. Pure, but for `read`.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// One source file.
pub(crate) struct Source {
    /// Path relative to the root of the repository.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The same, byte for byte as long, with comments, texts and everything that only tests compile as spaces.
    pub(crate) code: String,
    /// Lines that tests alone compile.
    pub(crate) test_lines: usize,
}

/// One function.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) parameters: usize,
    /// Lines from `fn` to the closing brace that hold code.
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut code = blank_words(text);
        let mut test_lines = 0;
        while let Some(item) = test_item(&code) {
            test_lines += text.get(item.clone()).unwrap_or_default().lines().count();
            code = blank(&code, item);
        }
        Self { path: path.to_owned(), text: text.to_owned(), code, test_lines }
    }

    /// Lines that are not for tests alone, comments included.
    pub(crate) fn lines(&self) -> usize {
        self.text.lines().count().saturating_sub(self.test_lines)
    }

    /// The module below `src/` this file is part of, as a path: `src/plan/cost.rs` is `[plan, cost]`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        inner.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).collect()
    }

    /// Top-level modules of our own crate that this file names, by whatever path.
    pub(crate) fn dependencies(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for root in ["crate::", "finetune_operator::"] {
            for at in words(&self.code, root) {
                found.extend(heads(&self.code[at + root.len()..]));
            }
        }
        let depth = self.module().len();
        for at in words(&self.code, "super::") {
            let mut rest = &self.code[at..];
            let mut up = 0;
            while let Some(next) = rest.strip_prefix("super::") {
                (rest, up) = (next, up + 1);
            }
            let continues = self.code[..at].ends_with("super::");
            if up >= depth && !continues {
                found.extend(heads(rest));
            }
        }
        found
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        words(&self.code, "fn ").into_iter().filter_map(|at| function(&self.code, at)).collect()
    }
}

/// Every Rust file below `folders` of `root`, without the files that tests alone compile.
pub(crate) fn read(root: &Path, folders: &[&str]) -> Vec<Source> {
    let mut files = Vec::new();
    for folder in folders {
        collect(&root.join(folder), &mut files);
    }
    let relative = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
    let read: Vec<_> = files.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect();
    let tests: Vec<_> = read.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_test = |path: &str| tests.iter().any(|test| path == format!("{test}.rs") || path.starts_with(&format!("{test}/")));
    read.iter().filter(|(path, _)| !is_test(path)).map(|(path, text)| Source::new(path, text)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Modules in files of their own that tests alone compile, as paths without `.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let owns_folder = ["mod.rs", "lib.rs", "main.rs"].contains(&file);
    let base = if owns_folder { folder.to_owned() } else { format!("{folder}/{}", file.trim_end_matches(".rs")) };
    let code = blank_words(text);
    let items = code.match_indices("#[cfg(test)]").map(|(at, _)| &code[at..end_of_item(&code, at)]);
    let name = |item: &str| Some(item.trim_end().strip_suffix(';')?.rsplit_once("mod ")?.1.trim().to_owned());
    items.filter_map(name).map(|module| format!("{base}/{module}")).collect()
}

/// The first item that tests alone compile.
fn test_item(code: &str) -> Option<Range<usize>> {
    let start = code.find("#[cfg(test)]")?;
    Some(start..end_of_item(code, start))
}

/// Where the item after an attribute ends: at its `;`, or at the end of its block.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0_i32;
    for (at, c) in code[start..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            '}' if depth == 1 => return start + at + 1,
            ')' | ']' | '}' => depth -= 1,
            ';' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The text with comments and the inside of texts as spaces, every byte where it was.
fn blank_words(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    while let Some(next) = text[code.len()..].chars().next() {
        let at = code.len();
        match comment(&text[at..]).or_else(|| literal(&text[at..], text[..at].chars().next_back())) {
            Some(length) => code.push_str(&spaces(&text[at..at + length])),
            None => code.push(next),
        }
    }
    code
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.starts_with("/*").then(|| rest.find("*/").map_or(rest.len(), |end| end + 2))
}

/// Length of a text or character literal at the start of `rest`; a lifetime is none.
fn literal(rest: &str, before: Option<char>) -> Option<usize> {
    if !before.is_some_and(is_word) {
        let prefix = rest.strip_prefix('b').unwrap_or(rest);
        let hashes = prefix.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
        if let Some(hashes) = hashes.filter(|hashes| prefix[1 + hashes..].starts_with('"')) {
            let open = rest.len() - prefix.len() + hashes + 2;
            let close = format!("\"{}", "#".repeat(hashes));
            return Some(rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len()));
        }
    }
    if let Some(inner) = rest.strip_prefix('"') {
        return Some(1 + closing(inner, '"'));
    }
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    let is_char = first == '\\' || inner[first.len_utf8()..].starts_with('\'');
    is_char.then(|| 1 + closing(inner, '\''))
}

/// Length up to and with the closing quote, escapes passed over.
fn closing(inner: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    inner.len()
}

fn blank(text: &str, range: Range<usize>) -> String {
    format!("{}{}{}", &text[..range.start], spaces(&text[range.clone()]), &text[range.end..])
}

/// A space for every byte but the ends of lines.
fn spaces(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Where `word` occurs and is not the end or the beginning of a longer word.
pub(crate) fn words(code: &str, word: &str) -> Vec<usize> {
    let whole = |at: usize| {
        let before = code[..at].chars().next_back().is_some_and(is_word);
        let after = word.ends_with(is_word) && code[at + word.len()..].starts_with(is_word);
        !before && !after
    };
    code.match_indices(word).map(|(at, _)| at).filter(|at| whole(*at)).collect()
}

/// The first segment of a path, or of each path in `{…}`.
fn heads(rest: &str) -> Vec<String> {
    let ident = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![ident(rest)] };
    let mut found = vec![ident(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => found.push(ident(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found.retain(|head| !head.is_empty());
    found
}

/// The function whose `fn` is at `start`; none for a type such as `fn(i32)`.
fn function(code: &str, start: usize) -> Option<Function> {
    let rest = &code[start + 3..];
    let name: String = rest.trim_start().chars().take_while(|c| is_word(*c)).collect();
    let (mut depth, mut angle, mut commas, mut content) = (0_i32, 0_i32, 0, false);
    let mut open = None;
    let mut previous = ' ';
    for (at, c) in rest.char_indices() {
        match c {
            '<' => angle += 1,
            '>' if previous != '-' && previous != '=' => angle -= 1,
            '(' | '[' => depth += 1,
            ')' if depth == 1 && angle == 0 && open.is_none() => open = Some(at),
            '{' if depth == 0 => break,
            ';' if depth == 0 => return None,
            _ => {}
        }
        let inside = depth == 1 && angle == 0 && open.is_none();
        if matches!(c, ')' | ']') {
            depth -= 1;
        }
        match c {
            ',' if inside => (commas, content) = (commas + 1, false),
            '(' if inside => {}
            c if depth >= 1 && open.is_none() && !c.is_whitespace() => content = true,
            _ => {}
        }
        previous = c;
    }
    let end = end_of_item(code, start);
    let lines = code[start..end].lines().filter(|line| !line.trim().is_empty()).count();
    (!name.is_empty()).then(|| Function { name, parameters: commas + usize::from(content), lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_texts_and_tests_are_no_code() {
        let text = "use a; // crate::plan\n/* crate::x */ let s = \"crate::y\\\" z\"; let r = r#\"crate::\"q\"#; let c = '\"';\nfn f<'a>() {}\n#[cfg(test)]\nmod tests {\n    use crate::t;\n}\nfn g() {}\n";
        let source = Source::new("src/a.rs", text);
        assert_eq!(source.code.len(), text.len());
        assert!(!source.code.contains("crate"), "{}", source.code);
        assert!(source.code.contains("fn f<'a>()") && source.code.contains("fn g()"), "{}", source.code);
        assert_eq!((source.test_lines, source.lines()), (4, 4));
    }

    #[test]
    fn dependencies_are_found_however_they_are_written() {
        let heads = |path: &str, text: &str| Source::new(path, text).dependencies().into_iter().collect::<Vec<_>>();
        assert_eq!(heads("src/plan/a.rs", "use crate::{\n    api::{A, B},\n    settings::S,\n};"), ["api", "settings"]);
        assert_eq!(heads("src/plan/a.rs", "fn f() { crate::cluster::x() }"), ["cluster"]);
        assert_eq!(heads("src/plan/a.rs", "use super::super::cluster::X; use super::cost;"), ["cluster"]);
        assert_eq!(heads("src/plan/mod.rs", "use super::reports::Y;"), ["reports"]);
        assert_eq!(heads("src/main.rs", "use finetune_operator::cli;"), ["cli"]);
    }

    #[test]
    fn functions_are_measured_without_blank_lines_and_comments() {
        let text = "pub fn one(&self, (a, b): (i32, i32), f: impl Fn(i32, i32) -> i32,) -> Map<A, B>\nwhere\n    A: B,\n{\n    // why\n\n    1\n}\nfn two() {}\ntype F = fn(i32);\n";
        let found = Source::new("src/a.rs", text).functions();
        let expected = [("one", 3, 6), ("two", 0, 1)];
        assert_eq!(found, expected.map(|(name, parameters, lines)| Function { name: name.into(), parameters, lines }));
    }

    #[test]
    fn modules_for_tests_in_files_of_their_own_are_known() {
        assert_eq!(test_modules("src/plan/mod.rs", "#[cfg(test)]\npub(crate) mod tests;"), ["src/plan/tests"]);
        assert_eq!(test_modules("src/agent/resume.rs", "mod a;\n#[cfg(test)]\nmod tests;"), ["src/agent/resume/tests"]);
        assert!(test_modules("src/a.rs", "#[cfg(test)]\nmod tests { mod inner; }").is_empty());
    }
}
