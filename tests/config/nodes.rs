//! The settings of a node, and those of its caches beside them.

use std::time::Duration;

use nearfar::{Cache, ErrorKind, Nearfar, NearfarConfig};
use nearfar_testkit::{Authority, RedisServer, Validity};

fn config(text: &str) -> NearfarConfig {
    toml::from_str(text).unwrap()
}

#[tokio::test]
async fn a_node_and_its_caches_are_what_a_file_says() {
    let server = RedisServer::start().await;
    let config = config(&format!(
        "url = '{}'\ncommand_timeout = '700ms'\nlog_len = 5\n[caches.users]\nttl = '1m'\n[caches.prices]\n",
        server.url()
    ));
    let nearfar = config.connect().await.unwrap();
    let users: Cache<u64, u64> =
        nearfar.cache("users").config(config.cache("users").unwrap()).build().await.unwrap();
    let prices: Cache<u64, u64> =
        nearfar.cache("prices").config(config.cache("prices").unwrap()).build().await.unwrap();
    assert_eq!(
        (users.config().ttl, prices.config().ttl),
        (Some(Duration::from_secs(60)), Some(Duration::from_secs(300)))
    );
    assert!(users.set(&1, 2).await.unwrap().is_applied());

    let told = format!("{:?}", Nearfar::builder().config(&config).unwrap());
    assert!(told.contains("command: 700ms") && told.contains("log_len: 5"), "{told}");
}

#[tokio::test]
async fn whom_to_believe_and_what_to_show_comes_from_files() {
    let authority = Authority::new("ours");
    let (of_server, of_node) =
        (authority.issue(&["localhost"], Validity::Now), authority.issue(&["node"], Validity::Now));
    let server = RedisServer::builder().tls(&of_server, Some(&authority)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let url = ("REDIS_URL", format!("rediss://localhost:{}", server.tls_port()));
    let ca = ("REDIS_TLS_CA_FILE", file("ca.pem", authority.pem()));
    let certificate = ("REDIS_TLS_CERTIFICATE_FILE", file("node.pem", &of_node.pem));
    let key = ("REDIS_TLS_KEY_FILE", file("node.key", &of_node.key));

    let config = NearfarConfig::from_vars("REDIS_", [url.clone(), ca.clone(), certificate, key]).unwrap();
    let users: Cache<u64, u64> = config.connect().await.unwrap().cache("users").build().await.unwrap();
    assert!(users.set(&1, 2).await.unwrap().is_applied());

    let stranger = NearfarConfig::from_vars("REDIS_", [url, ca]).unwrap();
    assert!(stranger.connect().await.is_err(), "the server asks for a certificate");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_told_by_name() {
    let refused = async |text: &str| config(text).connect().await.unwrap_err();
    let cases = [
        ("log_len = 5", "`url` is missing"),
        ("url = 'redis://127.0.0.1:1'\nconnect_timeout = '0s'", "`connect_timeout` must not be zero"),
        (
            "url = 'rediss://127.0.0.1:1'\ntls_ca_file = '/no/such/file'",
            "`tls_ca_file`: /no/such/file cannot be read",
        ),
        ("url = 'rediss://127.0.0.1:1'\ntls_certificate_file = '/dev/null'", "`tls_key_file` is missing"),
        ("url = 'rediss://127.0.0.1:1'\ntls_key_file = '/dev/null'", "`tls_certificate_file` is missing"),
    ];
    for (text, problem) in cases {
        let refused = refused(text).await;
        assert_eq!(refused.kind(), ErrorKind::Config, "{text}");
        assert!(refused.to_string().starts_with(problem), "{text}: {refused}");
    }
    let wrong = toml::from_str::<NearfarConfig>("[caches.users]\ntll = '5m'").unwrap_err().to_string();
    assert!(wrong.contains("`caches`: `users`: unknown field `tll`"), "{wrong}");
    let wrong = serde_json::from_str::<NearfarConfig>(r#"{"urll": "redis://x"}"#).unwrap_err().to_string();
    assert!(wrong.contains("unknown field `urll`"), "{wrong}");
}

#[test]
fn a_node_s_settings_are_the_same_after_json_and_after_toml() {
    let config = config(
        "url = 'redis://x'\nstart_degraded = true\nlog_len = 7\nconnect_timeout = '2s'\ncommand_timeout = '3s'\n\
         tls_ca_file = 'a'\ntls_certificate_file = 'b'\ntls_key_file = 'c'\n[caches.users]\nidle = 'off'\n",
    );
    assert_eq!(
        serde_json::from_str::<NearfarConfig>(&serde_json::to_string(&config).unwrap()).unwrap(),
        config
    );
    assert_eq!(toml::from_str::<NearfarConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    assert_eq!(config.start_degraded, Some(true));
}

#[test]
fn no_password_is_shown() {
    assert!(!format!("{:?}", config("url = 'redis://app:hunter2@x'")).contains("hunter2"));
}

#[test]
fn a_node_s_settings_can_be_variables() {
    let variables =
        [("REDIS_URL", "redis://x"), ("REDIS_START_DEGRADED", "true"), ("REDIS_TLS_CA_FILE", "/ca.pem")];
    let config = NearfarConfig::from_vars("REDIS_", variables).unwrap();
    assert_eq!((config.url.as_deref(), config.start_degraded), (Some("redis://x"), Some(true)));
    assert_eq!(config.tls_ca_file.as_deref(), Some(std::path::Path::new("/ca.pem")));
    let refused = NearfarConfig::from_vars("REDIS_", [("REDIS_CACHES", "users")]).unwrap_err();
    assert!(refused.to_string().starts_with("`REDIS_CACHES`: "), "{refused}");
}
