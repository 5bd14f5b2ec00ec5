// The queue as the people on call look at it: what each processor has to do and how fast it is, who works, what is away.

import { call, get, may, Problem, session } from "./api.js";
import { showDead } from "./app.js";
import { makeChart } from "./chart.js";
import { openDialog } from "./dialog.js";
import { fill, h, icon, loading, notice, put, say, toast } from "./dom.js";
import { ago, count, duration, number, time } from "./format.js";
import { showRedis, showTurns, showWorkers } from "./workers.js";

export const title = "Queue";

const STATS_MS = 1200;  // a worker that is gone must be seen within five seconds
const HISTORY_MS = 6000;
const REDIS_MS = 5000;
const STATES = ["due", "later", "running", "done", "rejected", "dead", "discarded"];
const SPANS = [[15, "Last 15 minutes"], [60, "Last hour"], [360, "Last 6 hours"], [1440, "Last day"]];
const NAMES = { postgres: "Postgres", redis: "Redis", s3: "S3", storage: "S3" };

export function open(outlet) {
  const page = { closed: false, cards: new Map(), workers: new Map(), minutes: 60, timers: [], last: null };
  const span = h("select", { "aria-label": "Time that the lines show", class: "small", on: { change: () => { page.minutes = Number(span.value); showHistory(page); } } },
    SPANS.map(([minutes, name]) => h("option", { value: minutes, selected: minutes === page.minutes }, name)));
  page.top = h("div", { class: "section" });
  page.depends = h("ul", { class: "depends", role: "list" });
  page.processors = h("div", { class: "tiles" }, loading("the queue"));
  page.workerList = h("ul", { class: "workers", role: "list" });
  page.workerHead = h("h2", {}, "Workers");
  page.stopped = h("p", { class: "hint", hidden: true });
  page.turns = h("ul", { class: "depends", role: "list" });
  page.redis = h("section", { class: "section", "aria-label": "Redis", hidden: true });
  const everything = may("admin") && ["pause", "resume"].map((action) => h("button", { type: "button", class: "small", on: { click: () => (action === "pause" ? askPause(page, null) : act(page, null, "resume", "")) } }, icon(action === "pause" ? "pause" : "play"), action === "pause" ? "Pause all" : "Resume all"));
  page.facts = h("p", { class: "hint" });
  const limited = session.current.places.length > 0;
  put(outlet, h("div", { class: "page" },
    h("div", { class: "page-head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Queue"), page.facts),
      h("div", { class: "actions" }, h("a", { class: "button small", href: "/jobs" }, icon("search"), "All jobs"), !limited && [everything, span])),
    page.top,
    h("section", { class: "section", "aria-label": "Processors" }, page.processors),
    !limited && [h("section", { class: "section" }, page.workerHead, page.workerList, page.stopped),
      h("section", { class: "section" }, h("h2", {}, "Dependencies"), page.depends), page.redis,
      h("section", { class: "section", "aria-label": "Turns" }, h("h2", {}, "What the gateway does again and again"), page.turns)]));
  if (limited) {
    put(page.processors, notice("plain", "The queue is for keys that are not limited.", h("p", {}, `Yours is limited to ${session.current.places.join(", ")}.`)));
    return { close: () => { page.closed = true; } };
  }
  repeat(page, showStats, STATS_MS);
  repeat(page, showReadiness, 3000);
  if (may("admin")) repeat(page, showRedis, REDIS_MS);
  page.timers.push(setTimeout(() => repeat(page, showHistory, HISTORY_MS), HISTORY_MS));
  return { close: () => { page.closed = true; page.timers.forEach(clearTimeout); } };
}

/** Again and again, never twice at once, and not while nobody looks. */
async function repeat(page, action, milliseconds) {
  if (page.closed || !session.current) return;
  if (!document.hidden) {
    try {
      await action(page);
      if (action === showStats && page.problem) { page.problem = null; showTop(page); }
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (action === showStats && !page.closed) { page.problem = error; showTop(page); }
    }
  }
  page.timers = page.timers.slice(-8);
  page.timers.push(setTimeout(() => repeat(page, action, milliseconds), milliseconds));
}

