// The charts: what the last five minutes were, drawn anew at each answer. Each has a text beside it that says the same.

const WINDOW = 300; // seconds, at most
const LEAST = 30; // seconds that a chart shows at least
const GAP = 12; // seconds without an answer after which a line is broken
const [WIDTH, HEIGHT] = [600, 160];
const STATES = [
  ["in_use", "in use"],
  ["pool_leased", "in pools"],
  ["opening", "opening"],
  ["closing", "closing"],
  ["idle", "idle"],
];

const history = [];

/** Keeps a picture, with what happened a second since the one before. */
function remember(stats) {
  const now = performance.now() / 1000;
  const before = history.at(-1);
  if (before && stats.totals.warm_hits + stats.totals.waits < before.totals.warm_hits + before.totals.waits) {
    history.length = 0; // The service was started anew.
  }
  const sample = { now, ...stats, rates: { evictions: 0, refusals: 0, connects: 0, acquires: 0 }, warm: null };
  const previous = history.at(-1);
  if (previous && now > previous.now) {
    const since = (count) => Math.max(0, count(stats.totals) - count(previous.totals));
    const rate = (count) => since(count) / (now - previous.now);
    const all = (totals) => totals.warm_hits + totals.waits;
    sample.rates = { evictions: rate((t) => t.evictions), refusals: rate(refused), connects: rate((t) => t.connects), acquires: rate(all) };
    if (history.length === 1) previous.rates = sample.rates; // The first has none of its own.
    if (since(all) > 0) sample.warm = since((t) => t.warm_hits + t.hand_overs) / since(all);
  }
  history.push(sample);
  while (history[0].now < now - WINDOW - GAP) history.shift();
  return sample;
}

const refused = (totals) => Object.values(totals.refusals).reduce((sum, count) => sum + count, 0);

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Parts of a whole, side by side. */
function bar(target, parts, most) {
  let x = 0;
  const rects = parts.map(([className, value]) => {
    const width = most > 0 ? (value / most) * 1000 : 0;
    const rect = svg("rect", { class: className, x, y: 0, width: Math.max(0, width), height: 28 });
    x += width;
    return rect;
  });
  target.replaceChildren(...rects.filter((rect) => rect.getAttribute("width") > 0));
}

/** The samples as runs without a gap. */
function runs() {
  const found = [];
  let before = -Infinity;
  for (const sample of history) {
    if (sample.now - before > GAP) found.push([]);
    found.at(-1).push(sample);
    before = sample.now;
  }
  return found;
}

/** How many seconds the charts go back: as far as anything is known. */
const shown = () => Math.min(WINDOW, Math.max(LEAST, history.at(-1).now - history[0].now));
const x = (sample) => (WIDTH * (1 - (history.at(-1).now - sample.now) / shown())).toFixed(1);
const y = (value, most) => (HEIGHT * (1 - Math.min(1, value / most))).toFixed(1);

/** States on top of each other, up to the budget. */
function stack(target, most) {
  const paths = [];
  for (const run of runs()) {
    const floor = run.map(() => 0);
    for (const [state] of STATES) {
      const low = run.map((sample, at) => `${x(sample)},${y(floor[at], most)}`).reverse();
      run.forEach((sample, at) => (floor[at] += sample[state]));
      const high = run.map((sample, at) => `${x(sample)},${y(floor[at], most)}`);
      paths.push(svg("path", { class: `area ${state}`, d: `M${high.join("L")}L${low.join("L")}Z` }));
    }
  }
  target.replaceChildren(...paths);
  labels(target, whole.format(most));
}

/** One number over time. */
function line(target, value) {
  const most = nice(Math.max(1, ...history.map(value)));
  const paths = runs().flatMap((run) => {
    const points = run.map((sample) => `${x(sample)},${y(value(sample), most)}`);
    const d = `M${points.join("L")}`;
    return [
      svg("path", { class: "under", d: `${d}L${x(run.at(-1))},${HEIGHT}L${x(run[0])},${HEIGHT}Z` }),
      svg("path", { class: "line", d }),
    ];
  });
  target.replaceChildren(...paths);
  labels(target, short.format(most));
  return most;
}

/** The next of 1, 2, 5, 10, 20, ... */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

function labels(target, most) {
  const figure = target.parentElement;
  if (!figure.querySelector(".most")) {
    const label = (className, text) => {
      const made = make("span", className, text);
      made.setAttribute("aria-hidden", "true");
      return made;
    };
    target.before(label("y most", ""));
    figure.append(label("y zero", "0"), label("x then", ""), label("x now", "now"));
  }
  say(figure.querySelector(".then"), `${duration(Math.round(shown()))} ago`);
  say(figure.querySelector(".most"), most);
}

/** The least, the most and the latest, for those who do not see the chart. */
function inWords(id, value, unit) {
  const values = history.map(value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const latest = short.format(values.at(-1));
  say(`${id}-chart-text`, `${latest} ${unit} now; in the last five minutes between ${short.format(least)} and ${short.format(most)}.`);
}
