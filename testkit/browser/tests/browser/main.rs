//! The admin page in headless Chromium. `short` is a part of every run of the tests; `wide` takes `--ignored`, as
//! `cargo xtask test --all` does.

mod short;
mod wide;
