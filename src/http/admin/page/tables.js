// Servers, the busiest tenants, and the table of tenants with what can be done with each.

/** Makes the rows of a table those of `items`, one for each key: a row that stays keeps its focus. */
function rows(table, items, key, fill) {
  const body = element(table).tBodies[0];
  const there = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, at) => {
    const row = there.get(key(item)) || make("tr");
    row.setAttribute("role", "row");
    row.dataset.key = key(item);
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] || null);
    fill(row, item);
  });
  while (body.rows.length > items.length) body.rows[items.length].remove();
}

/**
 * The cell of that number; made when it is first asked for. Its column's name is with it, for narrow screens, where each row
 * is a card; the roles are said as well, since browsers forget them for what is shown as a card.
 */
function cell(row, at, className = "") {
  while (row.cells.length <= at) {
    const made = make(row.cells.length === 0 ? "th" : "td");
    made.setAttribute("role", row.cells.length === 0 ? "rowheader" : "cell");
    row.append(made);
    made.dataset.column = row.closest("table").tHead.rows[0].cells[row.cells.length - 1].textContent;
  }
  const found = row.cells[at];
  if (className && found.className !== className) found.className = className;
  return found;
}

function header(row, text) {
  const th = cell(row, 0);
  th.scope = "row";
  th.title = text;
  say(th, text);
}

function tag(target, [kind, text]) {
  if (!target.firstChild) target.append(make("span"));
  target.firstChild.className = `tag ${kind}`;
  say(target.firstChild, text);
}

function showServers(servers) {
  document.body.classList.toggle("one-server", servers.length < 2);
  rows("servers", servers, (server) => server.server, (row, server) => {
    header(row, server.server || "the only server");
    tag(cell(row, 1), serverState(server));
    say(cell(row, 2, "number"), `${whole.format(server.open)} of ${whole.format(server.max)}`);
    const taken = cell(row, 3);
    if (!taken.firstChild) {
      taken.append(svg("svg", { class: "bar", viewBox: "0 0 1000 28", preserveAspectRatio: "none", "aria-hidden": "true" }));
    }
    bar(taken.firstChild, STATES.map(([state]) => [state, server[state]]), server.max);
    const numbers = [
      ["", server.in_use], ["", server.idle], [" extra", server.opening], ["", server.waiting],
      [" extra", duration(server.connect_time_seconds)], [" extra", server.connect_failures], [" extra", server.epoch],
    ];
    numbers.forEach(([extra, value], at) => {
      say(cell(row, 4 + at, `number${extra}`), typeof value === "number" ? whole.format(value) : value);
    });
  });
}

function serverState(server) {
  if (server.paused) return ["warn", "paused"];
  if (server.full_seconds !== null) return ["bad", `full: takes ${whole.format(server.effective_max)}`];
  return ["good", "takes connections"];
}

const BUSY = {
  in_use: (tenant) => tenant.open - tenant.idle,
  waiting: (tenant) => tenant.waiting,
  waits: (tenant) => tenant.totals.waits,
  refusals: (tenant) => refused(tenant.totals),
  connects: (tenant) => tenant.totals.connects,
  evictions: (tenant) => tenant.totals.evictions,
};

function showBusiest(tenants, by) {
  // Their numbers may have changed since they were chosen.
  const busy = tenants.filter((tenant) => BUSY[by](tenant) > 0).sort((a, b) => BUSY[by](b) - BUSY[by](a));
  const most = Math.max(1, ...busy.map(BUSY[by]));
  const items = busy.map((tenant) => {
    const item = make("li");
    const name = make("span", "", tenant.tenant);
    name.title = tenant.tenant;
    const value = svg("svg", { class: "bar", viewBox: "0 0 1000 28", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar(value, [["in_use", BUSY[by](tenant)]], most);
    item.append(name, value, make("b", "", whole.format(BUSY[by](tenant))));
    return item;
  });
  element("busiest").replaceChildren(...items);
  element("busiest-none").hidden = items.length > 0;
}

function tenantState(tenant) {
  if (tenant.removed) return ["bad", "removed"];
  if (tenant.draining) return ["warn", tenant.open > 0 ? "draining" : "drained"];
  const circuit = tenant.circuit;
  if (circuit.state === "open") return ["bad", `${words(circuit.kind)}, next try in ${duration(circuit.retry_after_seconds)}`];
  if (circuit.state === "half_open") return ["bad", `${words(circuit.kind)}, is tried`];
  if (circuit.state === "server_full") return ["warn", "its server is full"];
  if (tenant.in_use > 0) return ["good", "in use"];
  if (tenant.idle > 0) return ["good", "warm"];
  return ["", tenant.waiting > 0 ? "waits" : "cold"];
}

const words = (name) => name.replaceAll("_", " ");

function showTenants(tenants) {
  rows("tenants", tenants, (tenant) => tenant.tenant, (row, tenant) => {
    header(row, tenant.tenant);
    tag(cell(row, 1), tenantState(tenant));
    const numbers = [
      ["", tenant.in_use], ["", tenant.idle], ["", tenant.max], [" extra", tenant.waiting], [" extra", tenant.totals.waits],
      [" extra", refused(tenant.totals)],
    ];
    numbers.forEach(([extra, value], at) => say(cell(row, 2 + at, `number${extra}`), whole.format(value)));
    say(cell(row, 8, "extra place"), tenant.server || "the only server");
    buttons(cell(row, 9, "acts"), tenant);
  });
  element("tenants-none").hidden = tenants.length > 0;
}

/** Drain and resume share a button, so that the focus stays where it was. */
function buttons(target, tenant) {
  if (!target.firstChild) {
    for (let at = 0; at < 3; at += 1) {
      const button = make("button", "plain");
      button.type = "button";
      button.addEventListener("click", () => act(button.dataset.action, target.tenant));
      target.append(button);
    }
  }
  target.tenant = tenant;
  const actions = [tenant.draining ? "resume" : "drain", "evict", "warm"];
  const usable = [!tenant.removed, tenant.idle > 0, !tenant.draining && !tenant.removed];
  actions.forEach((action, at) => {
    const button = target.children[at];
    button.dataset.action = action;
    button.disabled = !usable[at] && document.activeElement !== button;
    say(button, ACTIONS[action].verb);
    button.setAttribute("aria-label", `${ACTIONS[action].verb} ${tenant.tenant}`);
  });
}