async function showStats(page) {
  const stats = await get("/v1/stats");
  if (page.closed) return;
  showDead(stats);
  showProcessors(page, stats);
  showWorkers(page, stats);
  showTurns(page, stats);
  page.facts.textContent = [stats.redis_stream_depth === null ? "Redis is away: workers ask Postgres" : `${count(stats.redis_stream_depth, "message")} in Redis`,
    stats.uploads_waiting ? `${count(stats.uploads_waiting, "upload")} waiting for memory` : ""].filter(Boolean).join(" · ");
  const first = !page.last;
  page.last = stats;
  showTop(page);
  if (first) await showHistory(page);
}

function showTop(page) {
  const notices = [];
  if (page.problem) notices.push(notice("bad", "What is shown may be old.", h("p", {}, page.problem.sentence)));
  const stats = page.last;
  if (stats) {
    const waiting = Object.values(stats.processors).reduce((sum, item) => sum + item.ready, 0);
    if (!stats.workers.length) notices.push(notice("bad", "No worker is running.", h("p", {}, waiting ? `${count(waiting, "job waits", "jobs wait")}. ` : "", "Start one with ", h("code", {}, "safelight worker"), ". Uploads go on meanwhile.")));
  }
  const mark = notices.map((item) => item.textContent).join();
  if (mark === page.topMark) return;
  page.topMark = mark;
  put(page.top, notices);
  page.top.hidden = !notices.length;
  if (mark) say(mark);
}

// --- processors

function showProcessors(page, stats) {
  if (!page.cards.size) put(page.processors);
  for (const [name, item] of Object.entries(stats.processors)) {
    let card = page.cards.get(name);
    if (!card) {
      card = makeCard(page, name);
      page.cards.set(name, card);
      page.processors.append(card.root);
    }
    card.update(item);
  }
}

function makeCard(page, name) {
  const state = h("span", { class: "badge" });
  const note = h("p", { class: "hint", hidden: true });
  const button = may("admin") ? h("button", { type: "button", class: "small" }) : null;
  const cell = (state) => {
    const much = h("span", { class: "much" }, "0");
    const query = state === "dead" ? `/dead?processor=${encodeURIComponent(name)}` : `/jobs?state=${state}&processor=${encodeURIComponent(name)}`;
    return { much, root: h("a", { href: query }, much, h("span", { class: "what" }, state)) };
  };
  const cells = Object.fromEntries(STATES.map((state) => [state, cell(state)]));
  const oldest = h("p", { class: "hint" });
  const rate = makeChart("Jobs a minute", { say: (value) => number(Math.round(value * 10) / 10), sayMark: (mark) => count(mark, "failure") });
  const latency = makeChart("Run time, p95", { say: duration });
  const charts = h("div", { class: "charts", hidden: true }, rate.root, latency.root);
  const root = h("section", { class: "card processor", "aria-label": name }, h("div", { class: "processor-head" }, h("h2", {}, name), state, button), note,
    h("div", { class: "counts" }, Object.values(cells).map((item) => item.root)), oldest, charts);
  let paused = null;
  if (button) fill(button, { on: { click: () => (paused ? resume(page, name, button) : askPause(page, name)) } });

  function update(item) {
    paused = item.paused || null;
    for (const [key, part] of Object.entries(cells)) part.much.textContent = number(item[key]);
    cells.dead.root.className = item.dead ? "hot" : "";
    cells.running.root.className = item.running ? "warm" : "";
    state.className = `badge ${paused ? "paused" : item.running ? "running" : item.due ? "processing" : item.later ? "retry" : "done"}`;
    state.textContent = paused ? "Paused" : item.running ? "Working" : item.due ? "Waiting" : item.later ? "Later" : "Idle";
    note.hidden = !paused;
    note.textContent = paused ? `Paused by ${paused.by} ${ago(paused.at)}${paused.note ? `: ${paused.note}` : ""}. Uploads go on; their jobs wait.` : "";
    const window = item.windows["5m"];
    put(oldest, [item.oldest_ready_seconds === null ? "Nothing is due" : `The oldest due job waits for ${duration(item.oldest_ready_seconds)}`,
      item.next_at && `the next later one is due ${time(item.next_at)}`].filter(Boolean).join("; "), ".",
    window && window.jobs > 0 && h("br"), window && window.jobs > 0 && `In 5 minutes ${number(window.jobs)} ran for p50 ${duration(window.p50_seconds)}, p95 ${duration(window.p95_seconds)}, p99 ${duration(window.p99_seconds)}${item.wait ? `; they had waited p50 ${duration(item.wait.p50_seconds)}, p95 ${duration(item.wait.p95_seconds)}, p99 ${duration(item.wait.p99_seconds)}` : ""}.`);
    if (button && "paused" in item && button.dataset.paused !== String(Boolean(paused))) {
      button.dataset.paused = String(Boolean(paused));
      put(button, icon(paused ? "play" : "pause"), paused ? "Resume" : "Pause", h("span", { class: "unseen" }, ` ${name}`));
    }
    if (button) button.hidden = !("paused" in item);
  }

  function draw(trend, history) {
    charts.hidden = false;
    const common = { from: history.from, stepSeconds: history.step_seconds };
    rate.update({ ...common, values: trend.ok.map((jobs) => (jobs * 60) / history.step_seconds), marks: trend.failed.map((jobs, at) => jobs + trend.dead[at]) });
    latency.update({ ...common, values: trend.p95_seconds });
  }

  return { root, update, draw };
}

