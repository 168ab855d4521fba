# The verbs of this repository; each is a line that can be typed without `just`.

# Animate a picture: just run animate photo.jpg -p "slow push in"
run *arguments:
    cargo run --release -- {{arguments}}

# The tests that need nothing but a Rust toolchain
test:
    cargo test --locked --workspace

# Format and lints
check:
    scripts/test format lint

# Measure beside what people use today
bench:
    scripts/bench-animate
    scripts/bench-service
    scripts/bench-wan

# Everything that continuous integration runs
ci:
    .ci/run
