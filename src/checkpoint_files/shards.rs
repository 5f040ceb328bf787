//! What trainers on several devices save in shards of their own: FSDP and `DeepSpeed`. Pure.

use super::listing::Found;
use super::reason::Reasons;
use super::weights::{View, has_extension};
use super::{FileSystem, Reason, RelPath, torch_zip};

impl<F: FileSystem + ?Sized> View<'_, F> {
    /// Checks the directories of distributed shards whose names begin with `prefix`; whether there are
    /// any.
    pub(crate) fn check_fsdp(&self, prefix: &str, reasons: &mut Reasons) -> bool {
        let mut any = false;
        let numbered = |dir: &&str| {
            dir.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        for dir in self.listing.top_dirs().filter(numbered) {
            any = true;
            let mut shards = 0;
            let mut metadata = false;
            for (name, found) in self.listing.files_in(dir) {
                let shard = has_extension(name, "distcp");
                shards += usize::from(shard);
                metadata |= name == ".metadata";
                if found.size == 0 && (shard || name == ".metadata") {
                    reasons.push(Reason::Empty { file: found.path.to_string() });
                }
            }
            if shards == 0 {
                reasons.push(Reason::Missing { file: self.label(&format!("{dir}/*.distcp")) });
            }
            if !metadata {
                reasons.push(Reason::Missing { file: self.label(&format!("{dir}/.metadata")) });
            }
        }
        any
    }

    /// Checks what `DeepSpeed` saves; whether there is any of it.
    pub(crate) fn check_deepspeed(&self, reasons: &mut Reasons) -> bool {
        let tags: Vec<_> = self.listing.top_dirs().filter(|dir| dir.starts_with("global_step")).collect();
        let latest = self.listing.file_in("", "latest");
        if tags.is_empty() && latest.is_none() {
            return false;
        }
        match latest {
            None => reasons.push(Reason::Missing { file: self.label("latest") }),
            Some(found) => {
                if let Some(tag) = reasons.note(self.tag(found)) {
                    self.check_tag(&tag, reasons);
                }
            }
        }
        true
    }

    /// The directory the file `latest` names.
    fn tag(&self, latest: &Found) -> Result<String, Reason> {
        let bytes = self.fs.read(&latest.path, 0, 256);
        let bytes = bytes.map_err(|error| Reason::of_error(&latest.path, &error))?;
        let text = String::from_utf8_lossy(&bytes);
        let tag = text.trim();
        if tag.is_empty() {
            return Err(Reason::Empty { file: latest.path.to_string() });
        }
        if RelPath::parse(tag).is_err() || tag.contains('/') {
            let problem = format!("it names {tag:?}");
            return Err(Reason::BadIndex { file: latest.path.to_string(), problem });
        }
        Ok(tag.to_owned())
    }

    fn check_tag(&self, tag: &str, reasons: &mut Reasons) {
        let mut states = false;
        for (name, found) in self.listing.files_in(tag).filter(|(name, _)| has_extension(name, "pt")) {
            states |= name.ends_with("model_states.pt") || name.ends_with("optim_states.pt");
            reasons.note(torch_zip::check_state(self.fs, &found.path, found.size));
        }
        if !states {
            reasons.push(Reason::Missing { file: self.label(&format!("{tag}/*_states.pt")) });
        }
    }
}
