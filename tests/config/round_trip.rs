//! What was put in comes out.

use std::time::Duration;

use nearfar::{CacheConfig, Compression, Disconnected, LogKeys, RefreshAhead, Switch, Unacknowledged};
use proptest::option;
use proptest::prelude::*;

use crate::built;

/// From 1 ns to some 1,000 years, and for ever.
fn spans() -> impl Strategy<Value = Duration> {
    prop_oneof![
        8 => (0_u64..1 << 35, 1_u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        4 => (1_u64..1_000_000).prop_map(Duration::from_millis),
        1 => Just(Duration::MAX),
    ]
}

fn switched<T: Clone + std::fmt::Debug>(
    on: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<Switch<T>>> {
    option::of(prop_oneof![1 => Just(Switch::Off), 3 => on.prop_map(Switch::On)])
}

/// As people write them: not every format has the last digit of others.
fn fractions() -> impl Strategy<Value = f64> {
    (1_u32..1000).prop_map(|thousandths| f64::from(thousandths) / 1000.0)
}

fn refreshes() -> impl Strategy<Value = RefreshAhead> {
    prop_oneof![fractions().prop_map(RefreshAhead::After), fractions().prop_map(RefreshAhead::Probabilistic)]
}

fn policies() -> impl Strategy<Value = Disconnected> {
    prop_oneof![
        Just(Disconnected::Bypass),
        Just(Disconnected::Serve),
        spans().prop_map(Disconnected::ServeFor)
    ]
}

fn ways_to_log() -> impl Strategy<Value = LogKeys> {
    prop_oneof![Just(LogKeys::Hashed), Just(LogKeys::Plain), Just(LogKeys::Never)]
}

prop_compose! {
    /// What is measured in time.
    fn lifetimes()(
        (ttl, l1_ttl, grace) in (option::of(spans()), option::of(spans()), option::of(spans())),
        (stale_while_revalidate, retry_interval) in (option::of(spans()), option::of(spans())),
        (idle, absent_ttl) in (switched(spans()), switched(spans())),
        soft_timeout in switched((1_u64..1_000).prop_map(Duration::from_millis)),
        hard_timeout in switched((1_000_u64..2_000).prop_map(Duration::from_millis)),
        cluster_single_flight in switched((1_u64..1_000).prop_map(Duration::from_millis)),
        max_staleness in option::of((20_u64..60_000).prop_map(Duration::from_millis)),
        fence_window in option::of((1_000_u64..90_000).prop_map(Duration::from_millis)),
    ) -> CacheConfig {
        let mut config = CacheConfig::default();
        (config.ttl, config.l1_ttl, config.grace) = (ttl, l1_ttl, grace);
        (config.stale_while_revalidate, config.retry_interval) = (stale_while_revalidate, retry_interval);
        (config.idle, config.absent_ttl) = (idle, absent_ttl);
        (config.soft_timeout, config.hard_timeout) = (soft_timeout, hard_timeout);
        (config.cluster_single_flight, config.fence_window) = (cluster_single_flight, fence_window);
        config.max_staleness = max_staleness;
        config
    }
}

prop_compose! {
    fn configs()(
        lifetimes in lifetimes(),
        refresh_ahead in switched(refreshes()),
        finish_timed_out_loads in option::of(any::<bool>()),
        jitter in option::of(fractions()),
        l1_max_entries in option::of(1_u64..1 << 62),
        l1_max_bytes in switched(1_u64..1 << 62),
        disconnected in option::of(policies()),
        unacknowledged in option::of(prop_oneof![Just(Unacknowledged::Queue), Just(Unacknowledged::Fail)]),
        partitions in option::of(1_u16..4),
        schema in option::of(any::<u32>()),
        compression in switched((any::<bool>(), 0_usize..10_000).prop_map(|(fast, above)| {
            if fast { Compression::lz4().above(above) } else { Compression::zstd().above(above) }
        })),
        (max_value_bytes, log_keys) in (option::of(1_usize..1 << 20), option::of(ways_to_log())),
    ) -> CacheConfig {
        let mut config = lifetimes;
        (config.refresh_ahead, config.finish_timed_out_loads) = (refresh_ahead, finish_timed_out_loads);
        (config.jitter, config.l1_max_entries, config.l1_max_bytes) = (jitter, l1_max_entries, l1_max_bytes);
        (config.disconnected, config.unacknowledged) = (disconnected, unacknowledged);
        (config.partitions, config.schema) = (partitions, schema);
        (config.compression, config.max_value_bytes) = (compression, max_value_bytes);
        config.log_keys = log_keys;
        config
    }
}

/// The settings that are said, by name.
fn said(config: &CacheConfig) -> serde_json::Map<String, serde_json::Value> {
    let serde_json::Value::Object(mut settings) = serde_json::to_value(config).unwrap() else {
        panic!("settings have names")
    };
    settings.retain(|_, value| !value.is_null());
    settings
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_configuration_is_the_same_after_json_and_after_toml(config in configs()) {
        let json = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(&serde_json::from_str::<CacheConfig>(&json).unwrap(), &config);
        let toml = toml::to_string(&config).unwrap();
        prop_assert_eq!(&toml::from_str::<CacheConfig>(&toml).unwrap(), &config, "{}", toml);
    }

    #[test]
    fn what_a_cache_was_told_is_in_force_and_tells_the_next_cache_the_same(config in configs()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let in_force = built(&config).await.unwrap().config();
            let all = said(&in_force);
            prop_assert_eq!(all.len(), serde_json::to_value(&in_force).unwrap().as_object().unwrap().len());
            for (setting, value) in said(&config) {
                prop_assert_eq!(&all[&setting], &value, "{}", setting);
            }
            prop_assert_eq!(built(&in_force).await.unwrap().config(), in_force);
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_said_is_as_the_builder_has_it() {
    let defaults = built(&CacheConfig::default()).await.unwrap().config();
    let expected = r#"
        ttl = "5m"
        idle = "off"
        grace = "0s"
        absent_ttl = "off"
        stale_while_revalidate = "0s"
        retry_interval = "1s"
        refresh_ahead = "off"
        cluster_single_flight = "off"
        soft_timeout = "off"
        hard_timeout = "off"
        finish_timed_out_loads = true
        jitter = 0.0
        l1_ttl = "forever"
        l1_max_entries = 10000
        l1_max_bytes = "off"
        max_staleness = "5s"
        disconnected = "bypass"
        unacknowledged = "queue"
        fence_window = "1m"
        partitions = 1
        schema = 0
        compression = "off"
        max_value_bytes = 67108864
        log_keys = "hashed"
    "#;
    assert_eq!(defaults, toml::from_str(expected).unwrap());
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(toml::to_string(&defaults).unwrap().lines().collect::<Vec<_>>(), expected);
}
