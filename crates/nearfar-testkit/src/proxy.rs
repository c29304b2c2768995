//! A network that misbehaves on request.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{LOOK_EVERY, PATIENCE, Stopwatch, let_pass};
use crate::ports::Reservation;
use pump::pump;

mod pump;

/// A TCP proxy on the loopback interface, in front of a server on the same.
///
/// It begins by forwarding. [`set`](Self::set) holds back or delays what passes, per direction and for
/// present and future connections alike; [`cut`](Self::cut) ends the connections;
/// [`refuse`](Self::refuse) lets no new ones in; [`redirect`](Self::redirect) has new ones go elsewhere. While the
/// server is down, a connection is accepted and reset.
///
/// Dropping the proxy ends its connections and leaves no task running.
#[derive(Debug)]
pub struct FaultProxy {
    port: Reservation,
    connections: Arc<Connections>,
    /// The one task that listens. Empty while connections are refused.
    listening: Mutex<JoinSet<()>>,
}

/// What a proxy does with bytes, and with the end of a stream, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Passes them on at once.
    Forward,
    /// Keeps them: a half-open connection, or a cable that was pulled. They are delivered, in order,
    /// when the flow changes. Some 1 MiB is kept per connection, then its sender's buffers fill up.
    Hold,
    /// Passes them on as long after their arrival as this.
    Delay(Duration),
}

/// Which bytes a [`Flow`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: commands.
    ToServer,
    /// From the server to the client: replies and messages.
    ToClient,
    /// All of them.
    Both,
}

/// How a connection is ended, on both its sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// With RST: "connection reset by peer".
    Reset,
    /// With FIN, the orderly way.
    Close,
}

impl FaultProxy {
    /// Starts a proxy in front of `127.0.0.1:target_port`.
    pub async fn start(target_port: u16) -> Self {
        let connections = Connections {
            target: AtomicU16::new(target_port),
            current: Mutex::default(),
            stranded: Mutex::default(),
        };
        let proxy =
            Self { port: Reservation::take(), connections: connections.into(), listening: Mutex::default() };
        proxy.accept().await;
        proxy
    }

    /// The port that clients connect to. Always the same, also while connections are refused.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Changes the flow of all connections, present and future. From the return of a call with
    /// [`Flow::Hold`] on, not one more byte passes.
    pub fn set(&self, direction: Direction, flow: Flow) {
        self.connections.lock().gates.set(direction, flow);
    }

    /// Ends all connections, and what was held back for them is lost. They are gone when this returns.
    /// New ones are welcome: call [`refuse`](Self::refuse) first where they are not.
    pub async fn cut(&self, how: Cut) {
        let current = self.connections.lock().renew();
        let stranded = std::mem::take(&mut *lock(&self.connections.stranded));
        for mut batch in stranded.into_iter().chain([current]) {
            batch.cut.send_replace(Some(how));
            while batch.tasks.join_next().await.is_some() {}
        }
    }

    /// Lets nothing pass through the present connections any more, for good, as when a firewall forgets them: they stay
    /// open and no end of them is ever told. New ones are as the present ones were.
    pub fn strand(&self) {
        let batch = self.connections.lock().renew();
        batch.gates.set(Direction::Both, Flow::Hold);
        lock(&self.connections.stranded).push(batch);
    }

    /// Has new connections go to `127.0.0.1:target_port`, as a name or a virtual address does that moves to another
    /// server. Present ones stay where they are: [`cut`](Self::cut) them too where they should not.
    pub fn redirect(&self, target_port: u16) {
        self.connections.target.store(target_port, Ordering::SeqCst);
    }

    /// Refuses new connections ("connection refused"). Present ones live on.
    pub async fn refuse(&self) {
        let mut listening = std::mem::take(&mut *lock(&self.listening));
        listening.shutdown().await;
    }

    /// Accepts new connections again, after [`refuse`](Self::refuse).
    ///
    /// # Panics
    ///
    /// If another program took the port meanwhile.
    pub async fn accept(&self) {
        // The old listener must be gone before the port can be bound again.
        self.refuse().await;
        let listener = self.bind().await;
        lock(&self.listening).spawn(listen(listener, self.connections.clone()));
    }

