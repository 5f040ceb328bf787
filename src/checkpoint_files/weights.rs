//! Whether the weights of a checkpoint are whole, in any form Hugging Face trainers save them:
//! safetensors or `torch.save`, sharded or not, adapter or model, FSDP or `DeepSpeed` shards. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::adapter::{AdapterConfig, AdapterFacts};
use super::inspect::Format;
use super::json;
use super::listing::{Found, Listing};
use super::reason::Reasons;
use super::safetensors::{self, Header};
use super::{FileSystem, Reason, RelPath, cut, limits, lost_weights, torch_zip};

/// What was learned of the weights.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    pub(crate) format: Option<Format>,
    pub(crate) adapter: Option<AdapterFacts>,
    /// Whether a server can load them as they lie there.
    pub(crate) servable: bool,
    /// A file whose weights are no numbers.
    pub(crate) lost: Option<String>,
}

/// A checkpoint being looked at.
pub(crate) struct View<'a, F: ?Sized> {
    pub(crate) fs: &'a F,
    pub(crate) dir: &'a RelPath,
    pub(crate) listing: &'a Listing,
}

/// An object of which only the form matters.
#[derive(Deserialize)]
struct AnyObject {}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Checks every file that holds weights or says how to read them.
pub(crate) fn check<F: FileSystem + ?Sized>(view: &View<'_, F>, reasons: &mut Reasons) -> Weights {
    let (format, home) = format_and_home(view.listing);
    let (headers, lost) = view.headers(reasons);
    let files: Vec<_> = view.listing.files_in(home).filter(|(name, _)| is_weight_file(format, name)).collect();
    for (name, found) in &files {
        if has_extension(name, "bin") {
            reasons.note(torch_zip::check(view.fs, &found.path, found.size));
        }
    }
    view.check_indexes(home, &headers, reasons);
    let shards = view.check_fsdp("pytorch_model_fsdp_", reasons) | view.check_deepspeed(reasons);
    let mut weights = Weights { servable: !files.is_empty(), lost, ..Weights::default() };
    match format {
        Format::Adapter => weights.adapter = view.adapter(home, reasons),
        Format::Model => {
            let config = view.listing.file_in(home, "config.json");
            weights.servable &= config.is_some();
            if let Some(found) = config {
                reasons.note(view.json::<AnyObject>(found));
            }
        }
    }
    if files.is_empty() && !shards {
        reasons.push(Reason::NoWeights { dir: view.dir.to_string() });
    }
    let known = !files.is_empty() || shards || weights.adapter.is_some();
    weights.format = known.then_some(format);
    weights
}

/// Adapters lie at the top, or, where the trainer gave them a name, in a directory of that name.
fn format_and_home(listing: &Listing) -> (Format, &str) {
    let is_adapter = |name: &str| name == ADAPTER_CONFIG || is_weight_file(Format::Adapter, name);
    if listing.files_in("").any(|(name, _)| is_adapter(name)) {
        return (Format::Adapter, "");
    }
    if listing.files_in("").any(|(name, _)| is_weight_file(Format::Model, name)) {
        return (Format::Model, "");
    }
    let named = listing.top_dirs().find(|dir| listing.file_in(dir, ADAPTER_CONFIG).is_some());
    named.map_or((Format::Model, ""), |dir| (Format::Adapter, dir))
}

const ADAPTER_CONFIG: &str = "adapter_config.json";

fn is_weight_file(format: Format, name: &str) -> bool {
    let adapter = name.starts_with("adapter_model");
    let safetensors = has_extension(name, "safetensors");
    match format {
        Format::Adapter => adapter && (safetensors || has_extension(name, "bin")),
        Format::Model => {
            let torch = name.starts_with("pytorch_model") && has_extension(name, "bin");
            !adapter && (safetensors || torch)
        }
    }
}

/// The index a file named like one shard of several belongs to.
fn index_of_shard(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    let (stem, total) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let shard = digits(total) && digits(number) && matches!(extension, "safetensors" | "bin");
    shard.then(|| format!("{stem}.{extension}.index.json"))
}

