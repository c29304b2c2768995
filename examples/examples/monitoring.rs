//! What two nodes tell of an outage: events, and figures.
//!
//! ```text
//! cargo run --example monitoring
//! ```

use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use nearfar::{By, Cache, Event, Events, InProcess, Nearfar};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A service installs that of its monitoring system, before it does anything else.
    let gauges = Gauges::default();
    metrics::set_global_recorder(gauges.clone())?;

    let shared = InProcess::new();
    let (a, b) = (Nearfar::builder().in_process(&shared), Nearfar::builder().in_process(&shared));
    let here: Cache<String, u32> = a.cache("prices").build().await?;
    let there: Cache<String, u32> = b.cache("prices").build().await?;
    let (mut own, mut foreign) = (here.events(), there.events());

    println!("A sets a price, and B reads it");
    here.set("apple", 30).await?;
    there.get("apple").await?;
    tell("A", &mut own, |event| matches!(event, Event::Set { .. })).await;
    tell("B", &mut foreign, |event| matches!(event, Event::Invalidated { .. })).await;

    println!("\nthe store is away, and A invalidates");
    shared.cut_store();
    here.invalidate("apple").await?;
    tell("A", &mut own, |event| matches!(event, Event::Queued { .. })).await;
    a.report_metrics();
    gauges.print("nearfar_outbox_keys");

    println!("\nthe store is back");
    shared.heal_store();
    tell("A", &mut own, |event| matches!(event, Event::Delivered { .. })).await;
    tell("B", &mut foreign, |event| matches!(event, Event::Invalidated { by: By::Node(_), .. })).await;

    println!("\nthe bus is away from B, then back");
    shared.cut_bus();
    tell("B", &mut foreign, |event| matches!(event, Event::TrustLost { .. })).await;
    b.report_metrics();
    gauges.print("nearfar_trusted");
    shared.heal_bus();
    tell("B", &mut foreign, |event| matches!(event, Event::TrustGained { .. })).await;
    b.report_metrics();
    gauges.print("nearfar_trusted");
    Ok(())
}

/// Prints what a node tells, up to what is waited for.
async fn tell(node: &str, events: &mut Events, is_last: impl Fn(&Event) -> bool) {
    while let Some(event) = events.next().await {
        println!("{node}: {event:?}");
        if is_last(&event) {
            return;
        }
    }
}

/// The smallest recorder that shows something: gauges alone.
#[derive(Clone, Default)]
struct Gauges(Arc<Mutex<Vec<(Key, f64)>>>);

impl Gauges {
    fn print(&self, name: &str) {
        let gauges = self.0.lock().expect("nobody panics with it");
        let last = gauges.iter().rev().find(|(key, _)| key.name() == name);
        println!("{name} = {:?}", last.map(|(_, value)| *value));
    }
}

struct OneGauge(Gauges, Key);

impl GaugeFn for OneGauge {
    fn increment(&self, _: f64) {}

    fn decrement(&self, _: f64) {}

    fn set(&self, value: f64) {
        self.0.0.lock().expect("nobody panics with it").push((self.1.clone(), value));
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(OneGauge(self.clone(), key.clone())))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
