"use strict";
// Asking the service: one request at a time, bounded, with the token of this tab.

const base = location.pathname.replace(/\/+$/, "");
const element = (id) => document.getElementById(id);
const TOKEN = "tenantry-token";
let token = sessionStorage.getItem(TOKEN);

/** What the service did not answer, or answered with a problem. */
class Failed extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let last = Promise.resolve();

/** Each request begins when the one before has ended. */
function ask(path, options = {}) {
  const mine = last.then(() => fetchJson(path, options));
  last = mine.catch(() => {});
  return mine;
}

async function fetchJson(path, { body, seconds = 10 }) {
  const headers = { Authorization: `Bearer ${token}` };
  const request = { headers, cache: "no-store", credentials: "same-origin", redirect: "error" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(request, { method: "POST", body: JSON.stringify(body) });
  }
  let answer;
  try {
    answer = await fetch(base + path, { ...request, signal: AbortSignal.timeout(seconds * 1000) });
  } catch {
    throw new Failed("the service does not answer", 0);
  }
  const json = await answer.json().catch(() => null);
  if (!answer.ok) {
    throw new Failed((json && (json.detail || json.title)) || `the service answered ${answer.status}`, answer.status);
  }
  if (json === null) throw new Failed("the service's answer cannot be read", 0);
  return json;
}

// Numbers as people read them.
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${short.format(seconds * 1e6)} µs`;
  if (seconds < 1) return `${short.format(seconds * 1e3)} ms`;
  if (seconds < 120) return `${short.format(seconds)} s`;
  return seconds < 7200 ? `${short.format(seconds / 60)} min` : `${short.format(seconds / 3600)} h`;
}

/** Changes a text only where it differs: what a screen reader or a selection is at stays as it is. */
function say(target, text) {
  const node = typeof target === "string" ? element(target) : target;
  if (node.textContent !== String(text)) node.textContent = text;
}

function make(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}
