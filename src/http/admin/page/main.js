// The page's life: logging in, asking again and again while it is seen, actions, and saying when the service is lost.

const EVERY = 2000; // milliseconds from an answer to the next question
const SLOWEST = 15000; // the same while nobody answers
const PAGE = 25; // tenants

let admin = false;
let loggedIn = false;
let failures = 0;
let lostAt = null;
let timer = null;
let asking = false;
let cursors = [null]; // where each page up to this one begins
let nextCursor = null;
let search = "";

const ACTIONS = {
  drain: {
    verb: "Drain",
    text: (tenant) => `Its callers are told to come back later until you resume it. ${whole.format(tenant.idle)} idle connections close now, ${whole.format(tenant.in_use)} in use close when they come back.`,
    done: (answer) => (answer.complete ? "is drained: it holds no connection" : `drains: ${whole.format(answer.in_use + answer.opening + answer.closing + answer.pool_leased)} connections are left`),
  },
  resume: {
    verb: "Resume",
    text: () => "Its callers are served again.",
    done: (answer) => (answer.resumed ? "is served again" : "was not drained"),
  },
  evict: {
    verb: "Evict",
    text: (tenant) => `${whole.format(tenant.idle)} idle connections close now. The next caller waits for a connect.`,
    done: (answer) => `had ${whole.format(answer.closed)} idle connections, which close`,
  },
  warm: {
    verb: "Warm",
    text: () => "Connections are opened ahead. Idle ones of other tenants may be closed to make room.",
    done: (answer) => `has ${whole.format(answer.connections)} connections ready`,
  },
};

function show(stats) {
  const sample = remember(stats);
  pill(stats.available ? "good" : "bad", stats.available ? "Serving" : "Closed");
  element("closed").hidden = stats.available;
  say("seen", `as of ${new Date().toLocaleTimeString()}`);
  say("budget-open", whole.format(stats.open));
  say("budget-max", whole.format(stats.max));
  say("budget-busy", percent.format(stats.saturation));
  const parts = [...STATES, ["free", "free"]].map(([state, name]) => [state, name, state === "free" ? Math.max(0, stats.max - stats.open) : stats[state]]);
  bar(element("budget-bar"), parts.map(([state, , value]) => [state, value]), Math.max(stats.max, stats.open));
  say("budget-bar-text", parts.map(([, name, value]) => `${whole.format(value)} ${name}`).join(", "));
  legend(parts);
  stack(element("budget-chart"), Math.max(1, stats.max));
  say("budget-chart-text", `Of ${whole.format(stats.max)} connections, over the last five minutes: ${spread((s) => s.in_use)} in use, ${spread((s) => s.idle)} idle.`);

  chart("waiting", (s) => s.waiting, "in line", whole);
  chart("evictions", (s) => s.rates.evictions, "a second", short);
  chart("refusals", (s) => s.rates.refusals, "a second", short);
  const scopes = Object.entries(stats.totals.refusals).filter(([, count]) => count > 0);
  say("refusals-scopes", scopes.length ? `since the start: ${scopes.map(([scope, count]) => `${whole.format(count)} ${scope}`).join(", ")}` : "none since the start");
  tiles([
    ["Acquires a second", short.format(sample.rates.acquires)],
    ["Of these warm", sample.warm === null ? "–" : percent.format(sample.warm)],
    ["Connects a second", short.format(sample.rates.connects)],
    ["Tenants known", whole.format(stats.tenants)],
    ["Unavailable", whole.format(stats.unavailable)],
    ["Background", `${whole.format(stats.background)} of ${whole.format(stats.background_share)}`],
    ["Closes overdue", whole.format(stats.overdue)],
  ]);
  showServers(stats.servers);
}

const spread = (value) => {
  const values = history.map(value);
  return `${whole.format(Math.min(...values))} to ${whole.format(Math.max(...values))}`;
};

function chart(id, value, unit, format) {
  line(element(`${id}-chart`), value);
  say(`${id}-now`, format.format(value(history.at(-1))));
  inWords(id, value, unit);
}

function legend(parts) {
  const list = element("budget-legend");
  parts.forEach(([state, name], at) => {
    if (!list.children[at]) {
      const item = make("li");
      const swatch = make("i", state);
      swatch.setAttribute("aria-hidden", "true");
      item.append(swatch, make("b"), ` ${name}`);
      list.append(item);
    }
    say(list.children[at].querySelector("b"), whole.format(parts[at][2]));
  });
}

function tiles(values) {
  const list = element("tiles");
  values.forEach(([name, value], at) => {
    if (!list.children[at]) {
      const tile = make("div");
      tile.append(make("dt", "", name), make("dd"));
      list.append(tile);
    }
    say(list.children[at].lastChild, value);
  });
}

function pill(state, text) {
  element("state").dataset.state = state;
  say("state", text);
}

