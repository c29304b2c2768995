//! Every finding's text: the one place where it stands. `docs/doctor.md` repeats it, and a test compares.

use crate::doctor::finding::Severity;

/// What is said of a kind of finding, whatever the figures.
pub(crate) struct Text {
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    pub(crate) summary: &'static str,
    pub(crate) consequence: &'static str,
    pub(crate) remedy: &'static str,
}

macro_rules! findings {
    ($($kind:ident, $severity:ident, $id:literal: $is:literal, consequence: $consequence:literal, remedy: $remedy:literal;)*) => {
        /// What a [`Finding`](crate::Finding) is about. The consequence and the remedy of each are in `docs/doctor.md`.
        ///
        /// ```
        /// use nearfar_redis::{FindingKind, Severity};
        ///
        /// assert_eq!(FindingKind::EvictsFences.id(), "evicts-fences");
        /// assert_eq!(FindingKind::EvictsFences.severity(), Severity::Warning);
        /// assert!(FindingKind::ALL.contains(&FindingKind::Replica));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FindingKind {
            $(#[doc = $is] $kind,)*
        }

        impl FindingKind {
            /// All there are, in the order of `docs/doctor.md`.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            pub(crate) fn text(self) -> &'static Text {
                match self {
                    $(Self::$kind => &Text {
                        id: $id,
                        severity: Severity::$severity,
                        summary: $is,
                        consequence: $consequence,
                        remedy: $remedy,
                    },)*
                }
            }
        }
    };
}

