# Lists the tasks.
default:
    @just --list

# Everything that must pass before a change is merged.
ci:
    .ci/run

# All tests, doctests included, on a real server, which is installed if there is none.
test *args:
    scripts/test {{ args }}

# Format and lints, as CI checks them.
lint:
    scripts/lint

# Formats the code.
fmt:
    cargo fmt --all

# The documentation of all crates.
docs *args:
    scripts/docs {{ args }}

# The storefront: the cache at work, without Redis.
storefront *args:
    cargo run --release --locked --bin storefront -- {{ args }}

# A server as the tests get it, for a look by hand; ends with its input (Ctrl-D). Or a `cluster`, or `sentinels`.
server *kind:
    NEARFAR_SERVER="$(scripts/server)" cargo run --locked -p nearfar-testkit --bin test-server -- {{ kind }}

# The tests that talk to a server, on all that are supported, or on those named.
test-servers *names:
    scripts/test-servers {{ names }}

# Ten minutes of random mishaps on a cluster, or as many seconds as are given.
soak *seconds:
    scripts/soak {{ seconds }}

# The same in containers, if a Docker engine answers.
test-docker:
    scripts/test-docker
