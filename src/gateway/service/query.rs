//! Which runs of a project are asked for, in which order, and which page of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{REPOSITORY, standing};
use crate::api::{FineTune, FineTunePhase};

/// Furthest page: what lies before it is held in memory.
pub const FURTHEST: usize = 10_000;
/// Longest page.
pub const LONGEST: usize = 100;

/// Which runs are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only in these phases; all when absent.
    pub phases: Option<Vec<FineTunePhase>>,
    /// Only of this base model.
    pub base_model: Option<String>,
    /// Only those whose name, display name or description contains this.
    pub search: Option<String>,
    /// Only those with this metadata.
    pub metadata: BTreeMap<String, String>,
    /// Only of this repository.
    pub repository: Option<String>,
}

impl Filter {
    /// Whether the run is asked for.
    #[must_use]
    pub fn holds(&self, run: &FineTune) -> bool {
        let spec = &run.spec;
        let contains = |text: &str, wanted: &str| text.to_lowercase().contains(wanted);
        self.phases.as_ref().is_none_or(|phases| phases.contains(&standing::phase(run)))
            && self.base_model.as_ref().is_none_or(|model| spec.base_model.name == *model)
            && self.metadata.iter().all(|(key, value)| spec.metadata.get(key) == Some(value))
            && self.repository.as_ref().is_none_or(|repository| run.labels().get(REPOSITORY) == Some(repository))
            && self.search.as_ref().map(|wanted| wanted.to_lowercase()).is_none_or(|wanted| {
                let said = [spec.display_name.as_deref(), spec.description.as_deref()];
                contains(&run.name_any(), &wanted) || said.into_iter().flatten().any(|text| contains(text, &wanted))
            })
    }
}

/// What runs are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field {
    /// When it was made.
    #[default]
    Created,
    /// When it last changed.
    Updated,
    /// When it began.
    Started,
    /// When it ended.
    Finished,
    /// What people call it.
    Name,
    /// Its phase.
    Status,
    /// Its base model.
    BaseModel,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub field: Field,
    /// Whether the greatest comes first.
    pub descending: bool,
}

/// Newest first.
pub const NEWEST_FIRST: Sort = Sort { field: Field::Created, descending: true };

/// The place of a run in an order; of equals the name decides.
pub type Place = (Option<Timestamp>, String, Option<Timestamp>, String);

impl Sort {
    /// The place of a run.
    #[must_use]
    pub fn place(self, run: &FineTune) -> Place {
        let (time, text) = match self.field {
            Field::Created => (standing::created(run), String::new()),
            Field::Updated => (standing::updated(run), String::new()),
            Field::Started => (standing::started(run), String::new()),
            Field::Finished => (standing::finished(run), String::new()),
            Field::Name => (None, run.spec.display_name.clone().unwrap_or_else(|| run.name_any())),
            Field::Status => (None, format!("{:?}", standing::phase(run))),
            Field::BaseModel => (None, run.spec.base_model.name.clone()),
        };
        (time, text, standing::created(run), run.name_any())
    }
}

/// Keeps one page of what it is shown, and no more than lies before it.
pub struct Page {
    sort: Sort,
    offset: usize,
    most: usize,
    after: Option<Place>,
    kept: BTreeMap<Place, FineTune>,
    /// Runs that match, on any page.
    pub total: usize,
}

impl Page {
    /// The page of `limit` runs that follow the first `offset`.
    #[must_use]
    pub const fn at(sort: Sort, offset: usize, limit: usize) -> Self {
        Self { sort, offset, most: offset.saturating_add(limit), after: None, kept: BTreeMap::new(), total: 0 }
    }

    /// The page of `limit` runs that follow a place, and one more that tells whether there are more.
    #[must_use]
    pub const fn after(sort: Sort, after: Option<Place>, limit: usize) -> Self {
        Self { sort, offset: 0, most: limit.saturating_add(1), after, kept: BTreeMap::new(), total: 0 }
    }

