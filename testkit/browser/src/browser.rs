//! [`Browser`]: one window of a headless Chromium, and waits for what is to be seen in it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{By, ChromiumLikeCapabilities, DesiredCapabilities, Key, LoggingPrefsLogLevel, TypingData, WebDriver};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// How long something may take to be seen before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing but this machine can be reached, and nothing is asked for but what the page asks for.
const ARGUMENTS: &[&str] = &[
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
];

/// A window.
pub struct Browser {
    driver: WebDriver,
}

/// Looks at a page in a browser that is started for this and ends with it, however the test ends.
///
/// # Errors
/// What the test says, or why there is no browser.
pub async fn look(test: impl AsyncFnOnce(&Browser) -> Result<()>) -> Result<()> {
    let (process, address) = start().await?;
    let profile = TempDir::new()?;
    let mut wanted = DesiredCapabilities::chrome();
    for argument in ARGUMENTS {
        wanted.add_arg(argument)?;
    }
    wanted.add_arg(&format!("--user-data-dir={}", profile.path().display()))?;
    if is_root() {
        wanted.add_arg("--no-sandbox")?;
    }
    wanted.set_logging_prefs("browser", LoggingPrefsLogLevel::All)?;
    wanted.set_logging_prefs("performance", LoggingPrefsLogLevel::All)?;
    let driver = WebDriver::new(address, wanted).await.context("Chromium does not start")?;
    let ended = driver.run_and_quit(async |driver| test(&Browser { driver }).await).await;
    drop(process);
    ended.map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// ChromeDriver on a port of its own choice; it ends when it is dropped.
async fn start() -> Result<(Child, String)> {
    let mut command = Command::new("chromedriver");
    command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().context("`chromedriver` cannot be started: install Debian's chromium-driver")?;
    let said = process.stdout.take().context("its output is piped")?;
    let mut lines = BufReader::new(said).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, port)) = line.split_once("successfully on port ") {
            let address = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
            // Whatever else it says is read, so that it can be said.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((process, address));
        }
    }
    bail!("chromedriver ended before it listened")
}

/// Chromium's sandbox refuses to run as root.
fn is_root() -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
    }
    #[cfg(not(unix))]
    false
}

impl Browser {
    /// Goes to an address.
    ///
    /// # Errors
    /// Where the browser does not.
    pub async fn open(&self, url: &str) -> Result<()> {
        Ok(self.driver.goto(url).await?)
    }

    /// What an expression of the page is.
    ///
    /// # Errors
    /// What the page throws.
    pub async fn value(&self, expression: &str) -> Result<Value> {
        let value =
            self.driver.execute(format!("return {expression};"), vec![]).await.context(expression.to_owned())?;
        Ok(value.json().clone())
    }

    /// A string.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub async fn text(&self, expression: &str) -> Result<String> {
        Ok(self.value(expression).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an expression of the page is true.
    ///
    /// # Errors
    /// When it is not, in half a minute.
    pub async fn until(&self, expression: &str) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.value(&format!("Boolean({expression})")).await? == Value::Bool(true) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("it never came to be that {expression}; the page says:\n{}", self.text("document.body.innerText").await?)
    }

    /// Types into a field, and presses Enter.
    ///
    /// # Errors
    /// Where there is no such field that can be seen.
    pub async fn enter(&self, id: &str, text: &str) -> Result<()> {
        let field = self.driver.find(By::Id(id)).await?;
        field.clear().await?;
        Ok(field.send_keys(text.to_owned() + Key::Enter).await?)
    }

    /// Clicks.
    ///
    /// # Errors
    /// Where there is nothing to click at, or something is before it.
    pub async fn click(&self, css: &str) -> Result<()> {
        Ok(self.driver.find(By::Css(css)).await?.click().await?)
    }

    /// Presses keys, wherever the focus is.
    ///
    /// # Errors
    /// Where the browser cannot be told.
    pub async fn press(&self, keys: impl Into<TypingData>) -> Result<()> {
        Ok(self.driver.action_chain().send_keys(keys).perform().await?)
    }

    /// Logs in with a token.
    ///
    /// # Errors
    /// Where the page does not let it.
    pub async fn log_in(&self, token: &str) -> Result<()> {
        self.enter("token", token).await?;
        self.until("!document.getElementById('main').hidden").await
    }

    /// A command of the DevTools protocol.
    ///
    /// # Errors
    /// Where the browser refuses it.
    pub async fn devtools(&self, method: &str, parameters: Value) -> Result<Value> {
        Ok(self.driver.cdp().send_raw(method, parameters).await?)
    }

    /// A screen of that size, dark or light.
    ///
    /// # Errors
    /// Where the browser refuses it.
    pub async fn screen(&self, width: u32, height: u32, dark: bool) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await?;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// Where every request since the last question went to.
    ///
    /// # Errors
    /// Where the browser kept no log.
    pub async fn requests(&self) -> Result<Vec<String>> {
        let log = self.driver.get_log("performance").await?;
        let mut urls = Vec::new();
        for entry in log {
            let message: Value = serde_json::from_str(&entry.message)?;
            if message["message"]["method"] == "Network.requestWillBeSent" {
                let url = message["message"]["params"]["request"]["url"].as_str().unwrap_or_default();
                // The window's own first page is the browser's.
                if !url.starts_with("chrome:") && !url.starts_with("chrome-") {
                    urls.push(url.to_owned());
                }
            }
        }
        Ok(urls)
    }

    /// What the page's console says since the last question, but for answers that were refusals.
    ///
    /// # Errors
    /// Where the browser kept no log.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let log = self.driver.browser_log().await?;
        let told = log.into_iter().filter(|entry| entry.source.as_deref() != Some("network"));
        Ok(told.map(|entry| entry.message).collect())
    }

    /// Keeps a picture of the page, for whoever wants to look.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn picture(&self, path: PathBuf) -> Result<()> {
        Ok(self.driver.screenshot(&path).await?)
    }
}
