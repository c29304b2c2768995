//! Configurations as people write them, rightly and wrongly.

use std::time::Duration;

use nearfar::{CacheConfig, Disconnected, ErrorKind, Nearfar, RefreshAhead, Switch};

use crate::built;

#[test]
fn policies_are_words_or_words_with_a_value() {
    let policy =
        |text: &str| toml::from_str::<CacheConfig>(&format!("disconnected = {text}")).unwrap().disconnected;
    let ten_seconds = Some(Disconnected::ServeFor(Duration::from_secs(10)));
    assert_eq!(policy("'bypass'"), Some(Disconnected::Bypass));
    assert_eq!(policy("'serve'"), Some(Disconnected::Serve));
    assert_eq!((policy("{ serve_for = '10s' }"), policy("'serve_for:10s'")), (ten_seconds, ten_seconds));

    let ahead =
        |text: &str| toml::from_str::<CacheConfig>(&format!("refresh_ahead = {text}")).unwrap().refresh_ahead;
    let after = Some(Switch::On(RefreshAhead::After(0.5)));
    assert_eq!((ahead("{ after = 0.5 }"), ahead("'after:0.5'")), (after, after));
    assert_eq!(ahead("{ probabilistic = 2 }"), Some(Switch::On(RefreshAhead::Probabilistic(2.0))));
    assert_eq!(ahead("'off'"), Some(Switch::Off));
}

/// In each format, a mistake is told by the name of its setting.
#[test]
fn what_cannot_be_read_is_told_by_name() {
    let cases = [
        ("tll", r#""5m""#, "unknown field `tll`"),
        ("ttl", r#""soon""#, r#"a duration such as "250ms", "5m", "1h 30m" or "forever", not "soon""#),
        ("ttl", "300", "a duration such as"),
        ("idle", r#""never""#, r#"or "off", not "never""#),
        ("l1_max_bytes", "-1", "a number, or \"off\", not -1"),
        ("l1_max_entries", "true", "expected u64"),
        ("schema", "4294967296", "expected u32"),
        ("disconnected", r#""panic""#, "`bypass`, `serve` or"),
        ("disconnected", r#"{"serve_for": "x"}"#, "a duration such as"),
        ("disconnected", r#"{"serve_if": "5s"}"#, "unknown field `serve_if`, expected `serve_for`"),
        ("disconnected", r#"{"serve_for": "5s", "serve": "5s"}"#, "expected one entry"),
        ("unacknowledged", r#""ignore""#, "unknown variant `ignore`, expected `queue` or `fail`"),
        ("refresh_ahead", r#"{"later": 0.5}"#, "unknown field `later`, expected `after` or `probabilistic`"),
        ("refresh_ahead", r#""after:x""#, "{ after = 0.8 }"),
        ("finish_timed_out_loads", r#""yes""#, "expected a boolean"),
    ];
    for (setting, value, problem) in cases {
        let json = format!("{{\"schema\": 0, \"{setting}\": {value}}}").replacen(
            "\"schema\": 0, \"schema\"",
            "\"schema\"",
            1,
        );
        let told = serde_json::from_str::<CacheConfig>(&json).unwrap_err().to_string();
        assert!(told.contains(&format!("`{setting}`")) && told.contains(problem), "{json}: {told}");
        let toml = format!("{setting} = {}", value.replace("\": ", "\" = "));
        let told = toml::from_str::<CacheConfig>(&toml).unwrap_err().to_string();
        assert!(told.contains(&format!("`{setting}`")) && told.contains(problem), "{toml}: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_told_by_name_when_the_cache_is_built() {
    let cases = [
        ("ttl = '0s'", "`ttl` must not be zero"),
        ("idle = '0s'", "`idle` must not be zero"),
        ("absent_ttl = '0s'", "`absent_ttl` must not be zero"),
        ("l1_ttl = '0s'", "`l1_ttl` must not be zero"),
        ("l1_max_entries = 0", "`l1_max_entries` must not be zero"),
        ("l1_max_bytes = 0", "`l1_max_bytes` must not be zero"),
        ("jitter = 1", "`jitter` is a fraction"),
        ("refresh_ahead = { after = 1.5 }", "`refresh_ahead` is after a fraction"),
        (
            "soft_timeout = '2s'\nhard_timeout = '1s'",
            "`soft_timeout` of 2s must be shorter than `hard_timeout` of 1s",
        ),
        (
            "cluster_single_flight = '2m'",
            "`cluster_single_flight` of 120s must not be longer than `fence_window`",
        ),
        ("max_staleness = '1ms'", "`max_staleness` of 1ms is too short"),
        ("fence_window = '1ms'", "`fence_window` of 1ms is too short"),
        ("partitions = 2000", "partitions"),
    ];
    for (settings, problem) in cases {
        let refused = built(&toml::from_str(settings).unwrap()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config, "{settings}");
        assert!(refused.to_string().contains(problem), "{settings}: {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_later_goes_over_what_was_said_before() {
    let file: CacheConfig = toml::from_str("ttl = '1m'\nsoft_timeout = '1s'\nschema = 1").unwrap();
    let local: CacheConfig = toml::from_str("soft_timeout = 'off'\nschema = 2").unwrap();
    let builder = Nearfar::in_process().cache::<u64, u64>("numbers").schema(7).jitter(0.5);
    let cache = builder.config(&file).config(&local).schema(3).build().await.unwrap();
    let in_force = cache.config();
    assert_eq!((in_force.ttl, in_force.soft_timeout), (Some(Duration::from_secs(60)), Some(Switch::Off)));
    assert_eq!((in_force.schema, in_force.jitter), (Some(3), Some(0.5)));
}
