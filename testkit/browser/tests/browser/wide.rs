//! What takes longer: every screen and colour scheme, the keyboard alone, names for screen readers, a reader's token.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tenantry_browser::{ADMIN, Browser, READER, Service, look};
use thirtyfour::Key;

/// What is seen of the page, in words: each text whose contrast is below 4.5 (3 where it is large), and each thing that
/// sticks out of the screen.
const FLAWS: &str = r"(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (color, under) => {
    canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const behind = (node) => node ? rgb(getComputedStyle(node).backgroundColor, behind(node.parentElement)) : [255, 255, 255];
  const light = (c) => c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const flaws = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !node.checkVisibility() || node.closest('.hidden, script, style, thead, :disabled')) continue;
    const style = getComputedStyle(node);
    const under = behind(node);
    const [low, high] = [light(under), light(rgb(style.color, under))].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5)) flaws.push(`${texts.currentNode.data}: contrast ${contrast.toFixed(2)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) flaws.push(`the page is ${document.documentElement.scrollWidth} wide`);
  for (const node of document.querySelectorAll('button, input, select')) {
    if (!node.checkVisibility() || node.closest('.scroll')) continue;
    const { left, right, height } = node.getBoundingClientRect();
    if (left < 0 || right > innerWidth) flaws.push(`${node.outerHTML} sticks out`);
    if (height < 24) flaws.push(`${node.outerHTML} is ${height} high`);
  }
  return flaws;
})()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "many screens: cargo xtask test --all"]
async fn it_can_be_read_on_every_screen_in_light_and_dark() -> Result<()> {
    look(async |browser: &Browser| {
        let service = Service::start().await?;
        for dark in [false, true] {
            for (width, height) in [(1_600, 1_000), (1_280, 900), (768, 1_024), (390, 844), (320, 568)] {
                let screen = format!("{width}{}", if dark { "-dark" } else { "" });
                browser.screen(width, height, dark).await?;
                browser.open(&service.url).await?;
                flawless(browser, &format!("login-{screen}")).await?;
                browser.log_in(ADMIN).await?;
                browser.until("document.querySelectorAll('#tenants tbody tr').length > 1").await?;
                flawless(browser, &screen).await?;
                browser.click("#tenants tbody tr:nth-child(2) .acts button:last-child").await?;
                browser.until("document.getElementById('confirm').open").await?;
                flawless(browser, &format!("dialog-{screen}")).await?;
                browser.press(Key::Escape + "").await?;
                browser.click("#logout").await?;
                ensure!(browser.value("sessionStorage.length").await? == 0, "logged out, and the token is still there");
            }
        }
        Ok(())
    })
    .await
}

async fn flawless(browser: &Browser, screen: &str) -> Result<()> {
    browser.picture(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{screen}.png"))).await?;
    let flaws = browser.value(FLAWS).await?;
    ensure!(flaws == json!([]), "{screen}: {flaws:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "cargo xtask test --all"]
async fn everything_has_a_name_for_who_does_not_see_it() -> Result<()> {
    look(async |browser: &Browser| {
        let service = Service::start().await?;
        browser.open(&service.url).await?;
        assert_named(browser, 1).await?;
        browser.log_in(ADMIN).await?;
        browser.until("document.querySelectorAll('#tenants tbody tr').length > 1").await?;
        // Narrow screens show tables as cards, and they stay tables.
        for width in [1_280, 390] {
            browser.screen(width, 900, false).await?;
            let roles = assert_named(browser, 60).await?;
            for role in ["main", "banner", "navigation", "search", "status", "table", "rowheader", "columnheader"] {
                ensure!(roles.iter().any(|there| there == role), "at {width}: there is no {role}");
            }
            ensure!(roles.iter().filter(|role| *role == "main").count() == 1, "one main part");
        }
        ensure!(browser.value("document.documentElement.lang").await? == "en");
        let levels = browser
            .value("[...document.querySelectorAll('h1, h2')].filter((h) => h.checkVisibility()).map((h) => h.tagName)")
            .await?;
        ensure!(levels[0] == "H1" && levels.as_array().is_some_and(|levels| levels.len() >= 6), "{levels}");
        Ok(())
    })
    .await
}

/// Whatever can be reached or is a picture has a name; the roles that are there.
async fn assert_named(browser: &Browser, least: usize) -> Result<Vec<String>> {
    let tree = browser.devtools("Accessibility.getFullAXTree", json!({})).await?;
    let nodes: Vec<&Value> =
        tree["nodes"].as_array().into_iter().flatten().filter(|node| node["ignored"] == false).collect();
    let needy = [
        "button",
        "textbox",
        "searchbox",
        "spinbutton",
        "combobox",
        "link",
        "image",
        "img",
        "region",
        "navigation",
        "table",
        "dialog",
        "RootWebArea",
    ];
    let mut named = 0;
    for node in &nodes {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        if needy.contains(&role) {
            let name = node["name"]["value"].as_str().unwrap_or_default();
            ensure!(!name.trim().is_empty(), "a {role} has no name: {node:#}");
            named += 1;
        }
    }
    ensure!(named >= least, "only {named} things to name");
    Ok(nodes.iter().filter_map(|node| node["role"]["value"].as_str()).map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "cargo xtask test --all"]
async fn the_keyboard_alone_drains_a_tenant() -> Result<()> {
    look(async |browser: &Browser| {
        let service = Service::start().await?;
        browser.open(&service.url).await?;
        browser.until("document.activeElement.id === 'token'").await?;
        browser.press(format!("{ADMIN}{}", Key::Enter.value())).await?;
        browser.until("document.activeElement.id === 'main'").await?;
        browser.until("document.querySelectorAll('#tenants tbody tr').length > 1").await?;

        let drain = "document.activeElement.matches('#tenants .acts button:first-child')";
        let mut seen = 0;
        while browser.value(drain).await? == false {
            browser.press(Key::Tab + "").await?;
            let outline = browser.text("getComputedStyle(document.activeElement).outlineStyle").await?;
            ensure!(
                outline != "none",
                "the focus cannot be seen on {}",
                browser.text("document.activeElement.outerHTML").await?
            );
            seen += 1;
            ensure!(seen < 30, "the table is not reached");
        }
        let tenant = browser.text("document.activeElement.closest('tr').dataset.key").await?;

        browser.press(Key::Enter + "").await?;
        browser.until("document.getElementById('confirm').open && document.activeElement.closest('#confirm')").await?;
        browser.press(Key::Escape + "").await?;
        browser.until(&format!("!document.getElementById('confirm').open && {drain}")).await?;
        ensure!(!service.is_draining(&tenant), "it was not confirmed");

        browser.press(Key::Enter + "").await?;
        browser.until("document.activeElement.id === 'confirm-no'").await?;
        browser.press(Key::Tab + "").await?;
        browser.until("document.activeElement.id === 'confirm-yes'").await?;
        browser.press(Key::Enter + "").await?;
        browser.until("document.getElementById('done').textContent.includes('drain')").await?;
        ensure!(service.is_draining(&tenant), "it was confirmed");
        // The numbers come and go, and the focus stays.
        let at = browser.text("document.getElementById('seen').textContent").await?;
        browser.until(&format!("document.getElementById('seen').textContent !== '{at}'")).await?;
        ensure!(browser.text("document.activeElement.textContent").await? == "Resume");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "cargo xtask test --all"]
async fn a_readers_token_shows_no_tenant_and_pages_turn_for_an_admin() -> Result<()> {
    look(async |browser: &Browser| {
        let service = Service::start().await?;
        browser.open(&service.url).await?;
        browser.log_in(READER).await?;
        browser.until("!document.getElementById('reader').hidden").await?;
        browser.until("document.querySelectorAll('#servers tbody tr').length === 1").await?;
        ensure!(!browser.text("document.documentElement.outerHTML").await?.contains("tenant-00"), "a tenant's name");
        ensure!(browser.requests().await?.iter().all(|url| !url.contains("tenants")), "it does not even ask");

        browser.click("#logout").await?;
        browser.log_in(ADMIN).await?;
        let mut names = std::collections::BTreeSet::new();
        for page in 1..=3 {
            browser.until(&format!("document.getElementById('page-number').textContent === 'Page {page}'")).await?;
            let shown = browser
                .value("[...document.querySelectorAll('#tenants tbody tr')].map((row) => row.dataset.key)")
                .await?;
            names.extend(shown.as_array().into_iter().flatten().map(ToString::to_string));
            if page < 3 {
                browser.click("#next").await?;
            }
        }
        ensure!(names.len() == 60, "{} tenants on three pages", names.len());
        browser.until("document.getElementById('next').disabled").await?;
        // A reload keeps the token; it is this tab's.
        browser.open(&service.url).await?;
        browser.until("!document.getElementById('main').hidden").await?;
        let complaints = browser.complaints().await?;
        ensure!(complaints.is_empty(), "the page's console says: {complaints:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "cargo xtask test --all"]
async fn a_page_that_nobody_sees_asks_no_more_until_it_is_seen() -> Result<()> {
    look(async |browser: &Browser| {
        let service = Service::start().await?;
        browser.open(&service.url).await?;
        browser.log_in(READER).await?;
        // What a hidden tab says of itself; and each next question that is planned from now on is counted.
        let hidden = |is: bool| {
            format!(
                "(Object.defineProperty(document, 'hidden', {{ value: {is}, configurable: true }}), \
                 document.dispatchEvent(new Event('visibilitychange')))"
            )
        };
        browser.value(&hidden(true)).await?;
        browser.until("!asking").await?;
        let counting = "(window.planned = 0, window.soon = setTimeout, \
                         window.setTimeout = (...what) => (window.planned++, window.soon(...what)), poll(), true)";
        browser.value(counting).await?;
        browser.until("!asking").await?;
        ensure!(browser.value("window.planned").await? == 0, "hidden, and it plans to ask again");
        browser.value(&hidden(false)).await?;
        browser.until("window.planned > 0").await
    })
    .await
}
