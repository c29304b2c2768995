//! Figures: that what `docs/monitoring.md` names is told, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use nearfar::metrics as names;
use nearfar::{Cache, InProcess, Loaded, Nearfar};
use nearfar_testkit::eventually;
use nearfar_tests::trusted;

const DOCUMENTED: &str = include_str!("../../docs/monitoring.md");

/// What was recorded, by name and labels.
#[derive(Clone, Debug, Default)]
struct Records(Arc<Mutex<BTreeMap<String, f64>>>);

/// One series.
#[derive(Debug)]
struct Series(Records, String);

impl Series {
    fn put(&self, change: impl FnOnce(f64) -> f64) {
        let mut records = self.0.0.lock().unwrap();
        let value = records.entry(self.1.clone()).or_default();
        *value = change(*value);
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
impl CounterFn for Series {
    fn increment(&self, more: u64) {
        self.put(|value| value + more as f64);
    }

    fn absolute(&self, value: u64) {
        self.put(|_| value as f64);
    }
}

impl GaugeFn for Series {
    fn increment(&self, more: f64) {
        self.put(|value| value + more);
    }

    fn decrement(&self, less: f64) {
        self.put(|value| value - less);
    }

    fn set(&self, value: f64) {
        self.put(|_| value);
    }
}

/// How often something was recorded.
impl HistogramFn for Series {
    fn record(&self, _: f64) {
        self.put(|count| count + 1.0);
    }
}

impl Records {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Series(self.clone(), format!("{}{{{}}}", key.name(), labels.join(","))))
    }

    fn of(&self, series: &str) -> Option<f64> {
        self.0.lock().unwrap().get(series).copied()
    }

    /// The names, and the names of their labels.
    fn names(&self) -> BTreeSet<(String, Vec<String>)> {
        let names = |series: &String| {
            let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap();
            let labels = labels.split(',').map(|label| label.split('=').next().unwrap().to_owned());
            (name.to_owned(), labels.collect())
        };
        self.0.lock().unwrap().keys().map(names).collect()
    }
}

impl Recorder for Records {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}

/// That of this process.
fn records() -> &'static Records {
    static RECORDS: OnceLock<Records> = OnceLock::new();
    RECORDS.get_or_init(|| {
        let records = Records::default();
        metrics::set_global_recorder(records.clone()).expect("nobody else has installed one");
        records
    })
}

/// The rows of the table: a name, and its labels.
fn documented() -> BTreeSet<(String, Vec<String>)> {
    let figures = DOCUMENTED.split("## Figures").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows = figures.lines().filter(|line| line.starts_with("| `nearfar_"));
    let row = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[3]
            .split(',')
            .map(|label| label.split(':').next().unwrap().trim().trim_matches('`').to_owned());
        (cells[1].trim_matches('`').to_owned(), labels.collect())
    };
    rows.map(row).collect()
}

async fn load(key: u64) -> Result<String, std::io::Error> {
    Ok(format!("value of {key}"))
}

async fn fail(_: u64) -> Result<String, std::io::Error> {
    Err(std::io::Error::other("no database"))
}

async fn cache_of(shared: &InProcess, namespace: &str) -> (Nearfar, Cache<u64, String>) {
    let nearfar = Nearfar::builder().in_process(shared);
    let cache = nearfar.cache(namespace).l1_max_bytes(1 << 20).build().await.unwrap();
    (nearfar, cache)
}