findings! {
    BadUrl, Critical, "bad-url": "The URL, or a setting that goes with it, cannot be used.",
    consequence: "nearfar does not connect",
    remedy: "correct it: `docs/options.md` has the form";

    Unreachable, Critical, "unreachable": "Nobody answered, or not in a way that allows to go on.",
    consequence: "nearfar does not start; one that runs or starts degraded serves nothing from L1, loads, and queues its \
        changes",
    remedy: "start the server, or correct host, port and firewall; one that is still loading its data needs time";

    Tls, Critical, "tls": "The server is there, and TLS keeps a connection from coming about, or the want of it.",
    consequence: "nearfar does not start, and one that runs cannot reconnect",
    remedy: "`docs/security.md` has what each of these problems means, and its remedy";

    LoginRefused, Critical, "login-refused": "The server refused user or password.",
    consequence: "nearfar does not start, and one that runs cannot reconnect",
    remedy: "correct user and password in the URL, or the user on the server (`ACL LIST`)";

    NoAnswer, Critical, "no-answer": "The server stopped answering, or closed or refused a connection, during the examination.",
    consequence: "what nearfar asks fails after `command_timeout`, and L1 is served until trust runs out; what comes after \
        the unanswered question was not examined",
    remedy: "look for what holds the server up (`SLOWLOG GET`, its log, a saturated machine) or cuts connections";

    TooOld, Critical, "too-old": "The server is older than Redis 6.2.",
    consequence: "nearfar does not connect: the scripts need commands that it does not have",
    remedy: "run Redis 6.2 or later, or Valkey";

    Before7, Note, "before-7": "The server is older than Redis 7.0.",
    consequence: "it has no sharded pub/sub: on a cluster, every message goes to every server; a single server lacks nothing",
    remedy: "plan for Redis 7.0 or later, or Valkey";

    Replica, Critical, "replica": "The server is a read-only replica.",
    consequence: "it refuses every change and every beat: nothing is ever trusted",
    remedy: "connect to its primary, or through Sentinel";

    ClusterMode, Critical, "cluster-mode": "The URL names one server, and it is one of a Redis Cluster.",
    consequence: "nearfar does not connect: the server refuses the keys of all slots that are not its own",
    remedy: "use `redis-cluster://`, or a server of its own";

    NoCluster, Critical, "no-cluster": "The URL asks for a Redis Cluster, and the server is none of one.",
    consequence: "nearfar does not connect",
    remedy: "use `redis://`, or `redis-sentinel://` if it has Sentinels";

    NoSlots, Critical, "no-slots": "The Redis Cluster has given its slots to no server.",
    consequence: "nearfar does not connect: the cluster refuses every key",
    remedy: "finish setting it up: `redis-cli --cluster create`, or `redis-cli --cluster fix`";

    SentinelItself, Critical, "sentinel-itself": "The URL names a Sentinel as if it were the server.",
    consequence: "a Sentinel stores nothing",
    remedy: "use `redis-sentinel://` with `?sentinelServiceName=`";

    UnknownService, Critical, "unknown-service": "The Sentinels know no service of the name in the URL.",
    consequence: "nearfar does not start, since nobody tells it where the primary is",
    remedy: "correct `sentinelServiceName=` in the URL: `SENTINEL MASTERS` lists the names";

    EvictsFences, Warning, "evicts-fences": "`maxmemory` is set, with a policy that evicts keys.",
    consequence: "Redis may evict a tombstone that is still needed; then a slow load can put an old value back, which is \
        served until it expires (G2)",
    remedy: "give it more memory than its entries need, or choose `noeviction`";

    NearlyFull, Warning, "nearly-full": "80 % of `maxmemory` or more are in use, with the policy `noeviction`.",
    consequence: "a full Redis refuses values: `set` fails and its key is invalidated instead, and loaded values are not \
        shared; invalidations work",
    remedy: "give it more memory, or the entries shorter lifetimes";

    OutputBufferSmall, Warning, "output-buffer-small": "The output buffer of a subscriber may hold less than 4 MiB.",
    consequence: "Redis cuts a node off that reads slower than others write for a moment: one message of an outbox alone may \
        have 1 MiB; trust ends, and the node has to catch up from the log",
    remedy: "raise `client-output-buffer-limit pubsub`; Redis's default is `32mb 8mb 60`";

    OutputBufferUnlimited, Warning, "output-buffer-unlimited": "The output buffer of a subscriber has no limit.",
    consequence: "a node that stands still has Redis keep all messages for it, until Redis is out of memory",
    remedy: "set `client-output-buffer-limit pubsub 32mb 8mb 60`";

    WritesStopped, Critical, "writes-stopped": "The server failed to write its data to disk, and refuses changes for it.",
    consequence: "every change, fill and beat is refused (`MISCONF`), and L1 is not served",
    remedy: "see to the disk; a cache needs none: `CONFIG SET save \"\"` and `CONFIG SET appendonly no`";

    Snapshots, Warning, "snapshots": "The server writes snapshots (`save`) and no append-only file.",
    consequence: "after a crash it has the values of the last snapshot back, older than changes it had acknowledged since; \
        nodes that live invalidate again what they changed in the last 30 s (G11), the rest is read until its ttl",
    remedy: "`CONFIG SET save \"\"`: coming back empty costs loads and nothing else; or an append-only file";

    FsyncNo, Warning, "fsync-no": "The append-only file is written to disk when the system likes (`appendfsync no`).",
    consequence: "after a crash of the machine, changes of the last 30 s or more may be undone; G11 repeats those of the last \
        30 s only",
    remedy: "`CONFIG SET appendfsync everysec`, or keep nothing on disk";

    FsyncEverySecond, Note, "fsync-everysec": "The append-only file is synced every second.",
    consequence: "after a crash of the machine, the changes of the last second or two may be undone, until the nodes that made \
        them have invalidated again (G11)",
    remedy: "nothing if you bear that; else `appendfsync always`, or keep nothing on disk";

    TooFewReplicas, Critical, "too-few-replicas": "Fewer replicas are in step than `min-replicas-to-write` asks for.",
    consequence: "every change, fill and beat is refused (`NOREPLICAS`), and L1 is not served",
    remedy: "bring the replicas back, or lower `min-replicas-to-write`";

    ReplicaLags, Warning, "replica-lags": "A replica is not in step: not online, or not heard of for 5 s or more.",
    consequence: "a failover to it undoes the changes that it lacks; nodes that live repeat those of the last 30 s (G11), \
        older ones are read until their ttl",
    remedy: "look at the replica and at the link to it; `min-replicas-to-write` with `min-replicas-max-lag` bounds the loss";

    NoMinReplicas, Warning, "no-min-replicas": "There are replicas, and the server takes writes without them.",
    consequence: "a primary that was cut off goes on answering the nodes on its side, beats included, while another has taken \
        over: those nodes serve L1 beyond the bound (G1), and what they change is lost",
    remedy: "`CONFIG SET min-replicas-to-write 1` and `CONFIG SET min-replicas-max-lag 10`";

    MinReplicasLagLong, Warning, "min-replicas-lag": "`min-replicas-max-lag` allows more than 30 s.",
    consequence: "a failover may undo changes that are older than what nodes repeat (G11)",
    remedy: "`CONFIG SET min-replicas-max-lag 10`";

    ClusterDown, Critical, "cluster-down": "The server says that the cluster is down.",
    consequence: "it refuses every key (`CLUSTERDOWN`): what is in its partitions is not served from L1 either, and changes \
        wait in the outbox",
    remedy: "bring back the servers that are away (`CLUSTER NODES`), or give their slots to others (`redis-cli --cluster fix`)";

    FullCoverage, Warning, "full-coverage": "`cluster-require-full-coverage` is on, as it is by default.",
    consequence: "one primary that is away without a replica to take over has the whole cluster refuse, the healthy primaries \
        too: no partition is served, instead of those of the one alone",
    remedy: "`CONFIG SET cluster-require-full-coverage no` on all servers: each partition stands for itself";

    NoReplica, Warning, "no-replica": "A primary of the cluster has no replica.",
    consequence: "when it dies, nobody takes over: its partitions are away until it comes back, and are empty then unless it \
        keeps them on disk",
    remedy: "add one: `redis-cli --cluster add-node ... --cluster-slave`";

    NodeTimeout, Note, "node-timeout": "A dead primary is replaced after `cluster-node-timeout` and a second or two.",
    consequence: "for so long its partitions are away: reads load, and changes wait in the outbox",
    remedy: "nothing if you bear that; less than 2000 ms takes primaries that are merely slow for dead";

    SlowRoundTrips, Warning, "slow-round-trips": "A round trip takes half of `command_timeout` or more, at its worst.",
    consequence: "operations time out under a little more load, and changes of unknown outcome go to the outbox",
    remedy: "bring the nodes nearer to the server, find what slows it down (`SLOWLOG GET`), or raise `command_timeout`";

    StalenessTight, Warning, "staleness-tight": "A usual round trip takes half of `max_staleness` or more.",
    consequence: "the proof that a beat brings is nearly used up when it arrives: a little more delay, and reads go to L2",
    remedy: "raise `max_staleness`, or bring the nodes nearer to the server";

    ClockOff, Note, "clock-off": "The server's clock and this machine's are more than a second apart.",
    consequence: "none by itself: only the server's clock decides; but if it is the wrong one, setting it right is a step",
    remedy: "run a time service on both that slews clocks and does not step them";

    ClockSteps, Warning, "clock-steps": "The server's clock ran faster or slower than time, during the examination.",
    consequence: "a step forward has entries and tombstones expire early (G2) and changes refused as late; a step back lets a \
        change land after its caller gave up (G5)",
    remedy: "run a time service on the server that slews its clock and does not step it";

    ClockWentBack, Warning, "clock-went-back": "A namespace's number is ahead of the server's clock, which begot it.",
    consequence: "the clock has been set back, or was wrong: until it has caught up, entries live longer, and a change may land \
        after its caller gave up (G5); if data is lost meanwhile, numbers begin below those known",
    remedy: "run a time service on the server that slews its clock; nothing need be done about the numbers";

    ScriptsRefused, Critical, "scripts-refused": "The server does not run scripts for this user.",
    consequence: "nearfar does not start: without scripts no step is atomic",
    remedy: "allow the user `EVAL` and `EVALSHA`, and do not rename them";

    BusyThreshold, Warning, "busy-threshold": "`lua-time-limit` (`busy-reply-threshold`) is shorter than `command_timeout`.",
    consequence: "while a slow script of anybody runs, changes are refused (`BUSY`) and fail, instead of waiting or being \
        queued",
    remedy: "leave it at Redis's default, 5000 ms";

    RightsMissing, Critical, "rights-missing": "The user lacks a right without which nearfar does not work.",
    consequence: "nearfar does not connect, or no cache is built; if the right was taken away since, what needs it is refused",
    remedy: "grant what is listed, as it stands, with `ACL SETUSER <user>`, on every server; a command that the server does not \
        know was renamed";

    RightsWanted, Warning, "rights-wanted": "The user lacks a right that nearfar makes use of.",
    consequence: "messages of a cache that was dropped go on coming until the node reconnects",
    remedy: "grant what is listed, as it stands, with `ACL SETUSER <user>`, on every server";

    IdleClients, Warning, "idle-clients": "The server closes connections that are idle for less than 5 s (`timeout`).",
    consequence: "a node's beats are up to a second apart: its connection is closed when they are late, and what is under way fails",
    remedy: "`CONFIG SET timeout 0`, or 60";

    KeepaliveOff, Note, "keepalive-off": "The server does not look after silent connections (`tcp-keepalive 0`).",
    consequence: "connections of machines that vanished count among its clients until the system gives them up",
    remedy: "`CONFIG SET tcp-keepalive 300`, Redis's default";

    ClientsNearlyFull, Warning, "clients-nearly-full": "80 % of `maxclients` or more are connected.",
    consequence: "a node needs two connections, and two more when it replaces them; one that gets none cannot prove that it \
        hears all",
    remedy: "raise `maxclients`, or find who keeps connections open (`CLIENT LIST`)";

    BadNamespace, Critical, "bad-namespace": "A name cannot be that of a namespace.",
    consequence: "no cache of that name can be built",
    remedy: "use 1 to 64 characters out of `A-Z a-z 0-9 _ - . :`";

    NamespaceDisagrees, Critical, "namespace-disagrees": "Other nodes have recorded other settings for a namespace.",
    consequence: "no cache of that name is built here, and one that started degraded fills and changes nothing: a tombstone \
        that is too short protects nobody",
    remedy: "give all nodes of the namespace the same `fence_window`; to change it, end them all, then delete the recorded key";

    SettingsUnreadable, Critical, "settings-unreadable": "The recorded settings of a namespace are no settings.",
    consequence: "no cache of that name can be built",
    remedy: "if no later version of nearfar wrote it, delete the recorded key: the next node records it anew";

    NamespaceUnused, Note, "namespace-unused": "Nothing is recorded for a namespace.",
    consequence: "no node has built a cache of that name here: it is new, or the name or the database is another",
    remedy: "compare name and database with those of the service";

    SilentNodes, Note, "silent-nodes": "Nodes that count as live have not been heard of for 10 s or more.",
    consequence: "they ended without a goodbye, or stand still, or are cut off; under `Bypass` none of them serves L1 for longer than \
        its `max_staleness`",
    remedy: "nothing if they ended: they are forgotten after a minute";

    NotAsked, Note, "not-asked": "The user may not ask for something, or the server does not tell.",
    consequence: "what depends on it was not examined",
    remedy: "run the doctor as a user who may (`+info +config|get +cluster|info +time`), or look at these settings yourself";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn words(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// How `docs/doctor.md` has it, but for the line ends.
    fn section(kind: FindingKind) -> String {
        let Text { id, severity, summary, consequence, remedy } = kind.text();
        format!("### `{id}` ({severity}) {summary} * **Consequence:** {consequence}. * **Remedy:** {remedy}.")
    }

    #[test]
    fn the_documentation_has_every_finding_word_for_word() {
        let docs = words(include_str!("../../../../docs/doctor.md"));
        for &kind in FindingKind::ALL {
            let section = section(kind);
            assert!(docs.contains(&section), "docs/doctor.md lacks\n{section}");
        }
        assert_eq!(docs.matches("### `").count(), FindingKind::ALL.len(), "and has no other");
    }

    #[test]
    fn no_two_findings_have_the_same_name() {
        let ids: BTreeSet<_> = FindingKind::ALL.iter().map(|kind| kind.id()).collect();
        assert_eq!(ids.len(), FindingKind::ALL.len());
    }
}