async function showHistory(page) {
  const history = await get("/v1/stats/history", { minutes: page.minutes }).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  });
  if (page.closed || !history) return;
  for (const [name, trend] of Object.entries(history.processors)) {
    const card = page.cards.get(name);
    if (card) card.draw(trend, history);
  }
}

/** `name` null: all of them. */
function askPause(page, name) {
  const what = name || "all processors";
  const input = h("input", { id: "pause-note", type: "text", maxlength: "1000", autocomplete: "off" });
  const { body, close } = openDialog(`Pause ${what}?`);
  const button = h("button", { type: "submit", class: "primary" }, icon("pause"), `Pause ${what}`);
  body.append(h("form", { class: "section", on: { submit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    if (await act(page, name, "pause", input.value.trim())) close();
    button.disabled = false;
  } } }, h("p", {}, "Running jobs finish, no new one is begun. Photos are still taken in; their jobs wait until somebody resumes."),
  h("div", { class: "field" }, h("label", { for: "pause-note" }, "Why (others will see it)"), input),
  h("div", { class: "dialog-foot" }, h("button", { type: "button", on: { click: close } }, "Cancel"), button)));
  input.focus();
}

async function resume(page, name, button) {
  button.disabled = true;
  await act(page, name, "resume", "");
  button.disabled = false;
}

async function act(page, name, action, note) {
  try {
    await call("POST", `/v1/processors${name ? `/${encodeURIComponent(name)}` : ""}/${action}`, { body: note ? { note } : {} });
    toast(`${name ? `${name} ` : "All processors "}${action === "pause" ? (name ? "is paused" : "are paused") : name ? "runs again" : "run again"}.`, "good");
    await showStats(page).catch(() => null);
    return true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    toast(error.sentence, "bad");
    return false;
  }
}

// --- dependencies

async function showReadiness(page) {
  const readiness = await get("/readyz");
  if (page.closed) return;
  put(page.depends, Object.entries(readiness.dependencies).map(([name, item]) => h("li", { class: item.up ? "" : "down" },
    h("span", { class: `badge ${item.up ? "up" : "down"}` }, item.up ? "Up" : "Down"), h("span", { class: "strong" }, NAMES[name] || name),
    h("span", { class: "hint" }, item.up ? "" : `since ${item.down_since ? `${time(item.down_since)}, ${ago(item.down_since)}` : "just now"}; ${item.required ? "uploads are refused" : "uploads go on"}`))));
}