    /// The port is reserved for this proxy. But a process that another thread just starts holds what was open in this one,
    /// an old listener among it, until it executes its program.
    async fn bind(&self) -> TcpListener {
        let waited = Stopwatch::start();
        loop {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, self.port())).await {
                Ok(listener) => return listener,
                Err(error) => assert!(waited.elapsed() < PATIENCE, "the port is not to be had: {error}"),
            }
            let_pass(LOOK_EVERY).await;
        }
    }

    /// How many connections are open now, stranded ones left out.
    pub fn connections(&self) -> usize {
        let mut batch = self.connections.lock();
        batch.reap();
        batch.tasks.len()
    }
}

/// The flows that the connections of a batch watch.
#[derive(Debug, Clone)]
struct Gates {
    to_server: watch::Sender<Flow>,
    to_client: watch::Sender<Flow>,
}

impl Gates {
    fn set(&self, direction: Direction, flow: Flow) {
        if direction != Direction::ToClient {
            self.to_server.send_replace(flow);
        }
        if direction != Direction::ToServer {
            self.to_client.send_replace(flow);
        }
    }

    /// Others, that stand as these do now.
    fn copy(&self) -> Self {
        let copy = |flow: &watch::Sender<Flow>| watch::Sender::new(*flow.borrow());
        Self { to_server: copy(&self.to_server), to_client: copy(&self.to_client) }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self { to_server: watch::Sender::new(Flow::Forward), to_client: watch::Sender::new(Flow::Forward) }
    }
}

#[derive(Debug)]
struct Connections {
    /// The port that new ones go to.
    target: AtomicU16,
    current: Mutex<Batch>,
    stranded: Mutex<Vec<Batch>>,
}

/// Connections whose flows are the same, and that are cut together.
#[derive(Debug)]
struct Batch {
    gates: Gates,
    cut: watch::Sender<Option<Cut>>,
    tasks: JoinSet<()>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::behind(Gates::default())
    }
}

impl Batch {
    fn behind(gates: Gates) -> Self {
        Self { gates, cut: watch::Sender::new(None), tasks: JoinSet::new() }
    }

    /// Begins another in the place of this one, which is returned.
    fn renew(&mut self) -> Self {
        let next = Self::behind(self.gates.copy());
        std::mem::replace(self, next)
    }

    /// Forgets the connections that have ended.
    fn reap(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Batch> {
        lock(&self.current)
    }

    fn open(&self, client: TcpStream) {
        let mut batch = self.lock();
        batch.reap();
        let target = (Ipv4Addr::LOCALHOST, self.target.load(Ordering::SeqCst)).into();
        let work = carry(client, target, batch.gates.clone(), batch.cut.subscribe());
        batch.tasks.spawn(work);
    }
}

/// No invariant is ever half-established under these locks, and one panic of a test is enough.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, connections: Arc<Connections>) {
    while let Ok((client, _)) = listener.accept().await {
        connections.open(client);
    }
}

/// One connection, from accepted to ended.
async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    gates: Gates,
    mut cut: watch::Receiver<Option<Cut>>,
) {
    let server = tokio::select! {
        server = TcpStream::connect(target) => server,
        how = until_cut(&mut cut) => return end(how, &[&client]),
    };
    let Ok(mut server) = server else {
        return end(Cut::Reset, &[&client]);
    };
    let how = tokio::select! {
        _ = relay(&mut client, &mut server, &gates) => Cut::Close,
        how = until_cut(&mut cut) => how,
    };
    end(how, &[&client, &server]);
}

async fn relay(client: &mut TcpStream, server: &mut TcpStream, gates: &Gates) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::join!(
        pump(from_client, to_server, gates.to_server.subscribe()),
        pump(from_server, to_client, gates.to_client.subscribe()),
    );
    Ok(())
}

async fn until_cut(cut: &mut watch::Receiver<Option<Cut>>) -> Cut {
    match cut.wait_for(Option::is_some).await {
        Ok(how) => how.unwrap_or(Cut::Close),
        Err(_) => Cut::Close,
    }
}

/// The sockets close when they are dropped; without lingering, that is with RST.
fn end(how: Cut, streams: &[&TcpStream]) {
    if how == Cut::Reset {
        for stream in streams {
            // Fails where the peer has closed already.
            let _ = stream.set_zero_linger();
        }
    }
}
