//! A server as a container.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use async_trait::async_trait;
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt, TestcontainersError};

use crate::clock::{LOOK_EVERY, Stopwatch, let_pass};
use crate::config::{Config, Mode};
use crate::engine::{Engine, LaunchError, STARTING};
use crate::resp::RespClient;

/// Names the image. Its entry point must take the server's arguments, as the official images' does.
const IMAGE: &str = "NEARFAR_DOCKER_IMAGE";
const DEFAULT_IMAGE: &str = "redis:7";

const PORT_INSIDE: u16 = 6379;

/// One container, from the first launch until the data is wiped. A stopped container keeps its data.
#[derive(Debug)]
pub(crate) struct Container {
    config: Config,
    port: u16,
    inner: Option<ContainerAsync<GenericImage>>,
    /// What the containers before this one logged.
    past: String,
}

impl Container {
    /// # Panics
    ///
    /// For a sentinel, which needs a file that it can write.
    pub(crate) fn new(config: Config, port: u16) -> Self {
        assert!(config.mode == Mode::Server, "sentinels are processes: set NEARFAR_SERVER to a path");
        Self { config, port, inner: None, past: String::new() }
    }

    fn request(&self) -> ContainerRequest<GenericImage> {
        let image = env::var(IMAGE).unwrap_or_else(|_| DEFAULT_IMAGE.to_owned());
        let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
        GenericImage::new(name, tag)
            .with_cmd(self.config.args())
            .with_mapped_port(self.port, PORT_INSIDE.tcp())
            // A server without a password is nobody's business but this machine's.
            .with_host_config_modifier(|host| {
                let bindings = host.port_bindings.iter_mut().flat_map(|ports| ports.values_mut());
                for binding in bindings.flatten().flatten() {
                    binding.host_ip = Some("127.0.0.1".to_owned());
                }
            })
    }

    fn container(&self) -> &ContainerAsync<GenericImage> {
        self.inner.as_ref().expect("the server never came up")
    }

    async fn end(&self, patience: Option<i32>) {
        if let Some(container) = &self.inner {
            container.stop_with_timeout(patience).await.expect("the container is ours to stop");
        }
    }

    async fn exit_code(&self) -> Result<Option<ExitStatus>, TestcontainersError> {
        let code = self.container().exit_code().await?.and_then(|code| i32::try_from(code).ok());
        // The code's place in what the system's `wait` returns.
        Ok(code.map(|code| ExitStatus::from_raw(code << 8)))
    }

    async fn run(&mut self) -> Result<(), TestcontainersError> {
        if let Some(stopped) = &self.inner {
            return stopped.start().await;
        }
        self.inner = Some(self.request().start().await?);
        Ok(())
    }
}

#[async_trait]
impl Engine for Container {
    async fn launch(&mut self) -> Result<(), LaunchError> {
        self.run().await.map_err(LaunchError::Container)?;
        let waited = Stopwatch::start();
        while waited.elapsed() < STARTING {
            if answers(self.port).await {
                return Ok(());
            }
            if let Some(status) = self.exit_code().await.map_err(LaunchError::Container)? {
                return Err(LaunchError::Exited(status));
            }
            let_pass(LOOK_EVERY).await;
        }
        Err(LaunchError::Silent)
    }

    fn pid(&self) -> u32 {
        panic!("a server in a container has no process here")
    }

    async fn log(&self) -> String {
        let Some(container) = &self.inner else { return self.past.clone() };
        let out = container.stdout_to_vec().await.expect("the container is ours to read");
        let errors = container.stderr_to_vec().await.expect("the container is ours to read");
        [self.past.as_str(), &String::from_utf8_lossy(&out), &String::from_utf8_lossy(&errors)].concat()
    }

    async fn kill(&mut self) {
        self.end(Some(0)).await;
    }

    async fn stop(&mut self) {
        self.end(None).await;
    }

    async fn pause(&self) {
        self.container().pause().await.expect("the container is ours to pause");
    }

    async fn resume(&self) {
        self.container().unpause().await.expect("the container is ours to resume");
    }

    async fn wipe(&mut self) {
        // The log of a container that runs is behind by what its engine has not written yet.
        self.kill().await;
        self.past = self.log().await;
        if let Some(container) = self.inner.take() {
            container.rm().await.expect("the container is ours to remove");
        }
    }
}

/// Whether the server has loaded its data. The port alone proves nothing: the engine accepts
/// connections before the server does.
async fn answers(port: u16) -> bool {
    let Ok(mut client) = RespClient::connect(port).await else {
        return false;
    };
    client.command(&["PING"]).await.is_ok_and(|reply| reply.text() == Some("PONG"))
}
