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

# A server as the tests get it, for a look by hand; ends with its input (Ctrl-D).
server:
    NEARFAR_SERVER="$(scripts/server)" cargo run --locked -p nearfar-testkit --bin test-server

# All tests on servers in containers.
test-docker *args:
    NEARFAR_SERVER=docker scripts/test {{ args }}

# Lints the code that only the docker feature compiles.
lint-docker:
    cargo clippy -p nearfar-testkit --all-targets --locked --features docker -- -D warnings