/// Two nodes, a loader that fails, and a store that goes away.
#[tokio::test(start_paused = true)]
async fn every_documented_figure_is_told_and_no_other() {
    let (records, shared) = (records(), InProcess::new());
    let (a, here) = cache_of(&shared, "scenario").await;
    let (_b, there) = cache_of(&shared, "scenario").await;
    here.get_or_load(&1, load).await.unwrap();
    here.get(&1).await.unwrap();
    here.get_or_load(&2, fail).await.unwrap_err();
    here.set_with(&3, Loaded::new("v".to_owned()).tags(["t"])).await.unwrap();
    there.get(&3).await.unwrap();
    here.invalidate(&1).await.unwrap();
    eventually("it is heard of", async || there.stats().invalidations_received >= 2).await;
    shared.cut_store();
    here.invalidate(&3).await.unwrap();
    a.report_metrics();
    assert_eq!(records.of("nearfar_outbox_keys{namespace=scenario}"), Some(1.0));
    shared.heal_store();
    eventually("it is delivered", async || here.stats().outbox_keys == 0).await;
    shared.flush();
    eventually("it starts over", async || here.stats().resyncs > 0).await;
    trusted(&here).await;
    a.report_metrics();

    for (series, value) in [
        ("nearfar_hits_total{namespace=scenario,tier=l1}", 1.0),
        ("nearfar_loads_total{namespace=scenario,outcome=found}", 1.0),
        ("nearfar_loads_total{namespace=scenario,outcome=failed}", 1.0),
        ("nearfar_load_seconds{namespace=scenario}", 1.0),
        ("nearfar_outbox_queued_total{namespace=scenario}", 1.0),
        ("nearfar_outbox_keys{namespace=scenario}", 0.0),
        ("nearfar_trusted{namespace=scenario}", 1.0),
    ] {
        assert_eq!(records.of(series), Some(value), "{series}: {records:#?}");
    }
    assert!(records.of("nearfar_propagation_seconds{namespace=scenario}") >= Some(2.0));
    assert!(records.of("nearfar_l2_bytes_total{namespace=scenario,direction=written}") > Some(0.0));
    assert!(records.of("nearfar_resyncs_total{namespace=scenario}") >= Some(1.0));

    assert_eq!(records.names(), documented());
    let constants: BTreeSet<_> = names::NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(constants, documented().into_iter().map(|(name, _)| name).collect());
}

#[tokio::test(start_paused = true)]
async fn figures_are_told_by_themselves_and_at_the_end() {
    let (records, shared) = (records(), InProcess::new());
    let (nearfar, cache) = cache_of(&shared, "alone").await;
    cache.set(&1, "v".to_owned()).await.unwrap();
    let sets = || records.of("nearfar_sets_total{namespace=alone}");
    assert!(sets().is_none());
    tokio::time::advance(names::INTERVAL + Duration::from_millis(1)).await;
    eventually("they are told", async || sets() == Some(1.0)).await;
    cache.set(&1, "v".to_owned()).await.unwrap();
    nearfar.shutdown().await;
    assert_eq!(sets(), Some(2.0));
}

/// Were it told where the counts stand, those of the second cache would be hidden by those of the first.
#[tokio::test(start_paused = true)]
async fn caches_of_one_name_add_up() {
    let (records, shared) = (records(), InProcess::new());
    let (a, here) = cache_of(&shared, "twins").await;
    let (b, there) = cache_of(&shared, "twins").await;
    here.set(&1, "v".to_owned()).await.unwrap();
    there.set(&1, "v".to_owned()).await.unwrap();
    (0..2).for_each(|_| [&a, &b].into_iter().for_each(Nearfar::report_metrics));
    assert_eq!(records.of("nearfar_sets_total{namespace=twins}"), Some(2.0));
    drop(here);
    let again: Cache<u64, String> = a.cache("twins").build().await.unwrap();
    again.set(&1, "v".to_owned()).await.unwrap();
    a.report_metrics();
    assert_eq!(records.of("nearfar_sets_total{namespace=twins}"), Some(3.0));
}

/// A report asks L1 how full it is, which gives back memory, while others fill it and evict from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_and_changes_do_not_wait_for_each_other() {
    let (_, shared) = (records(), InProcess::new());
    let (a, here) = cache_of(&shared, "busy").await;
    let (b, there) = cache_of(&shared, "busy").await;
    let done = Arc::new(AtomicBool::new(false));
    let reports = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            while !done.load(Ordering::Relaxed) {
                [&a, &b].into_iter().for_each(Nearfar::report_metrics);
            }
        }
    });
    let keys: Vec<u64> = (0..2_500).collect();
    for _ in 0..5 {
        let entries = keys.iter().map(|key| (*key, key.to_string()));
        assert!(here.set_many(entries).await.into_iter().all(|outcome| outcome.is_ok()));
        assert!(there.get_many(&keys).await.into_iter().all(|entry| entry.is_ok()));
        assert!(here.invalidate_many(&keys).await.into_iter().all(|outcome| outcome.is_ok()));
    }
    done.store(true, Ordering::Relaxed);
    reports.join().unwrap();
}
