//! Paths, names, real files and settling.

use std::time::Duration;

use super::super::testing::{MemoryFs, write_adapter};
use super::super::{FileFact, FileSystem, FsError, Kind, RealFs, RelPath, Settling, checkpoint_steps, inspect, step_of};
use super::{codes, path};

#[test]
fn a_relative_path_cannot_leave_its_root() {
    for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0", "a\nb", "a\\b"] {
        assert!(RelPath::parse(bad).is_err(), "{bad:?}");
    }
    assert!(RelPath::parse(&"a".repeat(1025)).is_err());
    let joined = path("a").join("b/c").unwrap();
    assert_eq!((joined.as_str(), joined.name()), ("a/b/c", "c"));
    assert_eq!(joined.parent(), Some(path("a/b")));
    assert_eq!(path("a").parent(), Some(RelPath::root()));
    assert!(path("a").join("..").is_err());
}

#[test]
fn only_exact_names_are_checkpoints() {
    assert_eq!(step_of("checkpoint-0"), Some(0));
    assert_eq!(step_of("checkpoint-9223372036854775807"), Some(i64::MAX.unsigned_abs()));
    let others = [
        "checkpoint-",
        "checkpoint-01",
        "checkpoint-+1",
        "checkpoint-1 ",
        "checkpoint-1a",
        "tmp-checkpoint-1",
        "Checkpoint-1",
        "checkpoint-9223372036854775808",
        "checkpoint-٤",
    ];
    for name in others {
        assert_eq!(step_of(name), None, "{name}");
    }
}

#[test]
fn checkpoints_are_listed_by_step() {
    let fs = MemoryFs::new();
    for name in ["checkpoint-100", "checkpoint-20", "tmp-checkpoint-30", "checkpoint-x"] {
        fs.mkdir(&format!("out/{name}"));
    }
    fs.write("out/checkpoint-7", "a file");
    fs.link("out/checkpoint-40");
    let steps = checkpoint_steps(&fs, &path("out")).unwrap();
    let names: Vec<_> = steps.iter().map(|(step, name)| (*step, name.as_str())).collect();
    assert_eq!(names, [(20, "checkpoint-20"), (40, "checkpoint-40"), (100, "checkpoint-100")]);
    assert_eq!(checkpoint_steps(&fs, &path("gone")), Err(FsError::NotFound));
}

#[test]
fn a_directory_settles_when_nothing_changed_for_the_whole_period() {
    let fact = |mtime| FileFact { path: "a".to_owned(), size: 1, mtime };
    let mut settling = Settling::new(Duration::from_secs(10));
    let mut at = |secs, mtime| settling.observe("x", Duration::from_secs(secs), &[fact(mtime)]);
    assert!(!at(0, 1));
    assert!(!at(9, 1));
    assert!(at(10, 1));
    assert!(!at(11, 2), "a new time starts the period again");
    assert!(!at(20, 2));
    assert!(!at(5, 2), "a clock that goes back settles nothing");
    assert!(at(21, 2));
    assert!(!settling.observe("y", Duration::from_secs(99), &[]), "one scan is not enough");
    settling.retain(|dir| dir == "y");
    assert!(!settling.observe("x", Duration::from_secs(99), &[fact(2)]));
}

#[test]
fn real_files_are_read_below_the_root_and_never_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(root.join("sub/file"), "0123456789").unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    std::os::unix::fs::symlink("..", root.join("up")).unwrap();
    std::os::unix::fs::symlink("sub", root.join("inside")).unwrap();
    let fs = RealFs::new(&root).unwrap();
    assert_eq!(fs.read(&path("sub/file"), 2, 3).unwrap(), b"234");
    assert_eq!(fs.read(&path("sub/file"), 8, 30).unwrap(), b"89");
    assert_eq!(fs.read(&path("sub/file"), 80, 30).unwrap(), b"");
    assert_eq!(fs.metadata(&path("link")).unwrap().kind, Kind::Link);
    for behind in ["link", "up/secret", "inside/file", "sub"] {
        assert_eq!(fs.read(&path(behind), 0, 9), Err(FsError::NotPlain), "{behind}");
    }
    for behind in ["up/secret", "inside/file"] {
        assert_eq!(fs.metadata(&path(behind)), Err(FsError::NotPlain), "{behind}");
    }
    assert_eq!(fs.read_dir(&path("up"), 9), Err(FsError::NotPlain));
    assert_eq!(fs.read(&path("gone"), 0, 9), Err(FsError::NotFound));
    let mut names = fs.read_dir(&RelPath::root(), 9).unwrap().names;
    names.sort();
    assert_eq!(names, ["inside", "link", "sub", "up"]);
    assert!(fs.read_dir(&RelPath::root(), 3).unwrap().truncated);
    assert!(RealFs::new(root.join("sub/file")).is_err());
}

#[test]
fn names_that_are_not_text_are_counted_not_lost() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(OsStr::from_bytes(b"\xff")), "").unwrap();
    let names = RealFs::new(dir.path()).unwrap().read_dir(&RelPath::root(), 9).unwrap();
    assert_eq!((names.names.len(), names.strange), (0, 1));
}

#[test]
fn memory_and_real_files_are_inspected_alike() {
    let memory = MemoryFs::new();
    write_adapter(&memory, "checkpoint-4", 4);
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("checkpoint-4");
    std::fs::create_dir(&checkpoint).unwrap();
    let expected = inspect(&memory, &path("checkpoint-4"), 4);
    for file in &expected.files {
        let bytes = memory.read(&path(&format!("checkpoint-4/{}", file.path)), 0, 1 << 20).unwrap();
        std::fs::write(checkpoint.join(&file.path), bytes).unwrap();
    }
    let real = RealFs::new(dir.path()).unwrap();
    let mut found = inspect(&real, &path("checkpoint-4"), 4);
    found.files.iter_mut().for_each(|file| file.mtime = 0);
    assert_eq!(found, expected);
    std::os::unix::fs::symlink("/", checkpoint.join("root")).unwrap();
    assert_eq!(codes(&inspect(&real, &path("checkpoint-4"), 4)), ["link"]);
}
