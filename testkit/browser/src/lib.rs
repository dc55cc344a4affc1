//! The admin page in a real browser: [`Browser`] drives a headless Chromium by its ChromeDriver, [`Service`] is what it looks at.
//! The tests are in `tests/browser`.

mod browser;
mod service;

pub use browser::{Browser, look};
pub use service::{ADMIN, READER, Service};
