//! How many objects there are in each phase, counted from the watches when somebody asks for the metrics.

use std::{
    fmt::{self, Debug},
    sync::{Arc, atomic::AtomicI64},
};

use kube::runtime::reflector::{Lookup, Store};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{family::Family, gauge::Gauge},
};

use super::world::World;
use crate::api::FineTunePhase;

/// Counts when it is asked.
pub struct Census(pub Arc<World>);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stand {
    kind: &'static str,
    phase: String,
}

impl Debug for Census {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Census")
    }
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (objects, world) = (Family::<Stand, Gauge>::default(), &self.0);
        count(&objects, "FineTune", &world.fine_tunes, |run| run.status.as_ref().map(|status| status.phase));
        count(&objects, "Checkpoint", world.checkpoints.store(), |saved| saved.status.as_ref().map(|status| status.phase));
        count(&objects, "Deployment", &world.deployments, |served| served.status.as_ref().map(|status| status.phase));
        objects.encode(encoder.encode_descriptor("objects", "Objects by kind and phase", None, objects.metric_type())?)?;
        let gpus = Gauge::<i64, AtomicI64>::default();
        gpus.set(training_gpus(world));
        gpus.encode(encoder.encode_descriptor("training_gpus", "GPUs of the runs that train", None, gpus.metric_type())?)
    }
}

/// Counts the objects of a kind; one without a status is as good as new.
fn count<K, P>(objects: &Family<Stand, Gauge>, kind: &'static str, store: &Store<K>, phase: impl Fn(&K) -> Option<P>)
where
    K: Lookup<DynamicType = ()> + Clone + 'static,
    P: Debug + Default,
{
    for object in store.state() {
        let phase = format!("{:?}", phase(&object).unwrap_or_default());
        objects.get_or_create(&Stand { kind, phase }).inc();
    }
}

fn training_gpus(world: &World) -> i64 {
    let runs = world.fine_tunes.state().into_iter().filter_map(|run| run.status.clone());
    let training = runs.filter(|status| status.phase == FineTunePhase::Running).filter_map(|status| status.resolved);
    training.map(|resolved| i64::from(resolved.gpus)).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::{Client, Config};

    use super::*;
    use crate::{controllers::namespaces::Namespaces, reports::ReportMetrics, telemetry::Metrics};

    /// Every word of ours that names a metric in a text.
    fn metrics_in(text: &str) -> BTreeSet<String> {
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        words.filter(|word| word.starts_with("finetune_")).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn dashboard_and_alerts_ask_for_metrics_that_exist() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(Config::new("http://localhost:1".parse().unwrap())).unwrap();
        let (world, _wakes, _watches) = World::watch(&client, &Namespaces::default(), false);
        let (metrics, reports) = (Metrics::default(), ReportMetrics::default());
        metrics.register(|registry| {
            reports.register(registry);
            registry.register_collector(Box::new(Census(world)));
        });
        // A family without a member is not told of.
        metrics.reconcile_failed("FineTune", "Refused");
        reports.count_report("Accepted");
        reports.count_write("Checkpoint");
        let text = metrics.text().unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let there: BTreeSet<_> =
            types.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() }).collect();
        for file in ["dashboards/finetune-operator.json", "templates/monitoring.yaml"] {
            let asked = metrics_in(&std::fs::read_to_string(format!("charts/finetune-operator/{file}")).unwrap());
            assert!(!asked.is_empty() && asked.is_subset(&there), "{file}: {asked:?} of {there:?}");
        }
    }
}