impl<F: FileSystem + ?Sized> View<'_, F> {
    /// A JSON file of the checkpoint.
    fn json<T: DeserializeOwned>(&self, found: &Found) -> Result<T, Reason> {
        json::parse_file(self.fs, &found.path, found.size, limits::JSON_BYTES)
    }

    /// How a file or directory of the checkpoint is called in a reason.
    pub(crate) fn label(&self, relative: &str) -> String {
        if self.dir.is_root() { relative.to_owned() } else { format!("{}/{relative}", self.dir) }
    }

    /// The headers of all safetensors files, wherever they lie, and one of these whose weights are no numbers.
    fn headers(&self, reasons: &mut Reasons) -> (BTreeMap<&str, Header>, Option<String>) {
        let files = self.listing.files.iter().filter(|(path, _)| has_extension(path, "safetensors"));
        let (mut headers, mut lost) = (BTreeMap::new(), None);
        for (path, found) in files {
            let Some((header, data)) = reasons.note(safetensors::check(self.fs, &found.path, found.size)) else { continue };
            if lost.is_none() && lost_weights::are_lost(self.fs, &found.path, data, &header.sampled) {
                lost = Some(found.path.to_string());
            }
            headers.insert(path.as_str(), header);
        }
        (headers, lost)
    }

    fn check_indexes(&self, home: &str, headers: &BTreeMap<&str, Header>, reasons: &mut Reasons) {
        for (name, found) in self.listing.files_in(home) {
            if let Some(index) = index_of_shard(name)
                && self.listing.file_in(home, &index).is_none()
            {
                reasons.push(Reason::Missing { file: self.label(&join(home, &index)) });
            }
            let kinds = [".safetensors.index.json", ".bin.index.json"];
            if kinds.iter().any(|kind| name.ends_with(kind))
                && let Some(Index { weight_map }) = reasons.note(self.json(found))
            {
                reasons.extend(self.check_index(home, found, &weight_map, headers));
            }
        }
    }

    fn check_index(
        &self,
        home: &str,
        index: &Found,
        weight_map: &BTreeMap<String, String>,
        headers: &BTreeMap<&str, Header>,
    ) -> Vec<Reason> {
        let bad = |problem| Reason::BadIndex { file: index.path.to_string(), problem };
        if weight_map.is_empty() {
            return vec![bad("it lists no tensors".to_owned())];
        }
        let mut reasons = Vec::new();
        for (tensor, file) in weight_map {
            if reasons.len() >= limits::REASONS {
                break;
            }
            let shown = cut(file, limits::METRIC_NAME);
            if RelPath::parse(file).is_err() {
                reasons.push(bad(format!("it names the file {shown:?}")));
            } else if self.listing.file_in(home, file).is_none() {
                let missing = Reason::Missing { file: self.label(&join(home, shown)) };
                if reasons.last() != Some(&missing) {
                    reasons.push(missing);
                }
            } else if headers.get(join(home, file).as_str()).is_some_and(|header| !header.tensors.contains(tensor)) {
                let tensor = cut(tensor, limits::METRIC_NAME);
                reasons.push(bad(format!("{shown} does not hold the tensor {tensor:?}")));
            }
        }
        reasons
    }

    fn adapter(&self, home: &str, reasons: &mut Reasons) -> Option<AdapterFacts> {
        let Some(found) = self.listing.file_in(home, ADAPTER_CONFIG) else {
            let file = self.label(&join(home, ADAPTER_CONFIG));
            reasons.push(Reason::Missing { file });
            return None;
        };
        reasons.note(self.json::<AdapterConfig>(found)).map(AdapterFacts::from)
    }
}

fn join(home: &str, name: &str) -> String {
    if home.is_empty() { name.to_owned() } else { format!("{home}/{name}") }
}

pub(crate) fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found == extension)
}
