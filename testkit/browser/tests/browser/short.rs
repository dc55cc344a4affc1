//! One pass through the page: in, numbers, a drain, the end of the manager, the end of the service.

use anyhow::{Result, ensure};
use tenantry_browser::{ADMIN, Browser, Service, look};

const TENANT: &str = "tenant-0007";

/// The table's row of the one tenant that was searched for.
const ROW: &str = "document.querySelector('#tenants tbody tr')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_logs_in_watches_the_load_and_drains_a_tenant() -> Result<()> {
    look(async |browser: &Browser| {
        let mut service = Service::start().await?;
        // With a slash at its end, as people type it; `wide.rs` has it without.
        browser.open(&format!("{}/", service.url)).await?;

        browser.enter("token", "not-a-token-of-anybody").await?;
        browser.until("document.getElementById('login-error').textContent.includes('refused')").await?;
        ensure!(browser.value("document.getElementById('main').hidden").await? == true, "a wrong token shows nothing");
        ensure!(browser.value("sessionStorage.length").await? == 0, "a wrong token is not kept");

        browser.log_in(ADMIN).await?;
        browser.until("document.getElementById('state').textContent === 'Serving'").await?;
        browser.until("Number(document.getElementById('evictions-now').textContent.replaceAll(',', '')) > 0").await?;
        browser.until("document.querySelectorAll('#budget-chart path.in_use').length > 0").await?;
        browser.until("document.querySelectorAll('#busiest li').length > 0").await?;
        let acquires = "document.querySelector('#tiles dd').textContent";
        let before = browser.text(acquires).await?;
        browser.until(&format!("{acquires} !== '{before}'")).await?;

        drain_and_resume(browser, &service).await?;

        let origin = service.url.trim_end_matches("admin").to_owned();
        let requests = browser.requests().await?;
        let away = requests.iter().find(|url| !url.starts_with(&origin) && !url.starts_with("data:"));
        ensure!(requests.len() > 5 && away.is_none(), "of {} requests one went to {away:?}", requests.len());

        service.stop_load().await;
        service.pools.close().await;
        browser.until("!document.getElementById('closed').hidden").await?;
        browser.until("document.getElementById('state').textContent === 'Closed'").await?;
        ensure!(browser.text("document.getElementById('budget-open').textContent").await? == "0");

        service.vanish().await;
        browser.until("!document.getElementById('lost').hidden").await?;
        browser.until("document.getElementById('state').textContent === 'Connection lost'").await?;

        let complaints = browser.complaints().await?;
        ensure!(complaints.is_empty(), "the page's console says: {complaints:?}");
        Ok(())
    })
    .await
}

async fn drain_and_resume(browser: &Browser, service: &Service) -> Result<()> {
    browser.enter("search", TENANT).await?;
    browser
        .until(&format!(
            "document.querySelectorAll('#tenants tbody tr').length === 1 && {ROW}.innerText.includes('{TENANT}')"
        ))
        .await?;

    // No is no.
    browser.click("#tenants tbody button").await?;
    browser.until("document.getElementById('confirm').open").await?;
    browser.click("#confirm-no").await?;
    browser.until("!document.getElementById('confirm').open").await?;
    ensure!(!service.is_draining(TENANT), "it was not confirmed");

    browser.click("#tenants tbody button").await?;
    browser.until("document.getElementById('confirm-title').textContent.startsWith('Drain')").await?;
    browser.click("#confirm-yes").await?;
    browser.until(&format!("{ROW}.cells[1].textContent === 'drained'")).await?;
    browser.until("document.getElementById('done').textContent.includes('drained')").await?;
    ensure!(service.is_draining(TENANT), "the page says so, and the manager does not");

    browser.until(&format!("{ROW}.querySelector('button').textContent === 'Resume'")).await?;
    browser.click("#tenants tbody button").await?;
    browser.until("document.getElementById('confirm-title').textContent.startsWith('Resume')").await?;
    browser.click("#confirm-yes").await?;
    browser.until(&format!("{ROW}.cells[1].textContent !== 'drained'")).await?;
    ensure!(!service.is_draining(TENANT), "the page says so, and the manager does not");
    Ok(())
}