/** One round of questions, one after the other. */
async function round() {
  const stats = await ask("/api/stats");
  admin = stats.role === "admin";
  enter();
  show(stats);
  if (!admin) return;
  const by = element("busiest-by").value;
  const top = await ask(`/api/top?${new URLSearchParams({ by, limit: 10 })}`);
  showBusiest(top.tenants, by);
  await tenantsPage();
}

async function tenantsPage() {
  const wanted = new URLSearchParams({ limit: PAGE });
  if (search) wanted.set("containing", search);
  if (cursors.at(-1) !== null) wanted.set("after", cursors.at(-1));
  const list = await ask(`/api/tenants?${wanted}`);
  nextCursor = list.next;
  showTenants(list.tenants);
  element("first").disabled = element("previous").disabled = cursors.length === 1;
  element("next").disabled = nextCursor === null;
  say("page-number", `Page ${whole.format(cursors.length)}`);
}

/** Asks now, and then again and again while the page is seen. */
async function poll() {
  if (asking || token === null) return;
  clearTimeout(timer);
  asking = true;
  try {
    await round();
    found();
  } catch (error) {
    lost(error);
  }
  asking = false;
  if (token !== null && !document.hidden) timer = setTimeout(poll, Math.min(EVERY * 2 ** failures, SLOWEST));
}

function found() {
  failures = 0;
  lostAt = null;
  element("lost").hidden = true;
  element("main").classList.remove("stale");
}

function lost(error) {
  if (error.status === 401 || error.status === 403) {
    leave(error.status === 401 ? "The service refused this token." : "This token may not read the numbers.");
    return;
  }
  if (!(error instanceof Failed)) throw error;
  failures += 1;
  if (!loggedIn) {
    say("login-error", `Not logged in: ${error.message}.`);
    return;
  }
  if (lostAt === null) lostAt = new Date();
  pill("bad", "Connection lost");
  say("lost", `No connection to the service since ${lostAt.toLocaleTimeString()}: ${error.message}. The numbers are from before; it is asked again and again.`);
  element("lost").hidden = false;
  element("main").classList.add("stale");
}

function enter() {
  element("reader").hidden = admin;
  element("busiest-section").hidden = element("tenants-section").hidden = !admin;
  if (loggedIn) return;
  loggedIn = true;
  sessionStorage.setItem(TOKEN, token);
  element("login").hidden = true;
  element("main").hidden = element("logout").hidden = false;
  element("main").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function leave(message) {
  clearTimeout(timer);
  sessionStorage.removeItem(TOKEN);
  token = null;
  loggedIn = admin = false;
  failures = history.length = 0;
  [cursors, search] = [[null], ""];
  for (const table of ["servers", "tenants"]) element(table).tBodies[0].replaceChildren();
  element("busiest").replaceChildren();
  element("main").hidden = element("logout").hidden = element("lost").hidden = element("closed").hidden = true;
  element("login").hidden = false;
  pill("out", "Not logged in");
  for (const id of ["seen", "done"]) say(id, "");
  say("login-error", message);
  element("search").value = element("token").value = "";
  element("token").focus();
}

/** Asks the operator, then the service, and says what came of it. */
async function act(action, tenant) {
  const { verb, text, done } = ACTIONS[action];
  say("confirm-title", `${verb} ${tenant.tenant}?`);
  say("confirm-text", text(tenant));
  say("confirm-yes", verb);
  element("confirm-count").hidden = action !== "warm";
  element("count").disabled = action !== "warm";
  element("count").value = 1;
  const dialog = element("confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  if (dialog.returnValue !== "yes") return;
  const body = { tenant: tenant.tenant };
  if (action === "drain") body.within_seconds = 2;
  if (action === "warm") body.connections = Number(element("count").value);
  const result = element("done");
  try {
    const answer = await ask(`/api/${action}`, { body, seconds: 30 });
    result.classList.remove("failed");
    say(result, `${tenant.tenant} ${done(answer)}.`);
  } catch (error) {
    if (error.status === 401) return leave("The service refused this token.");
    result.classList.add("failed");
    say(result, `${verb} ${tenant.tenant}: ${error.message}.`);
  }
  poll();
}

/** A question for another page or order, between two rounds. */
function turn(change) {
  change();
  tenantsPage().catch(lost);
}

element("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = element("token").value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) return say("login-error", "A token is of letters, digits and signs, without blanks.");
  token = given;
  say("login-error", "");
  failures = 0;
  poll();
});
element("logout").addEventListener("click", () => leave(""));
element("busiest-by").addEventListener("change", poll);
element("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  turn(() => ([search, cursors] = [element("search").value, [null]]));
});
element("search").addEventListener("input", () => {
  if (element("search").value === "" && search !== "") turn(() => ([search, cursors] = ["", [null]]));
});
element("first").addEventListener("click", () => turn(() => (cursors = [null])));
element("previous").addEventListener("click", () => turn(() => cursors.length > 1 && cursors.pop()));
element("next").addEventListener("click", () => turn(() => nextCursor !== null && cursors.push(nextCursor)));
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
if (token !== null) poll();
else element("token").focus();
