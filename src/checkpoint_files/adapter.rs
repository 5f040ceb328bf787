//! What an adapter's `adapter_config.json` says about how it can be served. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, de};

use super::json::{Object, Scalar};
use super::{cut, limits};

/// The facts a server needs to load an adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdapterFacts {
    /// The greatest rank in it; none for adapters that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
    /// The modules it adapts, sorted; one pattern or `all-linear` where the trainer wrote a text.
    #[serde(default)]
    pub target_modules: Vec<String>,
    /// The modules it holds whole, sorted.
    #[serde(default)]
    pub modules_to_save: Vec<String>,
    /// The base model as the trainer named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
}

/// `adapter_config.json`, as far as it matters here.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct AdapterConfig {
    r: Scalar,
    rank_pattern: Object<BTreeMap<String, Scalar>>,
    target_modules: TextOrList,
    modules_to_save: TextOrList,
    base_model_name_or_path: Scalar,
}

impl From<AdapterConfig> for AdapterFacts {
    fn from(config: AdapterConfig) -> Self {
        let patterns = config.rank_pattern.0.values().filter_map(Scalar::count).max();
        let base = config.base_model_name_or_path.into_text();
        Self {
            rank: config.r.count().max(patterns),
            target_modules: config.target_modules.0,
            modules_to_save: config.modules_to_save.0,
            base_model: base.map(|name| cut(&name, limits::STRING).to_owned()),
        }
    }
}

/// A list of texts, or one text; sorted, without doubles, bounded.
#[derive(Default)]
struct TextOrList(Vec<String>);

impl<'de> Deserialize<'de> for TextOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = deserializer.deserialize_any(TextOrListVisitor)?;
        list.sort_unstable();
        list.dedup();
        list.truncate(limits::LIST);
        Ok(Self(list))
    }
}

struct TextOrListVisitor;

impl<'de> Visitor<'de> for TextOrListVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list of texts or null")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<String>, E> {
        Ok(Vec::new())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Vec<String>, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Vec::new())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![cut(text, limits::STRING).to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some(item) = list.next_element::<Scalar>()? {
            texts.extend(item.into_text().map(|text| cut(&text, limits::STRING).to_owned()));
        }
        Ok(texts)
    }
}