    /// How many runs it keeps at most.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Shows it a run that matches.
    pub fn see(&mut self, run: FineTune) {
        self.total += 1;
        let place = self.sort.place(&run);
        let comes_later = |after: &Place| if self.sort.descending { place < *after } else { place > *after };
        if !self.after.as_ref().is_none_or(comes_later) {
            return;
        }
        self.kept.insert(place, run);
        if self.kept.len() > self.most {
            drop(if self.sort.descending { self.kept.pop_first() } else { self.kept.pop_last() });
        }
    }

    /// The runs of the page, in order.
    #[must_use]
    pub fn runs(self) -> Vec<FineTune> {
        let (offset, descending) = (self.offset, self.sort.descending);
        let kept = self.kept.into_values();
        if descending { kept.rev().skip(offset).collect() } else { kept.skip(offset).collect() }
    }
}

/// How many runs are in each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, usize>);

impl Counts {
    /// Counts a run.
    pub fn see(&mut self, run: &FineTune) {
        *self.0.entry(format!("{:?}", standing::phase(run))).or_default() += 1;
    }

    /// How many are in one of these phases.
    #[must_use]
    pub fn of(&self, phases: &[FineTunePhase]) -> usize {
        let names: BTreeSet<String> = phases.iter().map(|phase| format!("{phase:?}")).collect();
        self.0.iter().filter(|(phase, _)| names.contains(*phase)).map(|(_, count)| count).sum()
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn run(name: &str, minute: u32) -> FineTune {
        serde_json::from_value(json!({
            "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune",
            "metadata": {"name": name, "creationTimestamp": format!("2027-01-15T07:{minute:02}:00Z"), "labels": {REPOSITORY: "repo"}},
            "spec": {"baseModel": {"name": "m"}, "dataset": {"name": "d"}, "displayName": "Support Bot", "metadata": {"team": "a"}},
        }))
        .unwrap()
    }

    fn names(runs: &[FineTune]) -> Vec<String> {
        runs.iter().map(ResourceExt::name_any).collect()
    }

    #[test]
    fn filters_hold_together() {
        let filter = Filter {
            phases: Some(vec![FineTunePhase::Pending]),
            base_model: Some("m".into()),
            search: Some("SUPPORT".into()),
            metadata: [("team".to_owned(), "a".to_owned())].into(),
            repository: Some("repo".into()),
        };
        let run = run("a", 0);
        assert!(filter.holds(&run));
        for other in [
            Filter { phases: Some(vec![]), ..filter.clone() },
            Filter { base_model: Some("x".into()), ..filter.clone() },
            Filter { search: Some("sales".into()), ..filter.clone() },
            Filter { metadata: [("team".to_owned(), "b".to_owned())].into(), ..filter.clone() },
            Filter { repository: Some("x".into()), ..filter.clone() },
        ] {
            assert!(!other.holds(&run), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn pages_are_slices_of_the_whole_order_and_keep_no_more_than_they_need(
            minutes in proptest::collection::vec(0_u32..5, 0..30), offset in 0_usize..12, limit in 1_usize..12, descending: bool,
        ) {
            let sort = Sort { field: Field::Created, descending };
            let all: Vec<FineTune> = minutes.iter().enumerate().map(|(index, minute)| run(&format!("r{index:02}"), *minute)).collect();
            let mut ordered = all.clone();
            ordered.sort_by_key(|run| sort.place(run));
            if descending {
                ordered.reverse();
            }
            let mut page = Page::at(sort, offset, limit);
            for run in &all {
                page.see(run.clone());
                prop_assert!(page.kept.len() <= offset + limit);
            }
            prop_assert_eq!(page.total, all.len());
            let expected: Vec<_> = names(&ordered).into_iter().skip(offset).take(limit).collect();
            prop_assert_eq!(names(&page.runs()), expected);

            let Some(cursor) = ordered.get(offset) else { return Ok(()) };
            let mut page = Page::after(sort, Some(sort.place(cursor)), limit);
            for run in &all {
                page.see(run.clone());
            }
            let expected: Vec<_> = names(&ordered).into_iter().skip(offset + 1).take(limit + 1).collect();
            prop_assert_eq!(names(&page.runs()), expected);
        }
    }
}
